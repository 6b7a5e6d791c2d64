"""Microsoft Teams Direct Routing: what facts/direct-routing.md demands of identity, admission and hunting."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from gateway.errors import MessageError, SipError
from gateway.model import PartyType, TrunkKind
from gateway.sip.profile import Profile
from gateway.sip.sdp_policy import MediaPolicy, direct_routing_policy
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import TransportKind
from gateway.trunks.hunting import HuntRule
from gateway.trunks.identity import Caller, OutgoingInvite, from_header, identity_headers
from gateway.trunks.relay import ADDRESS
from gateway.trunks.trunk import Recognition, Trunk, proven
from gateway.trunks.uris import Incoming, first_address, host_of, sip_uri

log = logging.getLogger("tandem.trunks")

SIGNALLING_PORT = 5061
_ALLOW = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "NOTIFY", "INFO", "UPDATE")


class DirectRoutingTrunk(Trunk):
    """The proxies sip, sip2, sip3 of one Microsoft cloud, on behalf of one or more tenants.

    Every FQDN in `tenants` is one paired trunk: it stands in Contact, From and Via (T1, T26), and calls
    from Teams are told apart by it in the Request-URI.
    """

    kind = TrunkKind.DIRECT_ROUTING
    hunt_rule = HuntRule.DIRECT_ROUTING
    takes_part: Callable[[str, str], bool] | None = None
    """Whether (tenant, E.164 number) is somebody in a running call with that tenant; None: nobody is."""

    @property
    def party(self) -> PartyType:
        return PartyType.TEAMS_EXPERT

    @property
    def tenants(self) -> tuple[str, ...]:
        return self.settings.tenants or (self.surface.fqdn.lower(),)

    @property
    def probed_tenants(self) -> tuple[str, ...]:
        """Every FQDN that is a trunk of its own; one below another of the list is a derived trunk, whose
        health
        follows the carrier trunk and which sends no OPTIONS (facts 1.6)."""
        names = self.tenants
        return tuple(n for n in names if not any(n.endswith("." + base) for base in names)) or names[:1]

    @property
    def expects_options(self) -> bool:
        return True

    def cure_for_403(self, tenant: str) -> str:
        """T1 and facts 1.4, 1.6, 2."""
        return (
            f"Teams does not know {tenant}: pair it (New-CsOnlinePSTNGateway -Fqdn {tenant}), have its "
            "domain verified and used by one licensed user (up to 24 h), and let the certificate name it"
        )

    @property
    def media(self) -> MediaPolicy:
        return direct_routing_policy(self._codecs())

    def kinds(self) -> frozenset[TransportKind]:
        return frozenset({TransportKind.TLS})

    def recognise(self, request: Incoming, flow: Flow) -> Recognition | SipError:
        """T22: Microsoft's certificate, our FQDN in the Request-URI, a caller this tenant may present."""
        if self.settings.tls_names and not proven(self.settings.tls_names, flow):
            self._refuse(403, "certificate", flow, f"names={','.join(sorted(flow.peer_names)) or '-'}")
            return SipError(403, "Peer certificate names no Microsoft SIP proxy")
        try:
            host = host_of(request.uri)
        except MessageError as error:
            return error
        if host not in self.tenants:
            self._refuse(404, "tenant", flow, f"host={host}")
            return SipError(404, "Request-URI names no trunk of this gateway")
        if request.method == "INVITE" and not self.may_call(host, request):
            self._refuse(403, "caller", flow, f"tenant={host}")
            return SipError(403, "Caller is not allowed on this trunk")
        return Recognition(self, host)

    def may_call(self, tenant: str, request: Incoming) -> bool:
        """Whether the tenant may present this caller (`caller` patterns); everybody where none is configured.

        A transferred or forwarded call carries the foreign caller's number (facts 6.3, 8). For it vouches the
        proxy, whose certificate was verified, with Referred-By or History-Info; where ForwardCallHistory is
        off and it says neither, the call that is transferred or forwarded: the foreign number is in it. An
        INVITE with Replaces never makes a new call: the dialog it must name (else 481) vouches for it.
        """
        if not self.settings.caller or request.headers.get("Replaces") is not None:
            return True
        caller = self.caller(request.headers)
        numbers = [number for number in (caller.number, caller.asserted) if number]
        if any(self.settings.may_present(tenant, number) for number in numbers):
            return True
        if self.takes_part is not None and any(self.takes_part(tenant, number) for number in numbers):
            return True
        return any(first_address(request.headers, name) for name in ("Referred-By", "History-Info"))

    def profile(self, tenant: str = "", local: tuple[str, int] | None = None) -> Profile:
        """FQDN everywhere, no address (T1); REFER and NOTIFY in Allow (T6); replaces advertised (T28)."""
        host = tenant or self.tenants[0]
        allow = (*_ALLOW, *(("REFER",) if self.settings.refer else ()))
        if self.settings.reliable_provisional != "never":
            allow = (*allow, "PRACK")
        return Profile(
            contact_host=host,
            contact_port=self._port(),
            contact_params=";transport=tls",
            via_host=host,
            from_host=host,
            allow=allow,
            supported=("replaces", "timer"),
            user_agent=self.surface.user_agent,
            session_expires=self.settings.session_expires,
            min_se=self.settings.min_se,
            refresh_method="invite",
            reliable_provisional=self.settings.reliable_provisional,
            strict_allow=True,
            credentials=None,
            tcp_switch=False,
            late_offer=self.settings.late_offer,
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
        """Facts 3.1. The Request-URI names the proxy being dialled; P-Asserted-Identity and Privacy only
        for a
        caller who withheld the number, whose From then is anonymous at our FQDN."""
        endpoint = self.peers[peer]
        host = tenant or self.tenants[0]
        called = self._number(number)
        shown = self._number(caller.number)
        phone = ("user=phone",)
        if ADDRESS.search(caller.display):
            caller = replace(caller, display="")
        headers: tuple[tuple[str, str], ...] = ()
        if caller.withheld:
            headers = identity_headers(caller, shown, host, phone)
        if not called.startswith("+"):
            log.warning(
                "number is not E.164 trunk=%s number=%s cure=%r",
                self.name,
                called,
                "set country_code on the calling trunk, rewrite in [[route]], or a translation rule in Teams",
            )
        return OutgoingInvite(
            request_uri=sip_uri(called, endpoint.host, endpoint.port, (*phone, "transport=tls")),
            from_=from_header(caller, shown, host, phone),
            to=f"<{sip_uri(called, endpoint.host, params=phone)}>",
            contact_user="" if caller.withheld else shown,
            headers=headers,
        )

    def _port(self) -> int:
        """Always written out: Teams dials Contact host:port (facts 1.1, SipSignalingPort)."""
        listener = self.surface.listener(TransportKind.TLS)
        return self.settings.advertise_port or (listener.port if listener else SIGNALLING_PORT)

    def _refuse(self, code: int, cause: str, flow: Flow, detail: str) -> None:
        self.refused[cause] += 1
        log.warning(
            "request refused trunk=%s cause=%s code=%d peer=%s %s",
            self.name,
            cause,
            code,
            flow.remote[0],
            detail,
        )
