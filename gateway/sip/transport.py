"""The transport layer (RFC 3261 18): sockets, connections, and the way from bytes to messages and back.

Nothing a peer sends raises out of here. Strangers, those `admit` turns away, get no byte of an answer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence

from gateway.clock import Clock, TimerHandle
from gateway.errors import MessageError, TransportError
from gateway.sip.framing import FramingError
from gateway.sip.message import (
    PHRASES,
    Message,
    ParseError,
    Request,
    make_response,
    parse_message,
    stateless_tag,
    to_bytes,
)
from gateway.sip.tls import TlsContexts, TlsSettings, refusal
from gateway.sip.transport_connect import OutboundPool
from gateway.sip.transport_flow import DatagramFlow, Flow
from gateway.sip.transport_listen import (
    StreamListener,
    UdpListener,
    bind,
    keep_alive,
    real_endpoint,
)
from gateway.sip.transport_local import LocalSide
from gateway.sip.transport_strangers import Strangers
from gateway.sip.transport_stream import ABORT_AFTER, StreamFlow
from gateway.sip.transport_types import (
    Endpoint,
    Target,
    TransportKind,
    TransportLimits,
)
from gateway.sip.transport_via import datagram_port, reconnect_target, stamp_via

__all__ = [
    "DatagramFlow",
    "Endpoint",
    "Flow",
    "StreamFlow",
    "Target",
    "TlsSettings",
    "TransportKind",
    "TransportLayer",
    "TransportLimits",
]

log = logging.getLogger("tandem.sip.transport")


class TransportLayer:
    """All sockets of one gateway.

    `admit(flow)` is asked before anything is parsed or answered: once for each accepted connection (TLS:
    after the handshake, so that `flow.peer_names` is there), once for each datagram. `admit_address(kind,
    address)`, if given, is asked before a handshake is even begun. `on_malformed` only counts and logs:
    the stateless 400 (or what the RFC says) goes out by itself.

    `counters` for the metrics: strangers, malformed, received, sent_stateless, connections_refused, stalled,
    idle_closed, unanswered, unread, garbage, tls_reloads, internal_errors, tls_refused_<why> (they dialled
    us) and tls_out_<why> (we dialled them); <why> is a word of `gateway.sip.tls.refusal`.
    """

    def __init__(
        self,
        *,
        on_message: Callable[[Message, Flow], None],
        on_malformed: Callable[[MessageError, Flow], None],
        admit: Callable[[Flow], bool],
        clock: Clock,
        tls: TlsSettings | None = None,
        limits: TransportLimits | None = None,
        admit_address: Callable[[TransportKind, str], bool] | None = None,
    ) -> None:
        self.clock = clock
        self.limits = limits or TransportLimits()
        self.counters: Counter[str] = Counter()
        self.on_closed: Callable[[Flow], None] | None = None
        self.tls = TlsContexts(tls) if tls is not None else None
        self._on_message = on_message
        self._on_malformed = on_malformed
        self._admit = admit
        self._admit_address = admit_address
        self._local = LocalSide()
        self._streams: set[StreamFlow] = set()
        self._inbound: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers = Strangers(clock)
        self._reload_timer: TimerHandle | None = None
        self._pool = OutboundPool(
            lambda kind: self._make_flow(kind, outbound=True),
            self._local.address_for,
            self.tls,
            self.limits,
            self.counters,
        )
        if self.tls is not None:
            self._reload_later()

    @property
    def connections(self) -> int:
        """Streams that are open, in both directions."""
        return len(self._streams)

    # -- listening

    async def listen(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Open every endpoint or none (TransportError); port 0 is allowed, the real ones come back in
        order.
        """
        opened: list[tuple[Endpoint, socket.socket]] = []
        try:
            for endpoint in endpoints:
                if endpoint.kind is TransportKind.TLS and (self.tls is None or self.tls.server is None):
                    raise TransportError(f"cannot listen on {endpoint}: no certificate is configured")
                sock = bind(endpoint)
                opened.append((real_endpoint(endpoint, sock), sock))
        except TransportError:
            for _, sock in opened:
                sock.close()
            raise
        for endpoint, sock in opened:
            if endpoint.kind is TransportKind.UDP:
                udp = UdpListener(endpoint, sock, self._datagram)
                await asyncio.get_running_loop().create_datagram_endpoint(lambda udp=udp: udp, sock=sock)  # type: ignore[misc]
                self._local.udp.append(udp)
            else:
                self._local.streams.append(StreamListener(endpoint, sock, self._serve))
            log.info("event=listening local=%s", endpoint)
        return [endpoint for endpoint, _ in opened]

    async def _serve(self, sock: socket.socket, kind: TransportKind, remote: tuple[str, int]) -> None:
        """Take one accepted connection; for TLS through its handshake."""
        if self._admit_address is not None and not self._admit_address(kind, remote[0]):
            sock.close()
            self._stranger(remote[0], kind)
            return
        if self._crowded(remote[0]):
            sock.close()
            self.counters["connections_refused"] += 1
            log.warning("event=too-many-connections peer=%s:%s", *remote)
            return
        context = self.tls.server if kind is TransportKind.TLS and self.tls is not None else None
        self._inbound[remote[0]] += 1
        flow: StreamFlow | None = None
        try:
            keep_alive(sock)
            _, flow = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_flow(kind, outbound=False),
                sock,
                ssl=context,
                ssl_handshake_timeout=None if context is None else self.limits.connect_timeout,
                ssl_shutdown_timeout=None if context is None else 1.0,
            )
        except OSError as error:
            why = refusal(error)
            self.counters[f"tls_refused_{why}"] += 1
            self._strangers.refused(remote, why, str(error)[:200])
        finally:
            if flow is None:
                sock.close()
                self._left(remote[0])
            else:
                flow.lost.add_done_callback(lambda _: self._left(remote[0]))

    def _crowded(self, address: str) -> bool:
        limits = self.limits
        too_many = self._inbound.total() >= limits.max_connections
        return too_many or self._inbound[address] >= limits.max_connections_per_address

    def _left(self, address: str) -> None:
        self._inbound[address] -= 1
        if self._inbound[address] <= 0:
            del self._inbound[address]

    def _make_flow(self, kind: TransportKind, *, outbound: bool) -> StreamFlow:
        return StreamFlow(
            self, kind, outbound=outbound, generation=0 if self.tls is None else self.tls.generation
        )

    # -- receiving

    def _datagram(self, data: bytes, flow: DatagramFlow) -> None:
        if not data.strip(b"\r\n\0 "):
            return  # a keep-alive
        if self._admitted(flow):
            self._receive(data, flow)

    def stream_opened(self, flow: StreamFlow) -> None:
        """StreamOwner."""
        self._streams.add(flow)
        if not flow.outbound and not self._admitted(flow):
            flow.abort()

    def stream_closed(self, flow: StreamFlow) -> None:
        """StreamOwner."""
        self._streams.discard(flow)
        self._pool.forget(flow)
        if self.on_closed is not None:
            try:
                self.on_closed(flow)
            except Exception:
                self.counters["internal_errors"] += 1
                log.exception("event=closed-handler-failed peer=%s", flow)

    def stream_message(self, data: bytes, flow: StreamFlow) -> None:
        """StreamOwner."""
        self._receive(data, flow)

    def stream_broken(self, error: FramingError, flow: StreamFlow) -> None:
        """StreamOwner: answer what can be answered; the connection is closed by its flow."""
        self.counters["garbage"] += 1
        log.warning("event=stream-broken peer=%s reason=%r", flow, error.text)
        if not error.head:
            return
        try:
            request = parse_message(error.head)
        except ParseError as fault:
            # Headers without their body end up here: the request is in the error.
            self._malformed(ParseError(error.code, error.text, fault.request), flow)
            return
        if isinstance(request, Request) and request.method != "ACK":
            self._malformed(ParseError(error.code, error.text, request), flow)

    def _admitted(self, flow: Flow) -> bool:
        try:
            admitted = self._admit(flow)
        except Exception:
            self.counters["internal_errors"] += 1
            log.exception("event=admit-failed peer=%s", flow)
            return False
        if not admitted:
            self._stranger(flow.remote[0], flow.kind)
        return admitted

    def _stranger(self, address: str, kind: TransportKind) -> None:
        self.counters["strangers"] += 1
        self._strangers.note(address, kind)

    def _receive(self, data: bytes, flow: Flow) -> None:
        self.counters["received"] += 1
        try:
            try:
                message = parse_message(data)
            except ParseError as error:
                self._malformed(error, flow)
                return
            if isinstance(message, Request):
                stamp_via(message, flow)
            self._on_message(message, flow)
        except Exception:
            self.counters["internal_errors"] += 1
            log.exception("event=receive-failed peer=%s bytes=%s", flow, len(data))

    def _malformed(self, error: ParseError, flow: Flow) -> None:
        self.counters["malformed"] += 1
        log.info("event=malformed peer=%s code=%s reason=%r", flow, error.code, error.text)
        try:
            self._on_malformed(error, flow)
        except Exception:
            self.counters["internal_errors"] += 1
            log.exception("event=malformed-handler-failed peer=%s", flow)
        request = error.request
        if request is None:
            return
        stamp_via(request, flow)
        phrase = PHRASES.get(error.code, "Bad Request")
        if error.code == 400:
            phrase = f"{phrase} ({error.text})"
        response = make_response(request, error.code, phrase, to_tag=stateless_tag(request))
        self.counters["sent_stateless"] += 1
        self.send_response(to_bytes(response), request, flow, lambda _: None)

    # -- sending

    def flow_now(self, target: Target) -> Flow | None:
        """A flow to `target` usable without waiting: UDP always, a stream when it is connected.
        TransportError.
        """
        if target.kind is not TransportKind.UDP:
            return self._pool.ready(target)
        return self._local.udp_for(target).flow_to((target.address, target.port))

    async def flow(self, target: Target) -> Flow:
        """Reuse or connect (5 s); TransportError names the cause. UDP never waits."""
        flow = self.flow_now(target)
        return flow if flow is not None else await self._pool.connect(target)

    def flow_for_response(self, request: Request, flow: Flow) -> Flow | Target:
        """RFC 3261 18.2.2, RFC 3581 4: the connection while it lives, else a new one; by UDP to
        received:rport.
        """
        if isinstance(flow, DatagramFlow):
            return flow.to_port(datagram_port(request, flow))
        return reconnect_target(request, flow) if flow.closed else flow

    def send_response(
        self, data: bytes, request: Request, flow: Flow, failed: Callable[[TransportError], None]
    ) -> None:
        """Send at once where possible; a new connection is made in a task. `failed` is called at most
        once.
        """
        way = self.flow_for_response(request, flow)
        if isinstance(way, Target):
            self._spawn(self._send_later(data, way, failed))
            return
        try:
            way.send(data)
        except TransportError as error:
            if not way.reliable or not way.closed:
                failed(error)
                return
            self._spawn(self._send_later(data, reconnect_target(request, flow), failed))

    async def _send_later(
        self, data: bytes, target: Target, failed: Callable[[TransportError], None]
    ) -> None:
        try:
            flow = await self.flow(target)
            flow.send(data)
        except TransportError as error:
            failed(error)

    def sent_by(self, flow: Flow, via_host: str | None) -> str:
        """What our Via says: `via_host` or our address, with the port we listen on for this transport.

        A `via_host` that names its port (`sbc.example:5061`) is taken as it is.
        """
        return self._local.sent_by(flow, via_host)

    # -- connections grow old

    def recycle(self, predicate: Callable[[Flow], bool]) -> None:
        """No new request takes these connections; each is closed once idle and needed by no transaction
        (T9).
        """
        for flow in [flow for flow in self._streams if predicate(flow)]:
            flow.drain()

    def _reload_later(self) -> None:
        self._reload_timer = self.clock.call_later(self.limits.reload_interval, self._reload)

    def _reload(self) -> None:
        self._reload_later()
        self.reload_certificates()

    def reload_certificates(self) -> bool:
        """Look at the certificate files now; True when new ones are in use and old connections are
        drained.
        """
        if self.tls is None or not self.tls.refresh():
            return False
        self.counters["tls_reloads"] += 1
        generation = self.tls.generation
        old = TransportKind.TLS
        self.recycle(lambda flow: flow.kind is old and getattr(flow, "generation", generation) != generation)
        return True

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close every socket; streams get two seconds to flush."""
        self.on_closed = None
        if self._reload_timer is not None:
            self._reload_timer.cancel()
        await self._local.stop_accepting()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()
        flows = list(self._streams)
        for flow in flows:
            flow.close()
        if flows:
            _, open_still = await asyncio.wait([flow.lost for flow in flows], timeout=ABORT_AFTER)
            if open_still:
                for flow in flows:
                    flow.abort()
                await asyncio.wait(open_still, timeout=ABORT_AFTER)
        await self._local.close_udp()
