"""The transaction layer (RFC 3261 17): matches messages to machines, hands what is new to the user.

Its own duties on the way: 481 for a CANCEL that matches nothing (9.2), 482 for merged requests (8.2.2.2),
503 when there are too many transactions, silence for responses that answer nothing of ours (18.1.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeVar

from gateway.clock import Clock
from gateway.errors import TransportError
from gateway.sip.message import (
    BRANCH_COOKIE,
    Message,
    Request,
    Response,
    ViaValue,
    make_response,
    stateless_tag,
    to_bytes,
)
from gateway.sip.transaction_client import (
    ClientTransaction,
    OnFailure,
    OnResponse,
)
from gateway.sip.transaction_machine import Machine, State, log
from gateway.sip.transaction_send import ClientSide, Transports, ignore_failure
from gateway.sip.transaction_server import (
    InviteServerTransaction,
    NonInviteServerTransaction,
    ServerTransaction,
)
from gateway.sip.transaction_timers import Timers, TransactionLimits
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target

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

_M = TypeVar("_M")
_F = TypeVar("_F")


class TransactionUser(Protocol):
    """The layer above. Called in the loop's thread; an exception is logged and answered with 500."""

    def on_request(self, transaction: ServerTransaction) -> None:
        """A new request, neither ACK nor CANCEL. It must be answered with `transaction.respond`, or be left
        unanswered for good with `transaction.ignore`.
        """
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
        self._sending = ClientSide(transports, clock, self.timers, self.counters, self._stray)
        self._servers: dict[tuple[str, ...], ServerTransaction] = {}
        self._merging: dict[tuple[str, ...], ServerTransaction] = {}
        transports.on_closed = self._sending.flow_closed

    @property
    def active(self) -> int:
        """Machines that have not terminated, and sends that wait for a connection."""
        return len(self._servers) + self._sending.active

    # -- sending

    def request(
        self,
        request: Request,
        flow_or_target: Flow | Target,
        *,
        via_host: str | None = None,
        tcp_switch: bool = False,
        branch: str = "",
        on_response: OnResponse,
        on_failure: OnFailure,
    ) -> ClientTransaction:
        """See ClientSide.request."""
        return self._sending.request(
            request,
            flow_or_target,
            via_host=via_host,
            tcp_switch=tcp_switch,
            branch=branch,
            on_response=on_response,
            on_failure=on_failure,
        )

    def send_ack(self, ack: Request, flow_or_target: Flow | Target, via_host: str | None = None) -> None:
        """See ClientSide.send_ack."""
        self._sending.send_ack(ack, flow_or_target, via_host)

    def know(self, sent_by: str) -> None:
        """An earlier process wrote this sent-by: answers to its requests are ours, too."""
        self._sending.know(sent_by)

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
        # More than one Via is somebody else's answer (8.1.3.3).
        if not self._sending.is_ours(via) or len(response.values("Via")) != 1:
            self.counters["response_not_ours"] += 1
            log.info("event=response-not-ours peer=%s code=%s", flow, response.code)
            return
        method = response.cseq.method
        transaction = self._sending.find(via.branch, method)
        if transaction is not None:
            self._guard(transaction.receive, response, flow)
        elif method == "INVITE" and 200 <= response.code < 300:
            self._stray(response, flow)
        else:
            self.counters["response_unmatched"] += 1

    def _stray(self, response: Response, flow: Flow) -> None:
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
            self.send_response(busy, request, flow, ignore_failure)
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

    def revive(self, invite: Request, flow: Flow) -> ServerTransaction:
        """The transaction of an INVITE that an earlier process took and left unanswered; it waits for a final
        response. A retransmission finds it and makes no second call.
        """
        key = _server_key(invite, invite.top_via, "INVITE")
        transaction = InviteServerTransaction(self, invite, key, flow, None)
        self._servers[key] = transaction
        self.counters["server"] += 1
        transaction.begin()
        return transaction

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
        if isinstance(machine, ServerTransaction):
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

    # -- housekeeping

    def _guard(self, call: Callable[[_M, _F], None], message: _M, flow: _F) -> None:
        try:
            call(message, flow)
        except Exception:
            self.counters["user_errors"] += 1
            log.exception("event=user-failed")

    async def close(self) -> None:
        """Drop every machine without a word to anybody; call it after the sessions have ended."""
        for machine in self._servers.values():
            machine.discard()
        self._servers.clear()
        self._merging.clear()
        await self._sending.close()


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
