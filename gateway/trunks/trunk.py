"""A trunk: one configured peer relation. What both kinds share, and the plain SIP trunk."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.config_trunk import Trunk as TrunkConfig
from gateway.errors import SipError
from gateway.model import PartyType, TrunkKind
from gateway.sip.profile import DEFAULT_ALLOW, DEFAULT_SUPPORTED, Credentials, Profile
from gateway.sip.sdp import Codec
from gateway.sip.sdp_policy import MediaPolicy
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Endpoint, Target, TransportKind, is_ip
from gateway.trunks.admission import Admission, IpAddress, canonical
from gateway.trunks.health import PeerHealth, PeerStatus
from gateway.trunks.hunting import SILENCE, Hunt, HuntRule, order_of
from gateway.trunks.identity import Caller, OutgoingInvite, caller_of, from_header, identity_headers
from gateway.trunks.numbers import NumberFormat, NumberPlan, to_e164, write_number
from gateway.trunks.relay import relayed_headers
from gateway.trunks.uris import HeaderSource, Incoming, first_address, host_of, sip_uri

log = logging.getLogger("tandem.trunks")

_WILDCARDS = ("", "0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Surface:
    """What all trunks know about this gateway.

    fqdn: [gateway] fqdn; advertise: [sip] advertise, "" = the listener's own address
    listeners: our sockets with their real ports, as `TransportLayer.listen` returned them
    """

    fqdn: str
    user_agent: str
    advertise: str = ""
    listeners: tuple[Endpoint, ...] = ()

    def listener(self, kind: TransportKind, *, local: str = "", ipv6: bool = False) -> Endpoint | None:
        """The one at our address `local`, else the first of that address family, else the first at all."""
        found = [endpoint for endpoint in self.listeners if endpoint.kind is kind]
        here = [endpoint for endpoint in found if endpoint.host == local]
        alike = [endpoint for endpoint in found if (":" in endpoint.host) is ipv6]
        return next(iter((*here, *alike, *found)), None)

    @property
    def own_hosts(self) -> frozenset[str]:
        """`address:port` of every listener: a Contact that names one is a call of ours that came back."""
        return frozenset(f"{e.host}:{e.port}" for e in self.listeners if e.host not in _WILDCARDS)


@dataclass(frozen=True, slots=True)
class Recognition:
    """Whose request it is: `tenant` is the FQDN it was sent to, "" on a plain trunk."""

    trunk: Trunk
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class TrunkStatus:
    """A trunk as `/metrics`, the API and `tandem trunks` show it.

    usable:  at least one peer may be up
    heard:   when a peer last sent OPTIONS to us; None = never
    alarms:  what keeps it from working, each with its cure, for people
    refused: requests turned away since the start, by cause (certificate, tenant, caller)
    """

    name: str
    kind: TrunkKind
    tenants: tuple[str, ...]
    usable: bool
    peers: tuple[PeerStatus, ...]
    heard: datetime | None = None
    alarms: tuple[str, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)


class Trunk(ABC):
    """Common to all kinds; `settings` is the [[trunk]] table, `routed_as` the name that routes know it by."""

    kind: TrunkKind
    hunt_rule: HuntRule

    def __init__(self, settings: TrunkConfig, surface: Surface) -> None:
        self.settings = settings
        self.surface = surface
        self.name = settings.name
        self.routed_as = settings.name
        self.peers: Mapping[str, Endpoint] = {text: Endpoint.parse(text) for text in settings.peers}
        self.plan = NumberPlan(
            settings.country_code,
            settings.national_prefix,
            settings.international_prefix,
            settings.national_length,
        )
        self.health = {
            peer: PeerHealth(settings.name, peer, settings.options_misses) for peer in settings.peers
        }
        self.found: dict[str, tuple[Target, ...]] = {}
        """Where each peer's name led to last."""
        self.admission = Admission((peer.host for peer in self.peers.values()), settings.allow_from)
        self.credentials = (
            Credentials(settings.username, settings.password.get_secret_value(), settings.realm or "")
            if settings.username and settings.password
            else None
        )
        self.alarms: dict[str, str] = {}
        self.refused: Counter[str] = Counter()
        self.heard: datetime | None = None
        self.heard_at: float | None = None
        self.answered_since: float | None = None
        self._kinds = frozenset(peer.kind for peer in self.peers.values())

    @property
    def party(self) -> PartyType:
        return self.settings.party

    @property
    def tenants(self) -> tuple[str, ...]:
        return ()

    @property
    def probed_tenants(self) -> tuple[str, ...]:
        """The names under which we send OPTIONS."""
        return ("",)

    @property
    def expects_options(self) -> bool:
        """Whether the peer should ping us, so that its silence means trouble."""
        return False

    def cure_for_403(self, tenant: str) -> str:
        """What the administrator can do when a peer answers OPTIONS with 403."""
        return "the peer does not accept this gateway: check its list of addresses, or username and password"

    @property
    @abstractmethod
    def media(self) -> MediaPolicy:
        """How this trunk's media has to look."""

    def kinds(self) -> frozenset[TransportKind]:
        """Transports the peers may use toward us."""
        return self._kinds

    def admits(self, flow: Flow) -> bool:
        """Whether this flow may be one of the trunk's peers, judged by address and transport alone."""
        return self.admits_from(flow.kind, flow.remote[0])

    def admits_from(self, kind: TransportKind, address: str) -> bool:
        """As `admits`, of a connection that is not made yet."""
        return kind in self.kinds() and self.admission.admits(address)

    @abstractmethod
    def recognise(self, request: Incoming, flow: Flow) -> Recognition | SipError:
        """The request of an admitted flow: its tenant, or the SipError to answer with."""

    @abstractmethod
    def profile(self, tenant: str = "", local: tuple[str, int] | None = None) -> Profile:
        """How we look to this trunk's peers.

        tenant: the FQDN to appear as, "" = the default one; local: our end of the flow, where it is known
        """

    @abstractmethod
    def outgoing(
        self,
        number: str,
        caller: Caller,
        *,
        peer: str,
        tenant: str = "",
        local: tuple[str, int] | None = None,
    ) -> OutgoingInvite:
        """The identity part of an INVITE for `number` to `peer` (a key of `peers`)."""

    def caller(self, headers: HeaderSource) -> Caller:
        """Who calls, of an INVITE that came over this trunk."""
        return caller_of(headers, self.plan)

    def e164(self, number: str) -> str:
        """A number as this trunk's peers dial it, as E.164 where the plan allows."""
        return to_e164(number, self.plan)

    def relayed(self, headers: HeaderSource, source: Trunk, tenant: str = "") -> tuple[tuple[str, str], ...]:
        """Headers of an INVITE from `source` that go on over this trunk (table in `relay`)."""
        host = self.profile(tenant).from_host
        return relayed_headers(headers, self.kind, host=host, plan=source.plan)

    def hunt(self, now: float) -> Hunt[Target]:
        """A fresh hunt over the peers, the healthy ones first. `now` in monotonic seconds."""
        for health in self.health.values():
            health.settle(now)
        return Hunt(
            order_of((peer, health.state) for peer, health in self.health.items()),
            rule=self.hunt_rule,
            started=now,
            limit=self.settings.ring_timeout,
            silence=min(SILENCE, self.settings.answer_timeout),
            patience=self.settings.answer_timeout,
        )

    def status(self, now: float) -> TrunkStatus:
        """A picture of this moment; usable while one peer may be up."""
        peers = tuple(health.status(now) for health in self.health.values())
        return TrunkStatus(
            self.name,
            self.kind,
            self.tenants,
            any(peer.state in ("up", "unknown") for peer in peers),
            peers,
            self.heard,
            tuple(dict.fromkeys(self.alarms.values())),
            dict(self.refused),
        )

    def _number(self, number: str) -> str:
        return write_number(to_e164(number, self.plan), NumberFormat(self.settings.number_format), self.plan)

    def _codecs(self) -> tuple[Codec, ...]:
        return tuple(Codec(name) for name in self.settings.codecs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class SipTrunk(Trunk):
    """A plain SIP peer: PBX, contact center, carrier. RFC 3261 identity, no demands of its own."""

    kind = TrunkKind.SIP
    hunt_rule = HuntRule.SIP

    def kinds(self) -> frozenset[TransportKind]:
        """The transports of `peers`; TCP beside UDP where large requests may switch to it."""
        if self.settings.tcp_switch and TransportKind.UDP in self._kinds:
            return self._kinds | {TransportKind.TCP}
        return self._kinds

    @property
    def media(self) -> MediaPolicy:
        return MediaPolicy(
            srtp=self.settings.srtp, codecs=self._codecs(), learn_source=self.settings.nat, ipv6=self._ipv6()
        )

    def recognise(self, request: Incoming, flow: Flow) -> Recognition | SipError:
        if (
            self.settings.tls_names
            and flow.kind is TransportKind.TLS
            and not proven(self.settings.tls_names, flow)
        ):
            self.refused["certificate"] += 1
            return SipError(403, "Certificate names no configured peer")
        return Recognition(self)

    def profile(self, tenant: str = "", local: tuple[str, int] | None = None) -> Profile:
        kind = self._kind()
        host, port = self._reached_at(kind, local)
        return Profile(
            contact_host=host,
            contact_port=port,
            contact_params="" if kind is TransportKind.UDP else f";transport={kind}",
            via_host=self.settings.advertise or self.surface.advertise or None,
            from_host=self.settings.domain or host,
            allow=DEFAULT_ALLOW,
            supported=DEFAULT_SUPPORTED,
            user_agent=self.surface.user_agent,
            session_expires=self.settings.session_expires,
            min_se=self.settings.min_se,
            reliable_provisional=self.settings.reliable_provisional,
            credentials=self.credentials,
            tcp_switch=self.settings.tcp_switch,
            late_offer=self.settings.late_offer,
            follow_contact=not self.settings.nat,
        )

    def outgoing(
        self,
        number: str,
        caller: Caller,
        *,
        peer: str,
        tenant: str = "",
        local: tuple[str, int] | None = None,
    ) -> OutgoingInvite:
        """RFC 3261 identity; a withheld number reaches only a peer with `trust_identity` (RFC 3325)."""
        endpoint = self.peers[peer]
        host = self.profile(tenant, local).from_host
        remote = self.settings.domain or endpoint.host
        port = None if self.settings.domain or endpoint.port == endpoint.kind.default_port else endpoint.port
        called = self._number(number)
        params = ("user=phone",) if called.startswith("+") else ()
        transport = () if endpoint.kind is TransportKind.UDP else (f"transport={endpoint.kind}",)
        shown = self._number(caller.number)
        asserted = self._number(caller.asserted or caller.number)
        headers: tuple[tuple[str, str], ...]
        if caller.withheld and not self.settings.trust_identity:
            headers = (("Privacy", "id"),)
        elif caller.withheld or caller.asserted:
            headers = identity_headers(caller, asserted, host)
        else:
            headers = ()
        return OutgoingInvite(
            request_uri=sip_uri(called, remote, port, (*params, *transport)),
            from_=from_header(caller, shown, host),
            to=f"<{sip_uri(called, remote, port, params)}>",
            contact_user="" if caller.withheld else shown,
            headers=headers,
        )

    def affinity(self, request: Incoming, flow: Flow) -> int:
        """How surely a request is this trunk's and not that of another one behind the same address.

        4 its From host is the trunk's `domain`; 3 it came from a peer's very address and port (of a stream:
        its Contact or Via names the port); 2 its From or Contact host is a peer's name; 1 by address alone.
        Between equals the order in the file decides.
        """
        from_host, contact_host, contact_port = "", "", 0
        from_address, contact = (
            first_address(request.headers, "From"),
            first_address(request.headers, "Contact"),
        )
        if from_address is not None:
            from_host = host_of(from_address.uri)
        if contact is not None:
            contact_host = host_of(contact.uri)
            contact_port = contact.uri.port or TransportKind(flow.kind).default_port
        if self.settings.domain and from_host == self.settings.domain.lower():
            return 4
        source = canonical(flow.remote[0])
        for name, peer in self.peers.items():
            here = canonical(peer.host) == source or self.admission.resolved.get(str(source)) == peer.host
            ports = {peer.port} if not peer.by_service else self._ports_at(name, source)
            if here and ports & {flow.remote[1], contact_port}:
                return 3
        names = {peer.host.lower() for peer in self.peers.values()}
        if (from_host in names or contact_host in names) and not all(is_ip(name) for name in names):
            return 2
        return 1

    def _ports_at(self, peer: str, source: IpAddress | None) -> set[int]:
        return {t.port for t in self.found.get(peer, ()) if canonical(t.address) == source}

    def _kind(self) -> TransportKind:
        return next(iter(self.peers.values())).kind

    def _ipv6(self) -> bool:
        return all(":" in peer.host for peer in self.peers.values())

    def _reached_at(self, kind: TransportKind, local: tuple[str, int] | None) -> tuple[str, int | None]:
        """Contact host and port: configured name, else the listener's address, else our end of the flow."""
        listener = self.surface.listener(kind, local=local[0] if local else "", ipv6=self._ipv6())
        host = self.settings.advertise or self.surface.advertise
        if not host and listener is not None and listener.host not in _WILDCARDS:
            host = listener.host
        if not host and local is not None and local[0] not in _WILDCARDS:
            host = local[0]
        port = self.settings.advertise_port or (listener.port if listener is not None else None)
        return host or self.surface.fqdn, None if port == kind.default_port else port


def name_covers(certified: str, wanted: str) -> bool:
    """Whether a dNSName covers `wanted`: equal, or a wildcard for exactly one label (RFC 6125)."""
    certified, wanted = certified.lower().rstrip("."), wanted.lower().rstrip(".")
    if certified.startswith("*."):
        label, dot, parent = wanted.partition(".")
        return bool(label and dot) and parent == certified[2:]
    return certified == wanted


def proven(names: Sequence[str], flow: Flow) -> bool:
    """Whether the verified certificate behind `flow` covers one of `names`; all its names count (T22)."""
    return any(name_covers(have, want) for have in flow.peer_names for want in names)
