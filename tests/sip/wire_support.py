"""A whole stack below the sessions on loopback sockets, with a user that answers by rote, and raw peers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import cast

from gateway.clock import LoopClock
from gateway.errors import MessageError
from gateway.sip.message import Message, Request, Response, make_response, parse_message
from gateway.sip.tls import TlsSettings
from gateway.sip.transaction import ServerTransaction, Timers, TransactionLayer
from gateway.sip.transport import Endpoint, Flow, Target, TransportKind, TransportLayer, TransportLimits

PATIENCE = 5.0
QUICK = Timers(t1=0.05, t2=0.2, t4=0.1, trying_after=0.05)
KNOWN = ("INVITE", "OPTIONS", "REGISTER", "MESSAGE", "BYE", "INFO")


@dataclass
class Stack:
    """`arrived` is what the transport layer handed up, `requests` what the transactions did."""

    admit: Callable[[Flow], bool] = lambda flow: True
    arrived: list[tuple[Message, Flow]] = field(default_factory=list)
    malformed: list[MessageError] = field(default_factory=list)
    requests: list[ServerTransaction] = field(default_factory=list)
    acks: list[Request] = field(default_factory=list)
    asked: list[Flow] = field(default_factory=list)
    answer: Callable[[Request], int] = lambda request: 200 if request.method in KNOWN else 501
    transports: TransportLayer = field(init=False)
    layer: TransactionLayer = field(init=False)
    endpoints: dict[TransportKind, Endpoint] = field(default_factory=dict)

    def on_message(self, message: Message, flow: Flow) -> None:
        self.arrived.append((message, flow))
        self.layer.receive(message, flow)

    def ask_admission(self, flow: Flow) -> bool:
        self.asked.append(flow)
        return self.admit(flow)

    def on_malformed(self, error: MessageError, flow: Flow) -> None:
        self.malformed.append(error)

    def on_request(self, transaction: ServerTransaction) -> None:
        self.requests.append(transaction)
        code = self.answer(transaction.request)
        if code:
            transaction.respond(make_response(transaction.request, code, to_tag=transaction.local_tag))

    def on_cancel(self, invite: ServerTransaction, cancel: Request) -> None:
        invite.respond(make_response(invite.request, 487, to_tag=invite.local_tag))

    def on_ack(self, ack: Request, flow: Flow) -> None:
        self.acks.append(ack)

    def on_response_stray(self, response: Response, flow: Flow) -> None:
        raise AssertionError(f"stray {response}")

    def target(self, kind: TransportKind, name: str = "") -> Target:
        endpoint = self.endpoints[kind]
        return Target(kind, endpoint.host, endpoint.port, name)

    async def exchange(self, request: Request, way: Flow | Target, *, tcp_switch: bool = False) -> Response:
        """The final response; SipError is raised."""
        done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def on_response(response: Response) -> None:
            if response.code >= 200 and not done.done():
                done.set_result(response)

        self.layer.request(
            request, way, tcp_switch=tcp_switch, on_response=on_response, on_failure=done.set_exception
        )
        return await asyncio.wait_for(done, PATIENCE)


@contextlib.asynccontextmanager
async def running(
    *listen: str,
    tls: TlsSettings | None = None,
    limits: TransportLimits | None = None,
    admit: Callable[[Flow], bool] | None = None,
    admit_address: Callable[[TransportKind, str], bool] | None = None,
    timers: Timers = QUICK,
) -> AsyncIterator[Stack]:
    """A stack listening on `listen` ("udp:127.0.0.1:0", …), closed at the end; no exception may reach the
    loop.
    """
    loop = asyncio.get_running_loop()
    raised: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    stack = Stack() if admit is None else Stack(admit=admit)
    stack.transports = TransportLayer(
        on_message=stack.on_message,
        on_malformed=stack.on_malformed,
        admit=stack.ask_admission,
        clock=LoopClock(),
        tls=tls,
        limits=limits,
        admit_address=admit_address,
    )
    stack.layer = TransactionLayer(stack.transports, LoopClock(), stack, timers)
    try:
        for endpoint in await stack.transports.listen([Endpoint.parse(text) for text in listen]):
            stack.endpoints.setdefault(endpoint.kind, endpoint)
        yield stack
    finally:
        await stack.layer.close()
        await stack.transports.close()
        await asyncio.sleep(0)
        loop.set_exception_handler(None)
    assert not raised
    assert stack.transports.counters["internal_errors"] == 0
    assert stack.transports.connections == 0


class UdpPeer(asyncio.DatagramProtocol):
    """A raw UDP socket; `received` holds what came."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.received.put_nowait(data)

    async def next(self) -> Message:
        return parse_message(await self.next_raw())

    async def next_raw(self) -> bytes:
        return await asyncio.wait_for(self.received.get(), PATIENCE)


@contextlib.asynccontextmanager
async def udp_peer(to: Endpoint, port: int | None = None) -> AsyncIterator[UdpPeer]:
    """Connected to `to`. With `port` it sits on a loopback address of its own, where any port is free."""
    loop = asyncio.get_running_loop()
    local = ("127.0.0.1", 0)
    if port is not None:
        local = (f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}", port)
    transport, peer = await loop.create_datagram_endpoint(
        UdpPeer, local_addr=local, remote_addr=(to.host, to.port)
    )
    try:
        yield peer
    finally:
        transport.close()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def tcp_peer(
    to: Endpoint,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(to.host, to.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_message(reader: asyncio.StreamReader) -> Message:
    """One message off a stream; IncompleteReadError when it ends."""
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).lstrip(b"\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        return parse_message(head + await reader.readexactly(length))


def request_bytes(
    method: str = "OPTIONS",
    *,
    call_id: str = "probe",
    via: str = "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKprobe;rport",
    body: bytes = b"",
    extra: tuple[str, ...] = (),
) -> bytes:
    lines = [
        f"{method} sip:gateway@127.0.0.1 SIP/2.0",
        f"Via: {via}",
        "From: <sip:probe@example.test>;tag=p1",
        "To: <sip:gateway@example.test>",
        f"Call-ID: {call_id}",
        f"CSeq: 1 {method}",
        "Max-Forwards: 70",
        *extra,
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another task or socket brings about; fails after PATIENCE seconds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  the code under test sets no event for tests
            await asyncio.sleep(0.005)


def closed_port() -> int:
    """A TCP port on 127.0.0.1 that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
