"""All trunks of the gateway: who is admitted, whose request it is, how they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

from gateway.calls.routing import Directory, RoutingTrunk, agent_numbers, compile_route
from gateway.config_models import Config
from gateway.errors import MessageError, SipError
from gateway.model import TrunkKind
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Endpoint, TransportKind
from gateway.trunks.direct_routing import DirectRoutingTrunk
from gateway.trunks.numbers import NumberPlan
from gateway.trunks.trunk import Recognition, SipTrunk, Surface, Trunk, TrunkStatus
from gateway.trunks.uris import Incoming, host_of


class Trunks:
    """The configured trunks in their order. Holds no socket; `probe.Prober` keeps what it knows fresh."""

    def __init__(self, trunks: Iterable[Trunk]) -> None:
        self._trunks = tuple(trunks)
        self._by_name: Mapping[str, Trunk] = {trunk.name: trunk for trunk in self._trunks}

    @classmethod
    def from_config(cls, config: Config, listeners: Iterable[Endpoint] = (), version: str = "") -> Trunks:
        """`listeners` with their real ports (`TransportLayer.listen`); `version` goes into User-Agent."""
        agent = config.sip.user_agent
        surface = Surface(
            fqdn=config.gateway.fqdn.lower(),
            user_agent=f"{agent}/{version}" if version and "/" not in agent else agent,
            advertise=config.sip.advertise or "",
            listeners=tuple(listeners),
        )
        return cls(
            (DirectRoutingTrunk if settings.direct_routing else SipTrunk)(settings, surface)
            for settings in config.trunks
        )

    def __iter__(self) -> Iterator[Trunk]:
        return iter(self._trunks)

    def __getitem__(self, name: str) -> Trunk:
        return self._by_name[name]

    def bind(self, listeners: Iterable[Endpoint]) -> None:
        """Tell every trunk the sockets that really listen; before the first message."""
        endpoints = tuple(listeners)
        for trunk in self._trunks:
            surface = trunk.surface
            trunk.surface = Surface(surface.fqdn, surface.user_agent, surface.advertise, endpoints)

    def ask_calls(self, takes_part: Callable[[Trunk, str, str], bool]) -> None:
        """`takes_part(trunk, tenant, number)`: see DirectRoutingTrunk.takes_part."""
        for trunk in self._trunks:
            if isinstance(trunk, DirectRoutingTrunk):
                trunk.takes_part = functools.partial(takes_part, trunk)

    def admit(self, flow: Flow) -> bool:
        """For `TransportLayer(admit=...)`: strangers get silence; a connection we opened is no stranger."""
        return flow.outbound or any(trunk.admits(flow) for trunk in self._trunks)

    def admit_address(self, kind: TransportKind, address: str) -> bool:
        """For `TransportLayer(admit_address=...)`: strangers get no TLS handshake either."""
        return any(trunk.admits_from(kind, address) for trunk in self._trunks)

    def recognise(self, request: Incoming, flow: Flow) -> Recognition | SipError | None:
        """Whose request this is; None = silence, a SipError = answer with it.

        1. Only trunks that admit the flow (address and transport) are looked at; none: silence.
        2. If the Request-URI host is the FQDN of an admitting Direct Routing trunk, that trunk alone decides.
        3. Otherwise plain trunks are asked, the surest by `SipTrunk.affinity` first, in the order of the
        file. 4. Only Direct Routing left: it says why not (403, 404).
        """
        admitting = [trunk for trunk in self._trunks if trunk.admits(flow)]
        if not admitting:
            return None
        direct = [trunk for trunk in admitting if isinstance(trunk, DirectRoutingTrunk)]
        if direct:
            try:
                host = host_of(request.uri)
            except MessageError:
                host = ""
            for trunk in direct:
                if host in trunk.tenants:
                    return trunk.recognise(request, flow)
        plain = [trunk for trunk in admitting if isinstance(trunk, SipTrunk)]
        if plain:
            surest = max(plain, key=lambda trunk: trunk.affinity(request, flow))
            return surest.recognise(request, flow)
        return direct[0].recognise(request, flow)

    def status(self, now: float) -> list[TrunkStatus]:
        return [trunk.status(now) for trunk in self._trunks]

    def directory(self, config: Config) -> Directory:
        """What `calls.routing` decides by; ValueError when a route or agent cannot be meant."""
        trunks = {
            trunk.name: RoutingTrunk(trunk.name, trunk.kind, trunk.party, trunk.tenants, trunk.plan)
            for trunk in self._trunks
        }
        own: frozenset[str] = frozenset()
        for trunk in self._trunks:
            own |= trunk.surface.own_hosts
            if trunk.kind is TrunkKind.DIRECT_ROUTING:
                own |= frozenset(trunk.tenants)
        plans = [trunk.plan for trunk in self._trunks if trunk.kind is TrunkKind.SIP]
        plan = next((p for p in plans if p.country_code), NumberPlan())
        return Directory(
            trunks=trunks,
            routes=tuple(
                compile_route(
                    route.source,
                    route.number.pattern,
                    route.to,
                    route.rewrite or "",
                    route.tenant or "",
                    route.from_tenant or "",
                )
                for route in config.routes
            ),
            agents=agent_numbers(((agent.login, agent.numbers) for agent in config.agents), plan),
            own_hosts=own,
        )
