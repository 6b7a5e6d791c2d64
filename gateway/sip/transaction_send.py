"""The sending half of the transaction layer: Via, connections, the switch to TCP, CANCEL and ACK."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import MessageError, SipError, TransportError
from gateway.sip.message import Request, Response, ViaValue, new_branch, to_bytes
from gateway.sip.transaction_client import (
    ClientTransaction,
    InviteClientTransaction,
    NonInviteClientTransaction,
    OnFailure,
    OnResponse,
)
from gateway.sip.transaction_machine import Machine, State, log
from gateway.sip.transaction_timers import Timers
from gateway.sip.transaction_waiting import Connections, Waiting
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import UDP_SWITCH_SIZE, Target, TransportKind

MAX_SENT_BY = 256
SWITCH_LIMIT = 1.5
"""Seconds a large request for UDP waits for its TCP connection; a firewall may drop that without a word, and
by `gateway.trunks.hunting.SILENCE` the request must have been answered by UDP."""
WITHOUT_TCP = 300.0
"""Seconds such a peer's large requests go by UDP at once, unless the connection came about after all."""
MAX_WITHOUT_TCP = 1024


class Transports(Connections, Protocol):
    """What transactions need of gateway.sip.transport.TransportLayer."""

    on_closed: Callable[[Flow], None] | None

    def sent_by(self, flow: Flow, via_host: str | None) -> str:
        """host[:port] for a Via on this flow: where a response finds us when the connection is gone."""
        ...

    def send_response(
        self, data: bytes, request: Request, flow: Flow, failed: Callable[[TransportError], None]
    ) -> None:
        """By RFC 3261 18.2.2 and RFC 3581; `failed` at once or later, at most once."""
        ...


class ClientSide:
    """Every client transaction and what it takes to send for them; the ClientHost of its machines."""

    def __init__(
        self,
        transports: Transports,
        clock: Clock,
        timers: Timers,
        counters: Counter[str],
        stray: Callable[[Response, Flow], None],
    ) -> None:
        self.clock = clock
        self.timers = timers
        self.stray = stray
        self._transports = transports
        self._counters = counters
        self._clients: dict[tuple[str, ...], ClientTransaction] = {}
        self._targets: dict[ClientTransaction, tuple[Target, str]] = {}
        self._sent_by: OrderedDict[str, None] = OrderedDict()
        self._without_tcp: OrderedDict[Target, float] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = Waiting(transports, self._spawn)

    @property
    def active(self) -> int:
        return len(self._clients) + len(self._tasks)

    def is_ours(self, via: ViaValue) -> bool:
        """Did we write this sent-by (18.1.2)? Compared as written: port or no port."""
        written = via.host.lower() if via.port is None else f"{via.host.lower()}:{via.port}"
        return written in self._sent_by

    def find(self, branch: str, method: str) -> ClientTransaction | None:
        return self._clients.get((branch, method))

    def flow_closed(self, flow: Flow) -> None:
        for transaction in [known for known in self._clients.values() if known.flow is flow]:
            transaction.flow_closed()

    def ended(self, machine: Machine) -> None:
        """Host: forget it."""
        if isinstance(machine, ClientTransaction):
            self._targets.pop(machine, None)
            if self._clients.get(machine.key) is machine:
                del self._clients[machine.key]

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
        """Send `request` in a transaction of its own; its Via is put on here (sent-by `via_host` or our
        address).

        `on_failure` gets TransactionTimeout or TransportError exactly once and never after a final
        response; none of the two is called before this returns, unless the peer's answer is quicker than
        the loop. A 2xx to an INVITE is handed up each time it comes. With `tcp_switch` a request over
        1,300 bytes for UDP goes by TCP and falls back when that is refused (18.1.1) or takes longer than
        SWITCH_LIMIT. `branch`: of its Via, when it was written down before.
        """
        key = (branch or new_branch(), request.method)
        kind = InviteClientTransaction if request.method == "INVITE" else NonInviteClientTransaction
        transaction = kind(self, request, key, on_response, on_failure)
        self._clients[key] = transaction
        self._counters["client"] += 1
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
            flow = self._waiting.flow_now(way)
        except TransportError as error:
            transaction.fail(error)
            return
        if flow is None:
            self._waiting.when_connected(
                way, lambda made: self._start(transaction, made, via_host), transaction.fail
            )
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
        try:
            self._put_via(transaction.request, flow, via_host, transaction.key[0])
        except TransportError as error:
            transaction.fail(error)
            return
        transaction.start(flow)

    def _put_via(self, request: Request, flow: Flow, via_host: str | None, branch: str) -> None:
        sent_by = self._transports.sent_by(flow, via_host)
        self.know(sent_by)
        protocol = flow.kind.upper()
        request.headers.setlist("Via", [f"SIP/2.0/{protocol} {sent_by};branch={branch};rport"])

    def know(self, sent_by: str) -> None:
        """Responses with this sent-by are answers to us (18.1.2)."""
        self._sent_by[sent_by.lower()] = None
        self._sent_by.move_to_end(sent_by.lower())
        if len(self._sent_by) > MAX_SENT_BY:
            self._sent_by.popitem(last=False)

    async def _switch_to_tcp(
        self, transaction: ClientTransaction, way: Flow | Target, via_host: str | None
    ) -> None:
        if isinstance(way, Target):
            by_tcp = Target(TransportKind.TCP, way.address, way.port, way.name)
        else:
            by_tcp = Target(TransportKind.TCP, *way.remote)
        try:
            flow = await self._switched(by_tcp)
            self._counters["tcp_switched"] += 1
        except TransportError as refused:
            self._counters["tcp_refused"] += 1
            log.info("event=tcp-refused peer=%s reason=%s fallback=udp", by_tcp, refused.text)
            self._begin(transaction, way, via_host, tcp_switch=False)
            return
        self._start(transaction, flow, via_host)

    async def _switched(self, by_tcp: Target) -> Flow:
        """The connection; TransportError when it is refused, slow, or was slow a short while ago."""
        flow = self._transports.flow_now(by_tcp)
        if flow is not None:
            return flow
        now = self.clock.now()
        if self._without_tcp.get(by_tcp, 0.0) > now:
            raise TransportError("no answer to TCP before")
        try:
            async with asyncio.timeout(SWITCH_LIMIT):
                return await self._transports.flow(by_tcp)
        except TimeoutError:
            self._without_tcp[by_tcp] = now + WITHOUT_TCP
            self._without_tcp.move_to_end(by_tcp)
            if len(self._without_tcp) > MAX_WITHOUT_TCP:
                self._without_tcp.popitem(last=False)
            raise TransportError(f"no TCP connection within {SWITCH_LIMIT:g} s") from None

    def resend(self, transaction: ClientTransaction) -> bool:
        """ClientHost: once more on a new connection; the same branch makes it a retransmission for the
        peer.
        """
        target, via = self._targets.pop(transaction, (None, ""))
        if target is None:
            return False
        self._counters["retried"] += 1

        def again(flow: Flow) -> None:
            if transaction.state is not State.TERMINATED:
                log.info("event=resent %s via=%r peer=%s", transaction.label, via, target)
                transaction.restart(flow)

        self._waiting.when_connected(target, again, transaction.fail)
        return True

    def start_cancel(self, cancel: Request, flow: Flow) -> None:
        """ClientHost: the CANCEL has the INVITE's Via, so its branch is known already. It goes where the
        INVITE went (9.1), by a new connection when that one is gone or dies under it.
        """
        key = (cancel.top_via.branch, "CANCEL")

        def failed(error: SipError) -> None:
            log.warning("event=cancel-not-sent %s reason=%s", transaction.label, error.text)

        transaction = NonInviteClientTransaction(self, cancel, key, _ignore_response, failed)
        self._clients[key] = transaction
        target = flow.target
        if target is None or not flow.closed:
            transaction.start(flow)
            if target is not None and transaction.state is not State.TERMINATED:
                self._targets[transaction] = (target, cancel.headers["Via"])
            return
        self._waiting.when_connected(target, transaction.start, transaction.fail)

    def send_ack(self, ack: Request, flow_or_target: Flow | Target, via_host: str | None = None) -> None:
        """The ACK for a 2xx: no transaction, straight to the transport (13.2.2.4). Failure is logged: the
        peer's repeated 2xx asks for it again."""

        def failed(error: SipError) -> None:
            log.warning("event=ack-not-sent peer=%s reason=%s", flow_or_target, error.text)

        flow = flow_or_target if isinstance(flow_or_target, Flow) else None
        try:
            if isinstance(flow_or_target, Target):
                flow = self._waiting.flow_now(flow_or_target)
                if flow is None:
                    self._waiting.when_connected(
                        flow_or_target, lambda made: self._send_ack(ack, made, via_host), failed
                    )
                    return
            if flow is not None:
                self._send_ack(ack, flow, via_host)
        except SipError as error:
            failed(error)

    def _send_ack(self, ack: Request, flow: Flow, via_host: str | None) -> None:
        self._put_via(ack, flow, via_host, new_branch())
        flow.send(to_bytes(ack))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Forget every machine and end what waits for a connection."""
        for machine in self._clients.values():
            machine.discard()
        self._clients.clear()
        self._targets.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ignore_response(_: Response) -> None:
    """Nobody waits for the answer to a CANCEL."""


def ignore_failure(_: SipError) -> None:
    """Nor for its failure."""
