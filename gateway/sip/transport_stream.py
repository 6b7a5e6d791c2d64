"""One TCP or TLS connection: framing, keep-alive, time-outs, drain."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Protocol, cast

from gateway.clock import Clock, TimerHandle
from gateway.errors import TransportError
from gateway.sip.framing import FramingError, KeepAlive, StreamFramer
from gateway.sip.tls import verified_names
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import MAX_STREAM_MESSAGE, TransportKind, TransportLimits, address_pair

log = logging.getLogger("tandem.sip.transport")

ABORT_AFTER = 2.0
"""Seconds a closed connection may take to flush before it is cut."""


class StreamOwner(Protocol):
    """What a connection tells its layer; none of these raises."""

    clock: Clock
    limits: TransportLimits
    counters: Counter[str]

    def stream_opened(self, flow: StreamFlow) -> None: ...

    def stream_closed(self, flow: StreamFlow) -> None: ...

    def stream_message(self, data: bytes, flow: StreamFlow) -> None: ...

    def stream_broken(self, error: FramingError, flow: StreamFlow) -> None: ...


class StreamFlow(asyncio.Protocol, Flow):
    """A connection of ours or of a peer's. Times are read from the layer's clock."""

    def __init__(
        self, owner: StreamOwner, kind: TransportKind, *, outbound: bool, generation: int = 0
    ) -> None:
        self.kind = kind
        self.outbound = outbound
        self.generation = generation
        """Which TLS files it was made with (TlsContexts.generation)."""
        self.lost = asyncio.get_running_loop().create_future()
        """Done when the connection is gone."""
        self._owner = owner
        self._framer = StreamFramer(owner.limits.max_message, owner.limits.max_head)
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._received_at = self._sent_at = owner.clock.now()
        self._timers: dict[str, TimerHandle] = {}

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        self._transport = stream
        try:
            self.local = address_pair(transport.get_extra_info("sockname"))
            self.remote = address_pair(transport.get_extra_info("peername"))
            tls = transport.get_extra_info("ssl_object")
            if tls is not None:
                self.peer_names = verified_names(tls.getpeercert(binary_form=True))
        except TransportError as error:
            self._owner.counters["tls_refused_purpose" if self.kind is TransportKind.TLS else "lost"] += 1
            log.warning("event=connection-refused kind=%s reason=%r", self.kind, error.text)
            self._closing = True
            stream.abort()
            return
        limits = self._owner.limits
        self._arm("idle", limits.idle_timeout, self._check_idle)
        if self.outbound and limits.keepalive_interval > 0:
            self._arm("ping", limits.keepalive_interval, self._ping)
        self._owner.stream_opened(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._received_at = self._owner.clock.now()
        try:
            self._take(data)
        except FramingError as error:
            self._owner.stream_broken(error, self)
            self.close()
        except Exception:
            self._owner.counters["internal_errors"] += 1
            log.exception("event=receive-failed peer=%s", self)
            self.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        already = self._closing
        self._closing = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if not self.lost.done():
            self.lost.set_result(None)
        if not hasattr(self, "remote"):
            return
        if not already and (exc is not None or self.users > 0):
            # With TLS 1.3 a peer refuses our certificate only here, after the handshake (T7).
            reason = "closed by peer" if exc is None else str(exc)
            log.warning("event=connection-lost peer=%s outbound=%s reason=%r", self, self.outbound, reason)
        self._owner.stream_closed(self)

    # -- Flow

    @property
    def closed(self) -> bool:
        return self._closing or self._transport is None or self._transport.is_closing()

    @property
    def socket(self) -> socket.socket | None:
        """For socket options; None when the connection is gone."""
        found = None if self._transport is None else self._transport.get_extra_info("socket")
        return found if hasattr(found, "setsockopt") else None

    def send(self, data: bytes) -> None:
        if len(data) > MAX_STREAM_MESSAGE:
            raise TransportError(f"{len(data)} bytes are more than a message may have")
        self._write(data)

    def close(self) -> None:
        """Flush and close; what does not flush within two seconds is cut."""
        if self._transport is None or self._transport.is_closing():
            self._closing = True
            return
        self._closing = True
        self._transport.close()
        self._arm("abort", ABORT_AFTER, self._transport.abort)

    def abort(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def drain(self) -> None:
        """Close as soon as no transaction needs it and it is quiet (T9); new requests must take another
        one.
        """
        if self.draining or self.closed:
            return
        self.draining = True
        limits = self._owner.limits
        self._arm("drain-limit", limits.drain_limit, self.close)
        self._arm("drain", limits.drain_quiet, self._check_drained)

    def unanswered(self, since: float) -> None:
        waited = self._owner.clock.now() - since
        if self.closed or self.draining or self._received_at >= since:
            return
        if waited >= self._owner.limits.unanswered_after:
            self._owner.counters["unanswered"] += 1
            log.warning("event=connection-unanswered peer=%s waited=%.1f", self, waited)
            self.drain()

    # -- inside

    def _take(self, data: bytes) -> None:
        for item in self._framer.feed(data):
            if item is KeepAlive.PING:
                self._write(b"\r\n")
            elif isinstance(item, bytes):
                self._disarm("stall")
                self._owner.stream_message(item, self)
            if self._closing:
                return
        self._framer.check()
        if not self._framer.pending:
            self._disarm("stall")
        elif "stall" not in self._timers:
            self._arm("stall", self._owner.limits.stall_timeout, self._stalled)

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or self.closed:
            raise TransportError(f"the connection to {self} is closed")
        if transport.get_write_buffer_size() > self._owner.limits.max_unsent:
            self._owner.counters["unread"] += 1
            log.warning("event=peer-does-not-read peer=%s", self)
            self.abort()
            raise TransportError(f"{self} does not read")
        self._sent_at = self._owner.clock.now()
        transport.write(data)

    def _stalled(self) -> None:
        self._owner.counters["stalled"] += 1
        log.warning("event=stalled peer=%s", self)
        self.close()

    def _check_idle(self) -> None:
        left = self._received_at + self._owner.limits.idle_timeout - self._owner.clock.now()
        if left <= 0 and self.users == 0:
            self._owner.counters["idle_closed"] += 1
            log.info("event=idle-closed peer=%s", self)
            self.close()
        else:
            self._arm("idle", max(left, 1.0), self._check_idle)

    def _ping(self) -> None:
        interval = self._owner.limits.keepalive_interval
        self._arm("ping", interval, self._ping)
        if self._owner.clock.now() - self._sent_at >= interval / 2:
            self._framer.awaiting_pong = True
            try:
                self._write(b"\r\n\r\n")
            except TransportError as error:
                log.info("event=ping-failed peer=%s reason=%r", self, error.text)

    def _check_drained(self) -> None:
        limits = self._owner.limits
        quiet = self._owner.clock.now() - max(self._received_at, self._sent_at)
        if self.users == 0 and quiet >= limits.drain_quiet:
            log.info("event=drained peer=%s", self)
            self.close()
        else:
            self._arm("drain", limits.drain_quiet, self._check_drained)

    def _arm(self, name: str, delay: float, callback: Callable[[], None]) -> None:
        self._disarm(name)

        def run() -> None:
            self._timers.pop(name, None)
            callback()

        self._timers[name] = self._owner.clock.call_later(delay, run)

    def _disarm(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
