"""Transactions without sockets: a transport that records, a user that records, and messages to feed them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.errors import SipError, TransportError
from gateway.sip.message import Message, Request, Response, make_request, make_response, parse_message
from gateway.sip.transaction import ServerTransaction, TransactionLayer, TransactionLimits
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target, TransportKind
from tests.support.clock import FakeClock


class FakeFlow(Flow):
    """Keeps what is sent, parsed; `broken` makes sending fail."""

    def __init__(
        self, kind: TransportKind = TransportKind.UDP, remote: tuple[str, int] = ("192.0.2.9", 5060)
    ):
        self.kind = kind
        self.local = ("192.0.2.1", 5060)
        self.remote = remote
        self.sent: list[Message] = []
        self.raw: list[bytes] = []
        self.broken = False
        self.is_closed = False

    @property
    def closed(self) -> bool:
        return self.is_closed

    def send(self, data: bytes) -> None:
        if self.broken or self.is_closed:
            raise TransportError("broken")
        self.raw.append(data)
        self.sent.append(parse_message(data))

    @property
    def requests(self) -> list[Request]:
        return [message for message in self.sent if isinstance(message, Request)]

    @property
    def codes(self) -> list[int]:
        return [message.code for message in self.sent if isinstance(message, Response)]


class FakeTransports:
    """Implements gateway.sip.transaction.Transports. `connecting`: connections wait for it."""

    def __init__(self) -> None:
        self.on_closed: Callable[[Flow], None] | None = None
        self.ready: dict[Target, FakeFlow] = {}
        self.connectable: dict[Target, FakeFlow] = {}
        self.connecting: asyncio.Event | None = None

    def flow_now(self, target: Target) -> Flow | None:
        flow = self.ready.get(target)
        if flow is not None and flow.reliable:
            flow.target = target
        return flow

    async def flow(self, target: Target) -> Flow:
        if self.connecting is not None:
            await self.connecting.wait()
        flow = self.ready.get(target) or self.connectable.get(target)
        if flow is None:
            raise TransportError("refused")
        flow.target = target
        return flow

    def sent_by(self, flow: Flow, via_host: str | None) -> str:
        return f"{via_host or flow.local[0]}:{flow.local[1]}"

    def send_response(
        self, data: bytes, request: Request, flow: Flow, failed: Callable[[TransportError], None]
    ) -> None:
        try:
            flow.send(data)
        except TransportError as error:
            failed(error)


@dataclass
class FakeUser:
    """Records; `on_new` may answer."""

    requests: list[ServerTransaction] = field(default_factory=list)
    cancels: list[tuple[ServerTransaction, Request]] = field(default_factory=list)
    acks: list[Request] = field(default_factory=list)
    strays: list[Response] = field(default_factory=list)
    on_new: Callable[[ServerTransaction], None] = lambda transaction: None

    def on_request(self, transaction: ServerTransaction) -> None:
        self.requests.append(transaction)
        self.on_new(transaction)

    def on_cancel(self, invite: ServerTransaction, cancel: Request) -> None:
        self.cancels.append((invite, cancel))

    def on_ack(self, ack: Request, flow: Flow) -> None:
        self.acks.append(ack)

    def on_response_stray(self, response: Response, flow: Flow) -> None:
        self.strays.append(response)


@dataclass
class Outcome:
    """What a client transaction told its owner."""

    responses: list[Response] = field(default_factory=list)
    failures: list[SipError] = field(default_factory=list)

    @property
    def codes(self) -> list[int]:
        return [response.code for response in self.responses]


class Stage:
    """One layer with everything faked around it."""

    def __init__(self, limits: TransactionLimits | None = None) -> None:
        self.clock = FakeClock()
        self.transports = FakeTransports()
        self.user = FakeUser()
        self.layer = TransactionLayer(self.transports, self.clock, self.user, limits=limits)

    def settled(self) -> bool:
        """Nothing active, no timer set."""
        return self.layer.active == 0 and self.clock.pending == 0


def outgoing(method: str = "INVITE", **changes: str) -> Request:
    request = make_request(
        method,
        "sip:bob@192.0.2.9",
        from_="<sip:alice@example.test>;tag=a1",
        to="<sip:bob@example.test>",
        call_id="call-1",
        cseq=7,
        contact="<sip:alice@192.0.2.1>",
        route=["<sip:proxy.example.test;lr>"],
    )
    for name, value in changes.items():
        request.headers.set(name.replace("_", "-"), value)
    return request


def answer(request: Request, code: int, tag: str = "b1") -> Response:
    return make_response(request, code, to_tag=tag)


def incoming(method: str = "INVITE", *, branch: str = "z9hG4bKin1", to: str = "", cseq: int = 1) -> Request:
    lines = [
        f"{method} sip:gateway@192.0.2.1 SIP/2.0",
        f"Via: SIP/2.0/UDP 192.0.2.9:5060;branch={branch}",
        "From: <sip:carol@example.test>;tag=c1",
        f"To: {to or '<sip:gateway@example.test>'}",
        "Call-ID: in-1",
        f"CSeq: {cseq} {method}",
        "Max-Forwards: 70",
        "Content-Length: 0",
    ]
    message = parse_message("\r\n".join([*lines, "", ""]).encode())
    assert isinstance(message, Request)
    return message
