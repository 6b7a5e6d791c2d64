"""The transaction layer (RFC 3261 17): matches messages to machines, hands what is new to the user.

Its own duties on the way: 481 for a CANCEL that matches nothing (9.2), 482 for merged requests (8.2.2.2),
503 when there are too many transactions, silence for responses that answer nothing of ours (18.1.2).
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from typing import Protocol, TypeVar

from gateway.clock import Clock
from gateway.errors import MessageError, SipError, TransportError
from gateway.sip.message import (
    BRANCH_COOKIE,
    Message,
    Request,
    Response,
    ViaValue,
    make_response,
    new_branch,
    stateless_tag,
    to_bytes,
)
from gateway.sip.transaction_client import (
    ClientTransaction,
    InviteClientTransaction,
    NonInviteClientTransaction,
    OnFailure,
    OnResponse,
)
from gateway.sip.transaction_machine import Machine, State, log
from gateway.sip.transaction_server import (
    InviteServerTransaction,
    NonInviteServerTransaction,
    ServerTransaction,
)
from gateway.sip.transaction_timers import Timers, TransactionLimits
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import UDP_SWITCH_SIZE, Target, TransportKind

__all__ = [
    "ClientTransaction",
    "ServerTransaction",
    "State",
    "Timers",
    "TransactionLayer",
    "TransactionLimits",
    "TransactionUser",
    "Transports",
]

MAX_SENT_BY = 256
_M = TypeVar("_M")
_F = TypeVar("_F")


class Transports(Protocol):
    """What transactions need of gateway.sip.transport.TransportLayer."""

    on_closed: Callable[[Flow], None] | None

    def flow_now(self, target: Target) -> Flow | None:
        """A flow to `target` that is usable without waiting: UDP, or a stream that is connected already."""
        ...

    async def flow(self, target: Target) -> Flow:
        """TransportError when there is no way."""
        ...

    def sent_by(self, flow: Flow, via_host: str | None) -> str:
        """host[:port] for a Via on this flow: where a response finds us when the connection is gone."""
        ...

    def send_response(
        self, data: bytes, request: Request, flow: Flow, failed: Callable[[TransportError], None]
    ) -> None:
        """By RFC 3261 18.2.2 and RFC 3581; `failed` at once or later, at most once."""
        ...


class TransactionUser(Protocol):
    """The layer above. Called in the loop's thread; an exception is logged and answered with 500."""

    def on_request(self, transaction: ServerTransaction) -> None:
        """A new request, neither ACK nor CANCEL. It must be answered with `transaction.respond`."""
        ...

    def on_cancel(self, invite: ServerTransaction, cancel: Request) -> None:
        """The INVITE was cancelled while unanswered; the CANCEL has had its 200, the INVITE wants its 487."""
        ...

    def on_ack(self, ack: Request, flow: Flow) -> None:
        """An ACK outside a transaction: for a 2xx."""
        ...

    def on_response_stray(self, response: Response, flow: Flow) -> None:
        """A 2xx to an INVITE of ours after its machine ended: wants ACK (and BYE)."""
        ...


class TransactionLayer:
    """All transactions of one gateway. Wire `TransportLayer(on_message=layer.receive)` to it.

    counters: client, server, merged, cancel_unmatched, overload, response_unmatched, response_not_ours,
    tcp_switched, tcp_refused, retried, user_errors.
    """

    def __init__(
        self,
        transports: Transports,
        clock: Clock,
        user: TransactionUser,
        timers: Timers | None = None,
        limits: TransactionLimits | None = None,
    ) -> None:
        self.clock = clock
        self.timers = timers or Timers()
        self.counters: Counter[str] = Counter()
        self._transports = transports
        self._user = user
        self._limits = limits or TransactionLimits()
        self._clients: dict[tuple[str, ...], ClientTransaction] = {}
        self._servers: dict[tuple[str, ...], ServerTransaction] = {}
        self._merging: dict[tuple[str, ...], ServerTransaction] = {}
        self._targets: dict[ClientTransaction, tuple[Target, str]] = {}
        self._sent_by: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        transports.on_closed = self._flow_closed

    @property
    def active(self) -> int:
        """Machines that have not terminated, and sends that wait for a connection."""
        return len(self._clients) + len(self._servers) + len(self._tasks)

    # -- sending

    def request(
        self,
        request: Request,
        flow_or_target: Flow | Target,
        *,
        via_host: str | None = None,
        tcp_switch: bool = False,
        on_response: OnResponse,
        on_failure: OnFailure,
    ) -> ClientTransaction:
        """Send `request` in a transaction of its own; its Via is put on here (sent-by `via_host` or our
        address).

        `on_failure` gets TransactionTimeout or TransportError exactly once and never after a final
        response; none of the two is called before this returns, unless the peer's answer is quicker than
        the loop. A 2xx to an INVITE is handed up each time it comes. With `tcp_switch` a request over
        1,300 bytes for UDP goes by TCP and falls back when that is refused (18.1.1).
        """
        branch = new_branch()
        key = (branch, request.method)
        kind = InviteClientTransaction if request.method == "INVITE" else NonInviteClientTransaction
        transaction = kind(self, request, key, on_response, on_failure)
        self._clients[key] = transaction
        self.counters["client"] += 1
        self._begin(transaction, flow_or_target, via_host, tcp_switch)
        return transaction

    def _begin(
        self, transaction: ClientTransaction, way: Flow | Target, via_host: str | None, tcp_switch: bool
    ) -> None:
        if tcp_switch and way.kind is TransportKind.UDP and self._too_large(transaction.request, via_host):
            self._spawn(self._switch_to_tcp(transaction, way, via_host))
            return
        if isinstance(way, Flow):
            self._start(transaction, way, via_host)
            return
        try:
            flow = self._transports.flow_now(way)
        except TransportError as error:
            transaction.fail(error)
            return
        if flow is None:
            self._spawn(self._connect(transaction, way, via_host))
            return
        self._start(transaction, flow, via_host)
        if flow.reliable and transaction.state is not State.TERMINATED:
            self._targets[transaction] = (way, transaction.request.headers["Via"])

    def _too_large(self, request: Request, via_host: str | None) -> bool:
        # A Via of ours is put on later: 90 bytes and the host cover it.
        try:
            return len(to_bytes(request)) + 90 + len(via_host or "") > UDP_SWITCH_SIZE
        except MessageError:
            return False  # the send that follows reports it

    def _start(self, transaction: ClientTransaction, flow: Flow, via_host: str | None) -> None:
        if transaction.state is State.TERMINATED:
            return  # cancelled while the connection was being made
        self._put_via(transaction.request, flow, via_host, transaction.key[0])
        transaction.start(flow)

    def _put_via(self, request: Request, flow: Flow, via_host: str | None, branch: str) -> None:
        sent_by = self._transports.sent_by(flow, via_host)
        self._remember_sent_by(sent_by.lower())
        protocol = flow.kind.upper()
        request.headers.setlist("Via", [f"SIP/2.0/{protocol} {sent_by};branch={branch};rport"])

    def _remember_sent_by(self, sent_by: str) -> None:
        self._sent_by[sent_by] = None
        self._sent_by.move_to_end(sent_by)
        if len(self._sent_by) > MAX_SENT_BY:
            self._sent_by.popitem(last=False)

    async def _connect(self, transaction: ClientTransaction, target: Target, via_host: str | None) -> None:
        try:
            flow = await self._transports.flow(target)
        except TransportError as error:
            transaction.fail(error)
            return
        self._start(transaction, flow, via_host)

    async def _switch_to_tcp(
        self, transaction: ClientTransaction, way: Flow | Target, via_host: str | None
    ) -> None:
        if isinstance(way, Target):
            by_tcp = Target(TransportKind.TCP, way.address, way.port, way.name)
        else:
            by_tcp = Target(TransportKind.TCP, *way.remote)
        try:
            flow = await self._transports.flow(by_tcp)
            self.counters["tcp_switched"] += 1
        except TransportError as refused:
            self.counters["tcp_refused"] += 1
            log.info("event=tcp-refused peer=%s reason=%s fallback=udp", by_tcp, refused.text)
            self._begin(transaction, way, via_host, tcp_switch=False)
            return
        self._start(transaction, flow, via_host)

    def resend(self, transaction: ClientTransaction) -> bool:
        """ClientHost: once more on a new connection; the same branch makes it a retransmission for the
        peer.
        """
        target, via = self._targets.pop(transaction, (None, ""))
        if target is None:
            return False
        self.counters["retried"] += 1
        self._spawn(self._reconnect(transaction, target, via))
        return True

    async def _reconnect(self, transaction: ClientTransaction, target: Target, via: str) -> None:
        try:
            flow = await self._transports.flow(target)
        except TransportError as error:
            transaction.fail(error)
            return
        if transaction.state is not State.TERMINATED:
            log.info("event=resent %s via=%r peer=%s", transaction.label, via, target)
            transaction.restart(flow)

    def start_cancel(self, cancel: Request, flow: Flow) -> None:
        """ClientHost: the CANCEL has the INVITE's Via, so its branch is known already."""
        key = (cancel.top_via.branch, "CANCEL")
        transaction = NonInviteClientTransaction(self, cancel, key, _ignore_response, _ignore_failure)
        self._clients[key] = transaction
        transaction.start(flow)

    def send_ack(self, ack: Request, flow_or_target: Flow | Target, via_host: str | None = None) -> None:
        """The ACK for a 2xx: no transaction, straight to the transport (13.2.2.4). Failure is logged: the
        peer's repeated 2xx asks for it again."""
        flow = flow_or_target if isinstance(flow_or_target, Flow) else None
        try:
            if isinstance(flow_or_target, Target):
                flow = self._transports.flow_now(flow_or_target)
                if flow is None:
                    self._spawn(self._ack_later(ack, flow_or_target, via_host))
                    return
            if flow is not None:
                self._send_ack(ack, flow, via_host)
        except SipError as error:
            log.warning("event=ack-not-sent peer=%s reason=%s", flow_or_target, error.text)

    def _send_ack(self, ack: Request, flow: Flow, via_host: str | None) -> None:
        self._put_via(ack, flow, via_host, new_branch())
        flow.send(to_bytes(ack))

    async def _ack_later(self, ack: Request, target: Target, via_host: str | None) -> None:
        try:
            self._send_ack(ack, await self._transports.flow(target), via_host)
        except SipError as error:
            log.warning("event=ack-not-sent peer=%s reason=%s", target, error.text)

    # -- receiving

    def receive(self, message: Message, flow: Flow) -> None:
        """A message from the transport layer; never raises what a peer could cause."""
        if isinstance(message, Response):
            self._receive_response(message, flow)
        elif message.method == "ACK":
            self._receive_ack(message, flow)
        else:
            self._receive_request(message, flow)

    def _receive_response(self, response: Response, flow: Flow) -> None:
        via = response.top_via
        # sent-by as we wrote it, port or no port; more than one Via is somebody else's answer (8.1.3.3).
        written = via.host.lower() if via.port is None else f"{via.host.lower()}:{via.port}"
        if written not in self._sent_by or len(response.values("Via")) != 1:
            self.counters["response_not_ours"] += 1
            log.info("event=response-not-ours peer=%s code=%s", flow, response.code)
            return
        method = response.cseq.method
        transaction = self._clients.get((via.branch, method))
        if transaction is not None:
            self._guard(transaction.receive, response, flow)
        elif method == "INVITE" and 200 <= response.code < 300:
            self.stray(response, flow)
        else:
            self.counters["response_unmatched"] += 1

    def stray(self, response: Response, flow: Flow) -> None:
        """ClientHost: see TransactionUser.on_response_stray."""
        self._guard(self._user.on_response_stray, response, flow)

    def _receive_ack(self, ack: Request, flow: Flow) -> None:
        transaction = self._servers.get(_server_key(ack, ack.top_via, "INVITE"))
        if isinstance(transaction, InviteServerTransaction) and transaction.acknowledge():
            return
        self._guard(self._user.on_ack, ack, flow)

    def _receive_request(self, request: Request, flow: Flow) -> None:
        via = request.top_via
        key = _server_key(request, via, request.method)
        known = self._servers.get(key)
        if known is not None:
            known.retransmission()
            return
        cancel = request.method == "CANCEL"
        merge_key = None if cancel else _merge_key(request)
        if len(self._servers) >= self._limits.max_server and not cancel:
            self.counters["overload"] += 1
            busy = make_response(
                request,
                503,
                to_tag=stateless_tag(request),
                headers=[("Retry-After", str(self._limits.retry_after))],
            )
            self.send_response(busy, request, flow, _ignore_failure)
            return
        kind = InviteServerTransaction if request.method == "INVITE" else NonInviteServerTransaction
        transaction = kind(self, request, key, flow, merge_key)
        self._servers[key] = transaction
        self.counters["server"] += 1
        if cancel:
            self._cancel(transaction, via)
            return
        if merge_key is not None:
            if merge_key in self._merging:
                self.counters["merged"] += 1
                transaction.respond(make_response(request, 482, to_tag=transaction.local_tag))
                return
            self._merging[merge_key] = transaction
        transaction.begin()
        try:
            self._user.on_request(transaction)
        except Exception:
            self.counters["user_errors"] += 1
            log.exception("event=user-failed %s", transaction.label)
            if transaction.state in (State.TRYING, State.PROCEEDING):
                transaction.respond(make_response(request, 500, to_tag=transaction.local_tag))

    def _cancel(self, transaction: ServerTransaction, via: ViaValue) -> None:
        cancel = transaction.request
        invite = self._servers.get(_server_key(cancel, via, "INVITE"))
        if invite is None:
            self.counters["cancel_unmatched"] += 1
            transaction.respond(make_response(cancel, 481, to_tag=transaction.local_tag))
            return
        transaction.respond(make_response(cancel, 200, to_tag=invite.answer_tag))
        if invite.state is State.PROCEEDING:
            self._guard(self._user.on_cancel, invite, cancel)

    # -- what machines ask for

    def ended(self, machine: Machine) -> None:
        """Host: forget it."""
        if isinstance(machine, ClientTransaction):
            self._targets.pop(machine, None)
            if self._clients.get(machine.key) is machine:
                del self._clients[machine.key]
        elif isinstance(machine, ServerTransaction):
            if self._servers.get(machine.key) is machine:
                del self._servers[machine.key]
            if machine.merge_key is not None and self._merging.get(machine.merge_key) is machine:
                del self._merging[machine.merge_key]

    def send_response(
        self,
        response: Response | bytes,
        request: Request,
        flow: Flow,
        failed: Callable[[TransportError], None],
    ) -> None:
        """Host: to where 18.2.2 says."""
        data = response if isinstance(response, bytes) else to_bytes(response)
        self._transports.send_response(data, request, flow, failed)

    def _flow_closed(self, flow: Flow) -> None:
        for transaction in [known for known in self._clients.values() if known.flow is flow]:
            transaction.flow_closed()

    # -- housekeeping

    def _guard(self, call: Callable[[_M, _F], None], message: _M, flow: _F) -> None:
        try:
            call(message, flow)
        except Exception:
            self.counters["user_errors"] += 1
            log.exception("event=user-failed")

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Drop every machine without a word to anybody; call it after the sessions have ended."""
        for machine in [*self._clients.values(), *self._servers.values()]:
            machine.discard()
        self._clients.clear()
        self._servers.clear()
        self._merging.clear()
        self._targets.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _server_key(request: Request, via: ViaValue, method: str) -> tuple[str, ...]:
    """RFC 3261 17.2.3; without the cookie, or with nothing behind it, the rules of RFC 2543."""
    branch = via.branch
    if branch[: len(BRANCH_COOKIE)].lower() == BRANCH_COOKIE.lower() and len(branch) > len(BRANCH_COOKIE):
        return branch, via.sent_by, method
    return (
        branch,
        via.sent_by,
        method,
        request.uri_text,
        request.from_tag or "",
        request.call_id,
        str(request.cseq.sequence),
    )


def _merge_key(request: Request) -> tuple[str, ...] | None:
    """What two copies of a request that took different ways have in common (8.2.2.2); None inside a
    dialog.
    """
    from_tag = request.from_tag
    if from_tag is None or request.to_tag is not None:
        return None
    return from_tag, request.call_id, request.headers["CSeq"]


def _ignore_response(_: Response) -> None:
    """Nobody waits for the answer to a CANCEL."""


def _ignore_failure(_: SipError) -> None:
    """Nor for its failure."""
