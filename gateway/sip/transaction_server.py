"""Server transactions: RFC 3261 17.2 with the Accepted state of RFC 6026 7.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from gateway.errors import MessageError, TransportError
from gateway.sip.message import Request, Response, make_response, new_tag, to_bytes
from gateway.sip.transaction_machine import Event, Host, Machine, State, Table, event_of, log
from gateway.sip.transport_flow import Flow


class ServerHost(Host, Protocol):
    def send_response(
        self,
        response: Response | bytes,
        request: Request,
        flow: Flow,
        failed: Callable[[TransportError], None],
    ) -> None:
        """By RFC 3261 18.2.2; `failed` may be called at once or later."""


class ServerTransaction(Machine):
    """A request that arrived. `flow` is where it came from, `local_tag` a To tag for whoever has no
    dialog.
    """

    flow: Flow

    def __init__(
        self,
        host: ServerHost,
        request: Request,
        key: tuple[str, ...],
        flow: Flow,
        merge_key: tuple[str, ...] | None,
    ) -> None:
        super().__init__(host, request, key, self.first_state)
        self._server_host = host
        self.merge_key = merge_key
        self.local_tag = new_tag()
        self._last: bytes | None = None
        self._answer_tag: str | None = None
        self._use_flow(flow)

    first_state = State.TRYING

    @property
    def answer_tag(self) -> str:
        """The To tag of what was answered so far, else `local_tag`: a CANCEL's 200 carries the same (9.2)."""
        return self._answer_tag or self.local_tag

    def respond(self, response: Response) -> None:
        """Send a response and keep it for retransmissions.

        Ignored when the transaction has ended (time, transport): the race is nobody's mistake.
        IllegalTransition for a second final response; MessageError(500) when the response cannot be
        written.
        """
        if self.state is State.TERMINATED:
            log.debug("event=late-response %s code=%s", self.label, response.code)
            return
        data = to_bytes(response)
        self._advance(event_of(response.code))
        self._last = data
        if response.code > 100:
            try:
                self._answer_tag = response.to_tag
            except MessageError:
                self._answer_tag = None
        self._transmit()
        self._responded(response)

    def retransmission(self) -> None:
        """The request came again: the last response goes out again, the user is not bothered."""
        if not self._accepts(Event.RETRANSMISSION):
            return
        self._advance(Event.RETRANSMISSION)
        if self.state is not State.ACCEPTED:
            self._transmit()

    def ignore(self) -> None:
        """Never answer, and forget the request: the sender has no business here."""
        self._advance(Event.GIVEN_UP)

    def _responded(self, response: Response) -> None:
        raise NotImplementedError

    def _transmit(self) -> None:
        if self._last is not None:
            self._server_host.send_response(self._last, self.request, self.flow, self._transport_failed)

    def _transport_failed(self, error: TransportError) -> None:
        log.info("event=response-not-sent %s peer=%s reason=%s", self.label, self.flow, error.text)
        if self._accepts(Event.TRANSPORT_ERROR):
            self._advance(Event.TRANSPORT_ERROR)

    def _expire(self) -> None:
        self._advance(Event.EXPIRED)


class InviteServerTransaction(ServerTransaction):
    """RFC 3261 17.2.1, RFC 6026 7.1. In ACCEPTED the user repeats its 2xx with `respond` until the ACK
    comes.
    """

    name = "invite-server"
    first_state = State.PROCEEDING
    table: ClassVar[Table] = {
        (State.PROCEEDING, Event.RETRANSMISSION): State.PROCEEDING,
        (State.PROCEEDING, Event.PROVISIONAL): State.PROCEEDING,
        (State.PROCEEDING, Event.SUCCESS): State.ACCEPTED,
        (State.PROCEEDING, Event.FAILURE): State.COMPLETED,
        (State.PROCEEDING, Event.TRANSPORT_ERROR): State.PROCEEDING,
        (State.PROCEEDING, Event.GIVEN_UP): State.TERMINATED,
        (State.COMPLETED, Event.RETRANSMISSION): State.COMPLETED,
        (State.COMPLETED, Event.RESEND): State.COMPLETED,
        (State.COMPLETED, Event.ACK): State.CONFIRMED,
        (State.COMPLETED, Event.TIMEOUT): State.TERMINATED,
        (State.COMPLETED, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.CONFIRMED, Event.ACK): State.CONFIRMED,
        (State.CONFIRMED, Event.EXPIRED): State.TERMINATED,
        (State.ACCEPTED, Event.SUCCESS): State.ACCEPTED,
        (State.ACCEPTED, Event.RETRANSMISSION): State.ACCEPTED,
        (State.ACCEPTED, Event.TRANSPORT_ERROR): State.ACCEPTED,
        (State.ACCEPTED, Event.EXPIRED): State.TERMINATED,
    }
    _interval = 0.0

    def begin(self) -> None:
        """Arm the automatic 100 Trying; called before the user sees the request."""
        self._start_timer("100", self._host.timers.trying_after, self._trying)

    def _trying(self) -> None:
        self.respond(make_response(self.request, 100))

    def _responded(self, response: Response) -> None:
        self._stop_timer("100")
        timers = self._host.timers
        if self.state is State.ACCEPTED and "L" not in self._timers:
            self._start_timer("L", timers.l, self._expire)
        elif self.state is State.COMPLETED:
            if not self.flow.reliable:
                self._interval = timers.g
                self._start_timer("G", self._interval, self._resend)
            self._start_timer("H", timers.h, self._no_ack)

    def _resend(self) -> None:
        self._advance(Event.RESEND)
        self._interval = min(2 * self._interval, self._host.timers.t2)
        self._start_timer("G", self._interval, self._resend)
        self._transmit()

    def _no_ack(self) -> None:
        log.info("event=no-ack %s peer=%s", self.label, self.flow)
        self._advance(Event.TIMEOUT)

    def acknowledge(self) -> bool:
        """An ACK matched. False when it belongs to the user: in ACCEPTED it confirms a 2xx (RFC 6026 7.1)."""
        if self.state in (State.ACCEPTED, State.PROCEEDING):
            return False
        first = self.state is State.COMPLETED
        if self._accepts(Event.ACK):
            self._advance(Event.ACK)
        if first:
            self._clear_timers()
            self._start_timer("I", 0.0 if self.flow.reliable else self._host.timers.i, self._expire)
        return True


class NonInviteServerTransaction(ServerTransaction):
    """RFC 3261 17.2.2."""

    name = "non-invite-server"
    first_state = State.TRYING
    table: ClassVar[Table] = {
        (State.TRYING, Event.RETRANSMISSION): State.TRYING,
        (State.TRYING, Event.PROVISIONAL): State.PROCEEDING,
        (State.TRYING, Event.SUCCESS): State.COMPLETED,
        (State.TRYING, Event.FAILURE): State.COMPLETED,
        (State.TRYING, Event.GIVEN_UP): State.TERMINATED,
        (State.PROCEEDING, Event.RETRANSMISSION): State.PROCEEDING,
        (State.PROCEEDING, Event.PROVISIONAL): State.PROCEEDING,
        (State.PROCEEDING, Event.SUCCESS): State.COMPLETED,
        (State.PROCEEDING, Event.FAILURE): State.COMPLETED,
        (State.PROCEEDING, Event.GIVEN_UP): State.TERMINATED,
        (State.PROCEEDING, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.COMPLETED, Event.RETRANSMISSION): State.COMPLETED,
        (State.COMPLETED, Event.EXPIRED): State.TERMINATED,
        (State.COMPLETED, Event.TRANSPORT_ERROR): State.TERMINATED,
    }

    def begin(self) -> None:
        """After 64*T1 the client has given up; an answer would only confuse (RFC 4320 4.2)."""
        self._start_timer("abandon", self._host.timers.f, self._abandon)

    def _abandon(self) -> None:
        log.warning("event=request-never-answered %s peer=%s", self.label, self.flow)
        self._advance(Event.GIVEN_UP)

    def _responded(self, response: Response) -> None:
        if self.state is State.COMPLETED:
            self._stop_timer("abandon")
            self._start_timer("J", 0.0 if self.flow.reliable else self._host.timers.j, self._expire)
