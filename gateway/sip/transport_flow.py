"""A way to reach one peer: a UDP socket with a remote address, or one stream connection."""

from __future__ import annotations

from typing import Protocol

from gateway.errors import TransportError
from gateway.sip.transport_types import MAX_DATAGRAM, Target, TransportKind, bracketed


class Flow:
    """What requests are sent on and where messages came from.

    `peer_names` are the SAN dNSNames (lower case) of a peer certificate whose chain, dates and purpose were
    verified; whether the name is the right one for a trunk is the caller's to say. `target` is what a stream
    of ours was dialled as, None for a peer's. `users` counts the transactions that still need this flow: it
    is not drained before they end.
    """

    kind: TransportKind
    local: tuple[str, int]
    remote: tuple[str, int]
    peer_names: frozenset[str] = frozenset()
    outbound: bool = False
    target: Target | None = None
    users: int = 0
    draining: bool = False
    """Lives on for what is under way; a new request takes another connection."""

    @property
    def reliable(self) -> bool:
        return self.kind.reliable

    @property
    def closed(self) -> bool:
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """TransportError when the flow is closed or `data` does not fit (64 KiB; UDP: 65,507 bytes)."""
        raise NotImplementedError

    def close(self) -> None:
        """Close a stream at once; nothing on UDP."""

    def unanswered(self, since: float) -> None:
        """A request sent at `since` (monotonic seconds) was given up without any answer: a stream on which
        nothing at all was received meanwhile is drained, for it may be dead one way. Nothing on UDP.
        """

    def __str__(self) -> str:
        return f"{self.kind}:{bracketed(self.remote[0])}:{self.remote[1]}"


class DatagramSocket(Protocol):
    """The half of asyncio.DatagramTransport that a flow needs."""

    def sendto(self, data: bytes, addr: tuple[str, int]) -> None: ...

    def is_closing(self) -> bool: ...


class DatagramFlow(Flow):
    """A UDP socket of ours and one remote address; made anew for each datagram, so it holds no state."""

    kind = TransportKind.UDP

    def __init__(self, socket: DatagramSocket, local: tuple[str, int], remote: tuple[str, int]) -> None:
        self._socket = socket
        self.local = local
        self.remote = remote

    @property
    def closed(self) -> bool:
        return self._socket.is_closing()

    def to_port(self, port: int) -> DatagramFlow:
        """The same socket and address, another port."""
        return DatagramFlow(self._socket, self.local, (self.remote[0], port))

    def send(self, data: bytes) -> None:
        if self.closed:
            raise TransportError("the UDP socket is closed")
        if len(data) > MAX_DATAGRAM:
            raise TransportError(f"{len(data)} bytes do not fit into a datagram")
        try:
            self._socket.sendto(data, self.remote)
        except (OSError, ValueError) as error:
            raise TransportError(f"cannot send to {self}: {error}") from error
