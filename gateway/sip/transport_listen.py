"""Listening: UDP sockets, and accept loops for TCP and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import cast

from gateway.datagrams import further
from gateway.errors import TransportError
from gateway.sip.transport_flow import DatagramFlow
from gateway.sip.transport_types import Endpoint, TransportKind, address_pair, normal_address

log = logging.getLogger("tandem.sip.transport")

_RECEIVE_BUFFER = 1 << 20
_BACKLOG = 1024
_KEEP_ALIVE = (
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    # Linux counts no probes where TCP_USER_TIMEOUT is set: three of them fit before it here.
    ("TCP_KEEPCNT", 3),
    # While something of ours is unacknowledged no probe is sent at all, and the retransmissions alone would
    # go on for a quarter of an hour.
    ("TCP_USER_TIMEOUT", 25_000),
)
"""Seconds, a count, and milliseconds (tcp(7))."""


def bind(endpoint: Endpoint) -> socket.socket:
    """A bound, non-blocking socket, listening if it is a stream's. TransportError names the cause."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    stream = endpoint.kind.reliable
    sock = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if stream:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.bind((endpoint.host, endpoint.port))
        if stream:
            sock.listen(_BACKLOG)
        sock.setblocking(False)
    except (OSError, OverflowError) as error:
        sock.close()
        raise TransportError(f"cannot listen on {endpoint}: {error}") from error
    return sock


def real_endpoint(endpoint: Endpoint, sock: socket.socket) -> Endpoint:
    """`endpoint` with the port the system chose."""
    return Endpoint(endpoint.kind, endpoint.host, sock.getsockname()[1])


class UdpListener(asyncio.DatagramProtocol):
    """One UDP socket; each datagram is handed on with its flow."""

    def __init__(
        self, endpoint: Endpoint, sock: socket.socket, received: Callable[[bytes, DatagramFlow], None]
    ) -> None:
        self.endpoint = endpoint
        self._sock = sock
        self._received = received
        self._transport: asyncio.DatagramTransport | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Before Python 3.12 asyncio's own datagram transport is no asyncio.DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, addr)
        for more, sender in further(self._sock):
            self._take(more, sender)

    def _take(self, data: bytes, addr: tuple[str, int]) -> None:
        remote = normal_address(addr[0]), addr[1]
        if self._transport is not None and not self._transport.is_closing() and remote[1] != 0:
            self._received(data, self.flow_to(remote))

    def error_received(self, exc: Exception) -> None:
        log.info("event=udp-error local=%s reason=%r", self.endpoint, str(exc))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def flow_to(self, remote: tuple[str, int]) -> DatagramFlow:
        """TransportError when the socket is closed."""
        if self._transport is None:
            raise TransportError("the UDP socket is not open")
        local = self.endpoint.host, self.endpoint.port
        return DatagramFlow(self._transport, local, remote)

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            await self.lost


class StreamListener:
    """One listening socket and the task that accepts from it; `serve` is started for each connection."""

    def __init__(
        self,
        endpoint: Endpoint,
        sock: socket.socket,
        serve: Callable[[socket.socket, TransportKind, tuple[str, int]], Awaitable[None]],
    ) -> None:
        self.endpoint = endpoint
        self._sock = sock
        self._serve = serve
        self._handshakes: set[asyncio.Task[None]] = set()
        self._task = asyncio.get_running_loop().create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                # Out of file descriptors, or a connection reset before it was accepted.
                log.error("event=accept-failed local=%s reason=%r", self.endpoint, str(error))
                await asyncio.sleep(0.1)
                continue
            try:
                remote = address_pair(sock.getpeername())
            except (OSError, TransportError):
                sock.close()
                continue
            task = loop.create_task(self._guarded(sock, remote))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _guarded(self, sock: socket.socket, remote: tuple[str, int]) -> None:
        try:
            await self._serve(sock, self.endpoint.kind, remote)
        except Exception:
            log.exception("event=serve-failed local=%s", self.endpoint)
            sock.close()

    async def close(self) -> None:
        tasks = [self._task, *self._handshakes]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._sock.close()


def keep_alive(sock: socket.socket) -> None:
    """Let the system notice within half a minute that nothing gets through any more: a peer that vanished
    without a FIN, a firewall that forgot the connection.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def source_address(remote: tuple[str, int]) -> str:
    """The address of ours the system would send from to `remote`; nothing is sent. TransportError: no
    route.
    """
    family = socket.AF_INET6 if ":" in remote[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(remote)
        except OSError as error:
            raise TransportError(f"no route to {remote[0]}: {error}") from error
        return normal_address(probe.getsockname()[0])
