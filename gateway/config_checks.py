"""Contradictions: settings that are fine alone and cannot be meant together."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.config_lines import KeyPath
from gateway.config_models import PORTS_PER_CALL, Config, Route
from gateway.config_trunk import Trunk
from gateway.config_types import is_address, split_address, split_endpoint
from gateway.model import PartyType

MAX_FQDN = 63
"""facts/direct-routing.md 1.4: longest trunk FQDN that Teams takes."""
MIN_PORTS = 2 * PORTS_PER_CALL
"""A call and the consultation beside it."""


@dataclass(frozen=True)
class Problem:
    """One thing that keeps (or, as a warning, should keep) the gateway from starting."""

    path: KeyPath
    text: str
    cure: str = ""


def closest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of what is known."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(sorted(names)) if names else ""


def contradictions(config: Config) -> Iterator[Problem]:
    """Everything that contradicts something else, in no particular order."""
    yield from _listeners(config)
    yield from _ports(config)
    yield from _trunk_names(config)
    for index, trunk in enumerate(config.trunks):
        yield from _trunk(config, ("trunk", index), trunk)
        yield from _direct_routing(config, ("trunk", index), trunk)
    yield from _overlaps(config)
    for index, route in enumerate(config.routes):
        yield from _route(config, ("route", index), route, config.routes[:index])
    yield from _agents(config)
    yield from _tokens(config)
    yield from _sign_in(config)
    if config.web_chat.webhook is not None and config.graph is None:
        yield Problem(
            ("web_chat", "webhook"), "web chats with Teams experts need [graph]", "tenant and client_id"
        )


def _listeners(config: Config) -> Iterator[Problem]:
    sip = config.sip
    seen: set[str] = set()
    for index, text in enumerate(sip.listen):
        if text in seen and split_endpoint(text)[2] != 0:
            yield Problem(("sip", "listen", index), f"{text} is listed twice")
        seen.add(text)
    tls = [index for index, text in enumerate(sip.listen) if text.startswith("tls:")]
    if tls and sip.certificate is None:
        yield Problem(
            ("sip", "listen", tls[0]),
            "a tls listener needs a certificate",
            "set certificate and private_key in [sip]",
        )
    if sip.certificate is not None and sip.private_key is None:
        yield Problem(("sip", "certificate"), "certificate without private_key", "set private_key in [sip]")
    if sip.private_key is not None and sip.certificate is None:
        yield Problem(("sip", "private_key"), "private_key without certificate", "set certificate in [sip]")
    http_host, http_port = split_address(config.http.listen)
    for text in sip.listen:
        kind, host, port = split_endpoint(text)
        if kind != "udp" and port == http_port != 0 and host == http_host:
            yield Problem(
                ("http", "listen"), f"{config.http.listen} is also a SIP listener", "choose another port"
            )


def _ports(config: Config) -> Iterator[Problem]:
    first, last = config.media.ports
    path: KeyPath = ("media", "ports")
    if not (1024 <= first <= 65535 and 1024 <= last <= 65535):
        yield Problem(path, f"ports {first}-{last} are outside 1024-65535")
        return
    if last <= first:
        yield Problem(path, f"ports go from {first} to {last}", "write the lower one first")
        return
    if first % 2:
        yield Problem(path, f"the first port {first} is odd", f"RTP takes even ports: start at {first + 1}")
    if last - first + 1 < MIN_PORTS:
        yield Problem(
            path, f"{last - first + 1} ports are too few", f"a call takes {PORTS_PER_CALL}, two at least"
        )
    if config.limits.max_calls is not None and config.limits.max_calls > config.media.call_capacity:
        yield Problem(
            ("limits", "max_calls"),
            f"{config.limits.max_calls} calls need {config.limits.max_calls * PORTS_PER_CALL} media ports, "
            f"[media] ports has {last - first + 1}",
            "widen ports or lower max_calls",
        )
    for index, text in enumerate(config.sip.listen):
        kind, _, port = split_endpoint(text)
        if kind == "udp" and first <= port <= last:
            yield Problem(("sip", "listen", index), f"{text} lies inside [media] ports {first}-{last}")


def _trunk_names(config: Config) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, trunk in enumerate(config.trunks):
        if trunk.name in seen:
            yield Problem(("trunk", index, "name"), f"a second trunk is called {trunk.name!r}")
        seen.add(trunk.name)


def _trunk(config: Config, path: KeyPath, trunk: Trunk) -> Iterator[Problem]:
    if (trunk.username is None) != (trunk.password is None):
        there, missing = ("username", "password") if trunk.username else ("password", "username")
        yield Problem((*path, there), f"{there} without {missing}", f"set {missing} too")
    if 0 < trunk.session_expires < 90:
        yield Problem(
            (*path, "session_expires"),
            f"{trunk.session_expires} s is below the 90 s of RFC 4028",
            "1800 suits everybody; 0 turns the session timer off",
        )
    elif 0 < trunk.session_expires < trunk.min_se:
        yield Problem(
            (*path, "min_se"), f"min_se {trunk.min_se} is above session_expires {trunk.session_expires}"
        )
    listening = [split_endpoint(text) for text in config.sip.listen]
    for number, text in enumerate(trunk.peers):
        if text in config.sip.listen:
            yield Problem(
                (*path, "peers", number), f"{text} is our own listener", "calls would come back to us"
            )
        if text.startswith("udp:") and not any(kind == "udp" for kind, _, _ in listening):
            yield Problem(
                (*path, "peers", number), f"{text}: there is no udp listener", "add one to [sip] listen"
            )
    if trunk.direct_routing:
        return
    for key in ("tenants", "caller", "cloud", "send_replaces", "refer"):
        if key in trunk.model_fields_set:
            yield Problem((*path, key), f"{key} is for kind direct-routing", f"remove {key}, or set the kind")
    if trunk.party is PartyType.TEAMS_EXPERT:
        yield Problem((*path, "party"), "teams_expert is for kind direct-routing", '"external" or "agent"')
    if trunk.advertise is None and config.sip.advertise is None:
        for kind, host, _ in listening:
            if host in ("0.0.0.0", "::") and any(peer.startswith(f"{kind}:") for peer in trunk.peers):
                yield Problem(
                    (*path, "peers"),
                    f"the {kind} listener takes every address, so peers cannot be told which one is ours",
                    "set advertise in [sip] or in this trunk",
                )
                break


def _direct_routing(config: Config, path: KeyPath, trunk: Trunk) -> Iterator[Problem]:
    if not trunk.direct_routing:
        return
    if not trunk.tenants:
        yield Problem(
            (*path, "tenants"),
            "direct-routing needs a FQDN",
            "set tenants here or fqdn in [gateway] to the paired name",
        )
    for number, tenant in enumerate(trunk.tenants):
        yield from _tenant((*path, "tenants", number), tenant)
    if not any(text.startswith("tls:") for text in config.sip.listen):
        yield Problem(path, "direct-routing needs a tls listener", 'add "tls:ADDRESS:5061" to [sip] listen')
    for number, text in enumerate(trunk.peers):
        if not text.startswith("tls:"):
            yield Problem(
                (*path, "peers", number), f"{text}: direct-routing speaks TLS only", 'write "tls:..."'
            )
        elif text.count(":") == 1:
            yield Problem(
                (*path, "peers", number),
                f"{text}: Microsoft's proxies have no SRV records",
                "write port 5061",
            )
    if trunk.party is not PartyType.TEAMS_EXPERT:
        yield Problem((*path, "party"), "behind direct-routing sits a teams_expert", "remove party")
    if not trunk.srtp:
        yield Problem((*path, "srtp"), "direct-routing never carries plain RTP", "remove srtp")
    if trunk.late_offer:
        yield Problem((*path, "late_offer"), "direct-routing has no INVITE without SDP", "remove late_offer")
    if trunk.agent_header:
        yield Problem((*path, "agent_header"), "no agent calls from direct-routing", "remove agent_header")
    for key in ("ivr_time_header", "queue_time_header"):
        if getattr(trunk, key):
            yield Problem((*path, key), "direct-routing has no contact center's menus", f"remove {key}")
    if trunk.number_format != "e164":
        yield Problem((*path, "number_format"), "Teams takes E.164 numbers only", "remove number_format")
    for key in ("advertise", "domain"):
        if getattr(trunk, key) is not None:
            yield Problem(
                (*path, key), f"direct-routing shows the tenant's FQDN (T1), not {key}", f"remove {key}"
            )
    for tenant in trunk.caller:
        if tenant != "*" and tenant not in trunk.tenants:
            yield Problem(
                (*path, "caller", tenant), f"{tenant!r} is no tenant here", closest(tenant, trunk.tenants)
            )


def _tenant(path: KeyPath, tenant: str) -> Iterator[Problem]:
    if is_address(tenant) or "." not in tenant:
        yield Problem(
            path, f"{tenant!r} is not a full domain name", "Teams refuses anything else with 403 (T1)"
        )
    elif len(tenant) > MAX_FQDN:
        yield Problem(path, f"{tenant!r} is longer than {MAX_FQDN} characters", "Teams takes no longer name")
    elif tenant.endswith(".onmicrosoft.com"):
        yield Problem(
            path, f"{tenant!r}: onmicrosoft.com names cannot be paired", "use a verified domain of the tenant"
        )


def _overlaps(config: Config) -> Iterator[Problem]:
    peers: dict[str, str] = {}
    tenants: dict[str, str] = {}
    ranges: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]] = []
    for index, trunk in enumerate(config.trunks):
        owner = tenants if trunk.direct_routing else peers
        key = "tenants" if trunk.direct_routing else "peers"
        for number, value in enumerate(trunk.tenants if trunk.direct_routing else trunk.peers):
            other = owner.setdefault(value.lower(), trunk.name)
            if other != trunk.name or list(getattr(trunk, key)).count(value) > 1:
                yield Problem(
                    ("trunk", index, key, number),
                    f"{value} belongs to trunk {other!r} already",
                    "a call must fit one trunk only",
                )
        if trunk.direct_routing:
            continue
        for number, network in enumerate(trunk.allow_from):
            for known, name in ranges:
                if name != trunk.name and known.version == network.version and known.overlaps(network):
                    yield Problem(
                        ("trunk", index, "allow_from", number),
                        f"{network} overlaps {known} of trunk {name!r}",
                        "a call must fit one trunk only",
                    )
            ranges.append((network, trunk.name))


def _route(config: Config, path: KeyPath, route: Route, earlier: tuple[Route, ...]) -> Iterator[Problem]:
    names = [trunk.name for trunk in config.trunks]
    for key, name in (("from", route.source), ("to", route.to)):
        if name not in names:
            yield Problem(
                (*path, key), f"no trunk is called {name!r}", closest(name, names) or "define a [[trunk]]"
            )
    if any(
        other.source == route.source and other.number.pattern == route.number.pattern for other in earlier
    ):
        yield Problem(
            (*path, "number"), "an earlier route takes these calls already", "remove one of the two"
        )
    if route.rewrite is not None:
        try:
            route.number.sub(route.rewrite, "")
        except (re.error, IndexError) as error:
            yield Problem(
                (*path, "rewrite"), f"bad rewrite {route.rewrite!r}: {error}", "groups are \\1 or \\g<name>"
            )
    for key, tenant, trunk in (
        ("tenant", route.tenant, route.to),
        ("from_tenant", route.from_tenant, route.source),
    ):
        if tenant is not None and trunk in names and tenant.lower() not in config.trunk(trunk).tenants:
            cure = closest(tenant, config.trunk(trunk).tenants)
            yield Problem((*path, key), f"{tenant!r} is no tenant of {trunk!r}", cure)


def _agents(config: Config) -> Iterator[Problem]:
    logins: set[str] = set()
    numbers: dict[str, str] = {}
    for index, agent in enumerate(config.agents):
        if agent.login in logins:
            yield Problem(("agent", index, "login"), f"a second agent has the login {agent.login!r}")
        logins.add(agent.login)
        for position, number in enumerate(agent.numbers):
            other = numbers.setdefault(number, agent.login)
            if other != agent.login:
                yield Problem(
                    ("agent", index, "numbers", position), f"{number} is {other!r}'s number already"
                )


def _tokens(config: Config) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, token in enumerate(config.http.tokens):
        if token.name in seen:
            yield Problem(("http", "tokens", index), f"a second token is called {token.name!r}")
        seen.add(token.name)


def _sign_in(config: Config) -> Iterator[Problem]:
    sign_in = config.sign_in
    if sign_in.entra and config.graph is None:
        yield Problem(("sign_in", "entra"), "sign-in with Entra ID needs [graph]", "tenant and client_id")
    if sign_in.entra and sign_in.public_url is None:
        yield Problem(
            ("sign_in", "entra"),
            "sign-in with Entra ID needs public_url",
            "the address that people type; Entra sends them back to it",
        )
    public = urlsplit(sign_in.public_url or "")
    if sign_in.entra and public.scheme == "http" and public.hostname != "localhost":
        yield Problem(
            ("sign_in", "public_url"),
            "Entra sends people back to https addresses only",
            "put a TLS proxy before [http] and write its https address",
        )
    if sign_in.idle_timeout > sign_in.longest:
        yield Problem(("sign_in", "idle_timeout"), "idle_timeout is above longest", "lower it")
