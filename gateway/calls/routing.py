"""Where a call goes: a pure function from (trunk, called number, routes) to a target or a Termination.

Routes are tried in the order of the file; the first whose `from`, tenant and number match decides. The number
pattern must match the WHOLE called number (a pattern that forgot its anchors must not open a trunk to the
world, T22). `rewrite` may use the pattern's groups (`\\1`, `\\g<name>`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.model import PartyType, ReleasedBy, Result, Termination, TrunkKind
from gateway.trunks.numbers import NumberPlan, to_e164
from gateway.trunks.uris import HeaderSource, addresses, first_address, host_of, number_in

MOST_FORWARDS = 70
MOST_DIVERSIONS = 10
"""History-Info entries (RFC 7044) after which a forwarded call is going in circles."""


@dataclass(frozen=True, slots=True)
class Route:
    """One [[route]]: `number` is matched in full; "" for source_tenant, tenant or rewrite = not set."""

    source: str
    number: re.Pattern[str]
    target: str
    rewrite: str = ""
    tenant: str = ""
    source_tenant: str = ""


@dataclass(frozen=True, slots=True)
class RoutingTrunk:
    """What routing must know of a trunk."""

    name: str
    kind: TrunkKind
    party: PartyType
    tenants: tuple[str, ...] = ()
    plan: NumberPlan = field(default_factory=NumberPlan)


@dataclass(frozen=True, slots=True)
class Directory:
    """Everything routing decides by, made once from the configuration.

    agents: E.164 (or extension) -> login of the agent who is reached there
    own_hosts: names and `address:port` texts under which this gateway itself is known
    """

    trunks: Mapping[str, RoutingTrunk]
    routes: Sequence[Route]
    agents: Mapping[str, str] = field(default_factory=dict)
    own_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Origin:
    """What of an incoming INVITE decides its way.

    trunk, tenant: from `Trunks.recognise` ("" tenant on plain trunks)
    called:        user part of the Request-URI as received
    max_forwards:  None when the header is missing
    contact_hosts: the host, and host:port, of the caller's Contact
    history:       numbers of the History-Info entries in their order, "" where one has no number
    """

    trunk: str
    tenant: str
    called: str
    max_forwards: int | None = None
    contact_hosts: frozenset[str] = frozenset()
    history: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Routed:
    """Call `number` over `trunk`; `tenant` is the FQDN to appear as ("" on a plain trunk)."""

    trunk: str
    number: str
    tenant: str
    max_forwards: int
    route: int


@dataclass(frozen=True, slots=True)
class PartyIdentity:
    """Who sits behind a leg: `login` only for agents that were recognised."""

    party: PartyType
    login: str = ""


def compile_route(
    source: str, number: str, target: str, rewrite: str = "", tenant: str = "", source_tenant: str = ""
) -> Route:
    """A Route from its configured text; ValueError names a bad pattern or a rewrite with unknown groups."""
    try:
        pattern = re.compile(number)
    except re.error as error:
        raise ValueError(f"number pattern {number!r} is no regular expression: {error}") from error
    _check_rewrite(pattern, rewrite)
    return Route(source, pattern, target, rewrite, tenant.lower(), source_tenant.lower())


def _check_rewrite(pattern: re.Pattern[str], rewrite: str) -> None:
    for group in re.findall(r"\\(?:g<(\w+)>|(\d{1,2}))", rewrite):
        name = group[0] or group[1]
        known = int(name) <= pattern.groups if name.isdigit() else name in pattern.groupindex
        if not known:
            raise ValueError(
                f"rewrite {rewrite!r} names group {name}, which {pattern.pattern!r} does not have"
            )
    if re.search(r"\\(?!g<\w+>|\d|\\)", rewrite):
        raise ValueError(f"rewrite {rewrite!r} holds a backslash that names no group")


def origin_of(
    trunk: str, tenant: str, called: str, max_forwards: int | None, headers: HeaderSource
) -> Origin:
    """The Origin of an INVITE; unreadable header values are passed over, they decide nothing."""
    hosts: set[str] = set()
    contact = first_address(headers, "Contact")
    if contact is not None:
        uri = contact.uri
        hosts = {host_of(uri), f"{host_of(uri)}:{uri.port or 5060}"}
    history = tuple(number_in(entry.uri.user or "") for entry in addresses(headers, "History-Info"))
    return Origin(trunk, tenant.lower(), called, max_forwards, frozenset(hosts), history)


def route_call(origin: Origin, directory: Directory) -> Routed | Termination:
    """The target for a call, or how it ends: 404 no route, 482 loop, 483 too many hops."""
    forwards = MOST_FORWARDS if origin.max_forwards is None else min(origin.max_forwards, MOST_FORWARDS)
    if forwards <= 0:
        return _loop(483, "Max-Forwards is used up")
    if origin.contact_hosts & directory.own_hosts:
        return _loop(482, "the call came from this gateway itself")
    if len(origin.history) > MOST_DIVERSIONS:
        return _loop(482, f"forwarded {len(origin.history)} times")
    source = directory.trunks.get(origin.trunk)
    plan = source.plan if source is not None else NumberPlan()
    called = to_e164(origin.called, plan)
    for index, route in enumerate(directory.routes):
        if route.source != origin.trunk or route.source_tenant not in ("", origin.tenant):
            continue
        match = route.number.fullmatch(called)
        if match is None:
            continue
        number = match.expand(route.rewrite) if route.rewrite else called
        # once as the call's own target is normal; twice means it has sent this call on before
        if origin.history.count(called) > 1:
            return _loop(482, "the number has forwarded this call before")
        tenant = _tenant(directory.trunks.get(route.target), route, origin)
        return Routed(route.target, number, tenant, forwards - 1, index)
    return Termination(Result.NOT_FOUND, "no_route", 404, 3, ReleasedBy.SYSTEM)


def _tenant(target: RoutingTrunk | None, route: Route, origin: Origin) -> str:
    """The route's choice; else the tenant the call came from where the target has it too; else the first."""
    if target is None or not target.tenants:
        return ""
    for wish in (route.tenant, origin.tenant):
        if wish and wish in target.tenants:
            return wish
    return target.tenants[0]


def _loop(code: int, text: str) -> Termination:
    return Termination(Result.FAILED, "loop", code, 25, ReleasedBy.SYSTEM, text)


def agent_numbers(agents: Iterable[tuple[str, Collection[str]]], plan: NumberPlan) -> dict[str, str]:
    """number -> login from (login, numbers) pairs; ValueError when two agents claim one number."""
    found: dict[str, str] = {}
    for login, numbers in agents:
        for number in numbers:
            key = to_e164(number, plan)
            if found.setdefault(key, login) != login:
                raise ValueError(f"number {number} belongs to both {found[key]} and {login}")
    return found


def identify(trunk: str, number: str, directory: Directory) -> PartyIdentity:
    """Who is reached, or calls, by `number` over `trunk`.

    Behind Direct Routing sits a Teams expert, whatever the number; on other trunks a number of an [[agent]]
    is that agent, and everybody else is what the trunk's `party` says.
    """
    known = directory.trunks.get(trunk)
    if known is None:
        return PartyIdentity(PartyType.EXTERNAL)
    if known.kind is TrunkKind.DIRECT_ROUTING:
        return PartyIdentity(PartyType.TEAMS_EXPERT)
    login = directory.agents.get(to_e164(number, known.plan), "")
    return PartyIdentity(PartyType.AGENT if login else known.party, login)
