"""The demo's tandem.toml: what a real one has, with the stand-ins as peers."""

from __future__ import annotations

from pathlib import Path

from tests.peers.certs import Identity

FQDN = "sbc.example.test"
EXPERT = "+4930123456"
AGENT = "+49301112222"


def tandem_toml(
    *,
    plain: int,
    secure: int,
    media: tuple[int, int],
    identity: Identity,
    roots: Path,
    center: str,
    proxies: list[str],
    hosts: dict[str, str],
) -> str:
    """plain, secure: our SIP ports; center, proxies: `peers` of the trunks; hosts: names on the loopback."""
    names = "\n".join(f'"{name}" = "{address}"' for name, address in hosts.items())
    peers = ", ".join(f'"{peer}"' for peer in proxies)
    return f"""\
# Written by scripts/demo: everything on the loopback address. Every key is explained in config/tandem.toml.

[gateway]
fqdn = "{FQDN}"
state_dir = "state"

[sip]
listen = ["udp:127.0.0.1:{plain}", "tcp:127.0.0.1:{plain}", "tls:127.0.0.1:{secure}"]
certificate = "{identity.chain}"
private_key = "{identity.key}"
trusted_roots = "{roots}"

[resolver.hosts]
{names}

[media]
rtpengine = "embedded"
address = "127.0.0.1"
ports = [{media[0]}, {media[1]}]

[http]
listen = "127.0.0.1:0"

[limits]
drain_timeout = 3
min_free_disk = 16

[cdr]
json_lines = "call-detail"

[[trunk]]
name = "contact-center"
kind = "sip"
peers = ["{center}"]
party = "agent"
options_interval = 30

[[trunk]]
name = "teams"
kind = "direct-routing"
peers = [{peers}]
tenants = ["{FQDN}"]
allow_from = ["127.0.0.0/8"]

[[route]]
from = "contact-center"
number = '\\+\\d+'
to = "teams"

[[route]]
from = "teams"
to = "contact-center"

[[agent]]
login = "anna"
name = "Anna Example"
team = "Service"
numbers = ["{AGENT}"]
"""
