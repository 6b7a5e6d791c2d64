"""The demo's tandem.toml: what a real one has, with the stand-ins as peers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from tests.peers.certs import Identity

FQDN = "sbc.example.test"
EXPERT = "+4930123456"
AGENT = "+49301112222"
NUMBERS = {
    "customer": "+493055550100",
    "expert": EXPERT,
    "anna": "+49301112201",
    "bert": "+49301112202",
}
"""On the desktop's demo."""
TEAMS_USERS = {
    "anna": "00000000-0000-0000-0000-000000000001",
    "bert": "00000000-0000-0000-0000-000000000002",
    "expert": "00000000-0000-0000-0000-000000000003",
}
"""Object ids, as `tests.peers.graph_cli` populates its tenant."""
GRAPH_SECRET = "graph-secret"
"""File beside the configuration with the Graph stand-in's client secret."""


@dataclass(frozen=True)
class Site:
    """plain, secure: our SIP ports; media: ours for RTP

    proxies: Teams' `peers`; hosts: names on the loopback
    """

    plain: int
    secure: int
    media: tuple[int, int]
    identity: Identity
    roots: Path
    proxies: list[str]
    hosts: dict[str, str]


def _machine(site: Site, http: str, drain: int) -> str:
    names = "\n".join(f'"{name}" = "{address}"' for name, address in site.hosts.items())
    peers = ", ".join(f'"{peer}"' for peer in site.proxies)
    return f"""\
# Written by scripts/demo: everything on the loopback address. Every key is explained in config/tandem.toml.

[gateway]
fqdn = "{FQDN}"
state_dir = "state"

[sip]
listen = ["udp:127.0.0.1:{site.plain}", "tcp:127.0.0.1:{site.plain}", "tls:127.0.0.1:{site.secure}"]
certificate = "{site.identity.chain}"
private_key = "{site.identity.key}"
trusted_roots = "{site.roots}"

[resolver.hosts]
{names}

[media]
rtpengine = "embedded"
address = "127.0.0.1"
ports = [{site.media[0]}, {site.media[1]}]

[http]
listen = "{http}"

[limits]
drain_timeout = {drain}
min_free_disk = 16

[cdr]
json_lines = "call-detail"

[[trunk]]
name = "teams"
kind = "direct-routing"
peers = [{peers}]
tenants = ["{FQDN}"]
allow_from = ["127.0.0.0/8"]
"""


def tandem_toml(site: Site, *, center: str) -> str:
    """For the calls that end by themselves; center: the contact center's `peers`."""
    return f"""\
{_machine(site, "127.0.0.1:0", 3)}
[[trunk]]
name = "contact-center"
kind = "sip"
peers = ["{center}"]
party = "agent"
options_interval = 30

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


@dataclass(frozen=True)
class GraphPeer:
    """What the Graph stand-in says of itself when it is ready."""

    authority: str
    root: str
    roots: str
    tenant: str
    client_id: str
    client_secret: str

    @classmethod
    def of(cls, said: dict[str, str]) -> GraphPeer:
        return cls(**{field.name: said[field.name] for field in fields(cls)})


def desktop_toml(site: Site, *, port: int, customers: str, telephones: str, graph: GraphPeer) -> str:
    """For the desktop. port: of [http]; customers, telephones: `peers` of the two SIP trunks."""
    people = "\n".join(
        f"""
[[agent]]
login = "{login}"
name = "{login.capitalize()} Example"
team = "Service"
numbers = ["{NUMBERS[login]}"]
teams_user = "{login}.example@contoso.test"
"""
        for login in ("anna", "bert")
    )
    return f"""\
{_machine(site, f"127.0.0.1:{port}", 1)}
[[trunk]]
name = "customers"
kind = "sip"
peers = ["{customers}"]
options_interval = 30

[[trunk]]
name = "telephones"
kind = "sip"
peers = ["{telephones}"]
party = "agent"
options_interval = 30

[[route]]
from = "customers"
to = "telephones"

[[route]]
from = "teams"
to = "telephones"

[[route]]
from = "telephones"
number = '\\+4930111\\d+'
to = "telephones"

[[route]]
from = "telephones"
number = '\\+49305555\\d+'
to = "customers"

[[route]]
from = "telephones"
to = "teams"

[graph]
tenant = "{graph.tenant}"
client_id = "{graph.client_id}"
client_secret = "file:{GRAPH_SECRET}"
authority = "{graph.authority}"
trusted_roots = "{graph.roots}"
root = "{graph.root}"
public_url = "http://localhost:{port}"
{people}"""
