"""Transactions and dialogs of the test peers: as little as a scripted party needs, all of it own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.peers.sipwire import (
    WireMessage,
    address,
    build_response,
    new_branch,
    parameters,
    split_list,
)
from tests.peers.sipwire_net import Connection, Wire, WireLog

PATIENCE = 10.0
"""Seconds that expectations wait unless told otherwise: long, because the machine is shared."""


class ClientTx:
    """A request we sent; responses queue up. An INVITE's non-2xx final response is acknowledged at once."""

    def __init__(self, ua: WireUa, request: WireMessage, connection: Connection) -> None:
        self.ua, self.request, self.connection = ua, request, connection
        self.branch = request.branch
        self.responses: asyncio.Queue[WireMessage] = asyncio.Queue()
        self.seen: list[WireMessage] = []
        self.acknowledge = True
        self.on_response: Callable[[WireMessage], None] | None = None
        self._delay = ua.t1
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self.connection.send(self.request)
        if not self.connection.reliable and self.request.method != "ACK":
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._again)

    def _again(self) -> None:
        self.connection.send_raw(self.request.raw, self.request)
        self._delay *= 2
        if self._delay < 64 * self.ua.t1:
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._again)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def receive(self, response: WireMessage) -> None:
        if response.code >= 200 or self.request.method == "INVITE":
            self.stop()
        repeated = any(old.code == response.code and old.to_tag == response.to_tag for old in self.seen)
        if self.request.method == "INVITE" and response.code >= 300 and self.acknowledge:
            ack = WireMessage(f"ACK {self.request.uri} SIP/2.0")
            ack.headers = [
                (self.ua.case(name), self.request.all(name)[0]) for name in ("Via", "From", "Call-ID")
            ]
            ack.headers += [(self.ua.case("To"), response.need("To"))]
            ack.headers += [(self.ua.case("CSeq"), f"{self.request.cseq[0]} ACK")]
            ack.headers += [(self.ua.case("Route"), value) for value in self.request.all("Route")]
            ack.headers += [(self.ua.case("Max-Forwards"), "70")]
            self.connection.send(ack)
        if self.on_response is not None:
            self.on_response(response)
        if repeated and response.code >= 200:
            return
        self.seen.append(response)
        self.responses.put_nowait(response)

    async def next(self, within: float = PATIENCE) -> WireMessage:
        """The next response, provisional or final; TimeoutError."""
        return await asyncio.wait_for(self.responses.get(), within)

    async def until(self, *codes: int, within: float = PATIENCE) -> WireMessage:
        """Wait for one of these codes; any other final response is an AssertionError."""
        deadline = asyncio.get_running_loop().time() + within
        while True:
            response = await self.next(max(0.001, deadline - asyncio.get_running_loop().time()))
            if response.code in codes:
                return response
            assert response.code < 200, (
                f"wanted {codes}, got {response.code} {response.phrase}: {response.raw!r}"
            )

    async def final(self, within: float = PATIENCE) -> WireMessage:
        deadline = asyncio.get_running_loop().time() + within
        while True:
            response = await self.next(max(0.001, deadline - asyncio.get_running_loop().time()))
            if response.code >= 200:
                return response

    def cancel(self, headers: Iterable[tuple[str, str]] = ()) -> ClientTx:
        """CANCEL with the INVITE's branch (RFC 3261 9.1)."""
        message = WireMessage(f"CANCEL {self.request.uri} SIP/2.0")
        message.headers = [
            (self.ua.case(name), self.request.all(name)[0]) for name in ("Via", "From", "To", "Call-ID")
        ]
        message.headers += [(self.ua.case("CSeq"), f"{self.request.cseq[0]} CANCEL")]
        message.headers += [(self.ua.case("Route"), value) for value in self.request.all("Route")]
        message.headers += [(self.ua.case("Max-Forwards"), "70"), *headers]
        return self.ua.send(message, self.connection, via=False)


class ServerTx:
    """A request we received. `respond` sends, and keeps sending a final answer to an INVITE until its ACK."""

    def __init__(self, ua: WireUa, request: WireMessage, connection: Connection) -> None:
        self.ua, self.request, self.connection = ua, request, connection
        self.response: WireMessage | None = None
        self.cancelled: WireMessage | None = None
        self.ack: WireMessage | None = None
        self.on_cancel: Callable[[ServerTx], None] | None = None
        self.on_ack: Callable[[], None] | None = None
        self.retransmit = True
        self._timer: asyncio.TimerHandle | None = None
        self._delay = ua.t1

    def respond(
        self,
        code: int,
        phrase: str = "",
        *,
        to_tag: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "application/sdp",
    ) -> WireMessage:
        response = build_response(
            self.request,
            code,
            phrase,
            to_tag=to_tag if code > 100 else "",
            headers=headers,
            body=body,
            content_type=content_type,
            upper=self.ua.upper,
        )
        self.send(response)
        return response

    def send(self, response: WireMessage) -> None:
        """A response of the caller's own making."""
        self.stop()
        self.response = response
        self.connection.send(response)
        lasting = response.code < 300 or not self.connection.reliable
        if self.request.method == "INVITE" and response.code >= 200 and lasting and self.retransmit:
            self._delay = self.ua.t1
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._again)

    def _again(self) -> None:
        if self.response is None or self._delay > 16 * self.ua.t1:
            return
        self.connection.send_raw(self.response.raw, self.response)
        self._delay *= 2
        self._timer = asyncio.get_running_loop().call_later(self._delay, self._again)

    def acknowledged(self, ack: WireMessage) -> None:
        self.ack = ack
        self.stop()
        if self.on_ack is not None:
            self.on_ack()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@dataclass
class Dialog:
    """RFC 3261 12: `local` and `remote` are From/To values without tag, `routes` ready to be sent."""

    call_id: str
    local: str
    remote: str
    local_tag: str
    remote_tag: str = ""
    local_cseq: int = 0
    remote_cseq: int = 0
    target: str = ""
    routes: list[str] = field(default_factory=list)

    def request(self, method: str, case: Callable[[str], str], *, cseq: int = 0) -> WireMessage:
        """An in-dialog request without Via; `cseq` 0 counts up (an ACK gives the INVITE's)."""
        if not cseq:
            self.local_cseq += 1
        message = WireMessage(f"{method} {self.target} SIP/2.0")
        tail = f";tag={self.remote_tag}" if self.remote_tag else ""
        message.headers = [
            (case("From"), f"{self.local};tag={self.local_tag}"),
            (case("To"), self.remote + tail),
            (case("Call-ID"), self.call_id),
            (case("CSeq"), f"{cseq or self.local_cseq} {method}"),
            (case("Max-Forwards"), "70"),
        ]
        message.headers += [(case("Route"), route) for route in self.routes]
        return message

    def confirm(self, response: WireMessage) -> None:
        """Take the remote tag, target and route set from a response to our INVITE."""
        self.remote_tag = response.to_tag
        if response.get("Contact"):
            self.target = address(response.get("Contact")).uri
        self.routes = list(reversed(response.all("Record-Route")))

    @classmethod
    def of_invite(cls, invite: WireMessage, local_tag: str) -> Dialog:
        """The UAS's dialog."""
        return cls(
            invite.call_id,
            untagged(invite.need("To")),
            untagged(invite.need("From")),
            local_tag,
            invite.from_tag,
            0,
            invite.cseq[0],
            address(invite.need("Contact")).uri,
            invite.all("Record-Route"),
        )


def untagged(value: str) -> str:
    """A From or To value without its tag, other parameters kept."""
    parts = address(value)
    if "tag" not in parameters(parts.tail):
        return value
    head = value[: len(value) - len(parts.tail)]
    kept = [part for part in parts.tail.split(";")[1:] if not part.strip().lower().startswith("tag=")]
    return ";".join([head.rstrip(), *kept])


class DialogUser:
    """What a UA hands in-dialog traffic to; see WireCall."""

    dialog: Dialog

    def on_request(self, transaction: ServerTx) -> None:
        raise NotImplementedError

    def on_ack(self, ack: WireMessage) -> None:
        raise NotImplementedError


class WireUa:
    """One party: its wire, its transactions, its dialogs.

    upper: header names in capitals, as Microsoft's proxy writes them
    via:   sent-by of our Via; default the socket's own address
    """

    def __init__(self, owner: str, log: WireLog | None = None, *, upper: bool = False, via: str = "") -> None:
        self.wire = Wire(owner, self._on_message, log)
        self.upper, self.via, self.t1 = upper, via, 0.5
        self.handler: Callable[[ServerTx], None] | None = None
        self.dialogs: dict[tuple[str, str], DialogUser] = {}
        self.strays: list[WireMessage] = []
        self._clients: dict[tuple[str, str], ClientTx] = {}
        self._servers: dict[tuple[str, str, str], ServerTx] = {}
        self._invites: dict[str, list[ServerTx]] = {}

    @property
    def log(self) -> WireLog:
        return self.wire.log

    def case(self, name: str) -> str:
        return name.upper() if self.upper else name

    def send(self, message: WireMessage, connection: Connection, *, via: bool = True) -> ClientTx:
        """Start a client transaction; puts our Via on top unless told that it is there."""
        if via:
            local = self.via or f"{connection.local[0]}:{connection.local[1]}"
            value = f"SIP/2.0/{connection.kind} {local};branch={new_branch()};rport"
            message.headers.insert(0, (self.case("Via"), value))
        transaction = ClientTx(self, message, connection)
        if message.method != "ACK":
            self._clients[(transaction.branch, message.method)] = transaction
        transaction.start()
        return transaction

    def _on_message(self, message: WireMessage, connection: Connection) -> None:
        if not message.is_request:
            client = self._clients.get((message.branch, message.method))
            if client is None:
                self.strays.append(message)
            else:
                client.receive(message)
            return
        via = message.all("Via")[0].split(";")[0]
        known = self._servers.get((message.branch, via, message.method))
        if known is not None:
            if known.response is not None:
                connection.send_raw(known.response.raw, known.response)
            return
        invite = self._servers.get((message.branch, via, "INVITE"))
        if message.method == "ACK":
            self._on_ack(message, invite)
            return
        transaction = ServerTx(self, message, connection)
        self._servers[(message.branch, via, message.method)] = transaction
        if message.method == "INVITE":
            self._invites.setdefault(message.call_id, []).append(transaction)
        if message.method == "CANCEL":
            self._on_cancel(transaction, invite)
            return
        if message.to_tag:
            call = self.find(message.call_id, message.to_tag, message.from_tag)
            if call is None:
                transaction.respond(481)
            else:
                call.on_request(transaction)
        elif self.handler is not None:
            self.handler(transaction)
        else:
            transaction.respond(480, to_tag="none")

    def _on_ack(self, ack: WireMessage, invite: ServerTx | None) -> None:
        if invite is not None:
            invite.acknowledged(ack)
            return
        for server in self._invites.get(ack.call_id, ()):
            request = server.request
            if request.cseq[0] == ack.cseq[0] and request.from_tag == ack.from_tag:
                server.acknowledged(ack)
        call = self.find(ack.call_id, ack.to_tag, ack.from_tag)
        if call is not None:
            call.on_ack(ack)

    def _on_cancel(self, cancel: ServerTx, invite: ServerTx | None) -> None:
        if invite is None:
            cancel.respond(481)
            return
        cancel.respond(200)
        invite.cancelled = cancel.request
        if invite.connection.closed:
            invite.connection = cancel.connection
        if invite.on_cancel is not None:
            invite.on_cancel(invite)

    def find(self, call_id: str, local_tag: str, remote_tag: str) -> DialogUser | None:
        """The dialog; one that is still early on our side has no remote tag to compare."""
        user = self.dialogs.get((call_id, local_tag))
        return user if user is not None and user.dialog.remote_tag in ("", remote_tag) else None

    def adopt(self, user: DialogUser) -> None:
        self.dialogs[(user.dialog.call_id, user.dialog.local_tag)] = user

    def forget(self, call_id: str) -> None:
        """Drop what is kept of an ended call's transactions (late repeats get 481)."""
        kept: list[ClientTx | ServerTx] = [*self._clients.values(), *self._servers.values()]
        for transaction in kept:
            if transaction.request.call_id == call_id:
                transaction.stop()
        self._clients = {k: c for k, c in self._clients.items() if c.request.call_id != call_id}
        self._servers = {k: t for k, t in self._servers.items() if t.request.call_id != call_id}
        self._invites.pop(call_id, None)
        self.dialogs = {key: user for key, user in self.dialogs.items() if key[0] != call_id}

    async def close(self) -> None:
        for client in self._clients.values():
            client.stop()
        for server in self._servers.values():
            server.stop()
        await self.wire.close()


def allows(message: WireMessage, method: str) -> bool:
    """Whether the message's Allow lists a method."""
    return method in {part.upper() for value in message.all("Allow") for part in split_list(value)}
