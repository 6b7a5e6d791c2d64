"""Our own side: what we listen on, and what of it a message to a given peer is sent from."""

from __future__ import annotations

import ipaddress

from gateway.errors import TransportError
from gateway.sip.transport_flow import DatagramFlow, Flow
from gateway.sip.transport_listen import StreamListener, UdpListener, source_address
from gateway.sip.transport_types import Target, bracketed, is_ip

_WILDCARDS = ("0.0.0.0", "::")


class LocalSide:
    """The open listeners."""

    def __init__(self) -> None:
        self.udp: list[UdpListener] = []
        self.streams: list[StreamListener] = []

    async def stop_accepting(self) -> None:
        for listener in self.streams:
            await listener.close()
        self.streams.clear()

    async def close_udp(self) -> None:
        for udp in self.udp:
            await udp.close()
        self.udp.clear()

    def sent_by(self, flow: Flow, via_host: str | None) -> str:
        """See TransportLayer.sent_by."""
        if via_host is not None and ":" in via_host and not is_ip(via_host):
            return via_host
        host = via_host or flow.local[0]
        if host in _WILDCARDS:
            host = source_address(flow.remote)
        return f"{bracketed(host)}:{self._listening_port(flow)}"

    def _listening_port(self, flow: Flow) -> int:
        if isinstance(flow, DatagramFlow):
            return flow.local[1]
        ports = {
            listener.endpoint.host: listener.endpoint.port
            for listener in reversed(self.streams)
            if listener.endpoint.kind is flow.kind
        }
        if not ports:
            return flow.local[1]
        return ports.get(flow.local[0]) or next(reversed(ports.values()))

    def udp_for(self, target: Target) -> UdpListener:
        six = ":" in target.address
        usable = [udp for udp in self.udp if (":" in udp.endpoint.host) is six]
        if not usable:
            raise TransportError(f"no way to {target}: no UDP socket of its address family")
        if len(usable) > 1:
            source = source_address((target.address, target.port))
            for wanted in (source, *_WILDCARDS):
                for udp in usable:
                    if udp.endpoint.host == wanted:
                        return udp
        return usable[0]

    def address_for(self, target: Target) -> tuple[str, int] | None:
        """Dial out from the address we listen on, when that is one address and can reach the target."""
        six = ":" in target.address
        for listener in self.streams:
            host = listener.endpoint.host
            if listener.endpoint.kind is target.kind and (":" in host) is six and host not in _WILDCARDS:
                if ipaddress.ip_address(host).is_loopback != ipaddress.ip_address(target.address).is_loopback:
                    continue
                return host, 0
        return None
