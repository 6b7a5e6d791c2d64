"""Trunks, flows and requests for unit tests, without sockets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.config_trunk import Trunk as TrunkConfig
from gateway.model import TrunkKind
from gateway.sip.message import Request, make_request
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Endpoint, TransportKind
from gateway.trunks.direct_routing import DirectRoutingTrunk
from gateway.trunks.trunk import SipTrunk, Surface

PROXY = "sip.pstnhub.microsoft.com"
FQDN = "sbc.example.com"
PROXY_ADDRESS = "52.114.75.24"
LISTENERS = (
    Endpoint(TransportKind.UDP, "192.0.2.1", 5060),
    Endpoint(TransportKind.TCP, "192.0.2.1", 5060),
    Endpoint(TransportKind.TLS, "192.0.2.1", 5061),
)
SURFACE = Surface(fqdn=FQDN, user_agent="Tandem/1.0", listeners=LISTENERS)


class FakeFlow(Flow):
    """Where a message came from; sends nothing."""

    def __init__(
        self,
        kind: TransportKind | str,
        address: str,
        port: int = 40000,
        names: Iterable[str] = (),
        *,
        outbound: bool = False,
    ) -> None:
        self.kind = TransportKind(kind)
        self.local = ("192.0.2.1", self.kind.default_port)
        self.remote = (address, port)
        self.peer_names = frozenset(names)
        self.outbound = outbound

    @property
    def closed(self) -> bool:
        return False


def microsoft_flow(names: Iterable[str] = (PROXY, "sip2.pstnhub.microsoft.com")) -> FakeFlow:
    """A TLS connection from an address of Microsoft's range that no name resolves to."""
    return FakeFlow("tls", PROXY_ADDRESS, names=names)


def direct_routing(**settings: Any) -> DirectRoutingTrunk:
    values = {"name": "teams", "kind": TrunkKind.DIRECT_ROUTING, "tenants": [FQDN], **settings}
    return DirectRoutingTrunk(TrunkConfig(**values), SURFACE)


def sip_trunk(**settings: Any) -> SipTrunk:
    values = {"name": "cc", "peers": ["udp:192.0.2.10:5060"], **settings}
    return SipTrunk(TrunkConfig(**values), SURFACE)


def invite(
    uri: str = f"sip:+15551230000@{FQDN}:5061;user=phone;transport=tls",
    *,
    method: str = "INVITE",
    from_: str = f"<sip:+4930123456@{PROXY}:5061;user=phone>;tag=1",
    contact: str | None = "<sip:api-du-a.pstnhub.microsoft.com:443;x-i=1>",
    headers: Sequence[tuple[str, str]] = (),
) -> Request:
    return make_request(
        method,
        uri,
        from_=from_,
        to=f"<{uri}>",
        call_id="abc@example.com",
        cseq=1,
        contact=contact,
        headers=headers,
    )
