"""Client transactions: RFC 3261 17.1 with the Accepted state of RFC 6026 7.2, and CANCEL (9.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from gateway.errors import SipError, TransactionTimeout, TransportError
from gateway.sip.message import Request, Response, make_request, to_bytes
from gateway.sip.transaction_machine import Event, Host, Machine, State, Table, event_of, log
from gateway.sip.transport_flow import Flow

OnResponse = Callable[[Response], None]
OnFailure = Callable[[SipError], None]


class ClientHost(Host, Protocol):
    def stray(self, response: Response, flow: Flow) -> None:
        """A 2xx that came where no machine may hand it up."""

    def start_cancel(self, cancel: Request, flow: Flow) -> None:
        """Send a CANCEL in a transaction of its own; nobody waits for its answer."""

    def resend(self, transaction: ClientTransaction) -> bool:
        """The kept connection was dead: try once more on a new one. False when that is not possible."""


class ClientTransaction(Machine):
    """A request of ours on its way. `request` carries the Via it was sent with."""

    def __init__(
        self,
        host: ClientHost,
        request: Request,
        key: tuple[str, ...],
        on_response: OnResponse,
        on_failure: OnFailure,
    ) -> None:
        super().__init__(host, request, key, State.CONNECTING)
        self._client_host = host
        self._on_response = on_response
        self._on_failure = on_failure
        self._data = b""
        self._interval = 0.0
        self._sent_at = 0.0
        self._done = False

    def start(self, flow: Flow) -> None:
        """Send the request for the first time."""
        self._use_flow(flow)
        try:
            self._data = to_bytes(self.request)
            flow.send(self._data)
        except SipError as error:
            self.fail(error)
            return
        self._sent_at = self._host.clock.now()
        self._advance(Event.SENT)
        self._sent(flow)

    def restart(self, flow: Flow) -> None:
        """The same bytes again on a fresh connection; timers run on."""
        self._use_flow(flow)
        self._sent_at = self._host.clock.now()
        try:
            flow.send(self._data)
        except TransportError as error:
            self.fail(error)

    def receive(self, response: Response, flow: Flow) -> None:
        raise NotImplementedError

    def _sent(self, flow: Flow) -> None:
        raise NotImplementedError

    def _resend(self) -> None:
        raise NotImplementedError

    def cancel(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Only an INVITE can be cancelled (9.1); for anything else nothing happens."""

    def flow_closed(self) -> None:
        """The connection broke. Unanswered: once more on a new one, then failure. With a provisional
        answer in hand the final one may still come on a connection of the peer's (18.2.2)."""
        if self.state in (State.CALLING, State.TRYING) and not self._client_host.resend(self):
            self.fail(TransportError(f"connection to {self.flow} was lost"))

    def fail(self, error: SipError) -> None:
        """End without a final response; `on_failure` is told, once, and never from inside `request()`."""
        if self.state is State.TERMINATED:
            return
        expecting = not self._done
        self._done = True
        self._advance(Event.TIMEOUT if isinstance(error, TransactionTimeout) else Event.TRANSPORT_ERROR)
        if expecting:
            self._host.clock.call_later(0, lambda: self._on_failure(error))

    def _deliver(self, response: Response) -> None:
        if response.code >= 200:
            self._done = True
        self._on_response(response)

    def _timed_out(self) -> None:
        self._unanswered()
        self.fail(TransactionTimeout(f"no answer to {self.request.method} from {self.flow}"))

    def _unanswered(self) -> None:
        """Given up while nothing was heard: that speaks against the connection, too."""
        if self.flow is not None and self.state in (State.CALLING, State.TRYING):
            self.flow.unanswered(self._sent_at)

    def _retransmit(self) -> None:
        flow = self.flow
        if flow is None:
            return
        try:
            flow.send(self._data)
        except TransportError as error:
            self.fail(error)

    def _expire(self) -> None:
        self._advance(Event.EXPIRED)

    def discard(self) -> None:
        self._done = True
        super().discard()


class InviteClientTransaction(ClientTransaction):
    """RFC 3261 17.1.1, RFC 6026 7.2."""

    name = "invite-client"
    table: ClassVar[Table] = {
        (State.CONNECTING, Event.SENT): State.CALLING,
        (State.CONNECTING, Event.GIVEN_UP): State.TERMINATED,
        (State.CONNECTING, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.CALLING, Event.RESEND): State.CALLING,
        (State.CALLING, Event.PROVISIONAL): State.PROCEEDING,
        (State.CALLING, Event.SUCCESS): State.ACCEPTED,
        (State.CALLING, Event.FAILURE): State.COMPLETED,
        (State.CALLING, Event.TIMEOUT): State.TERMINATED,
        (State.CALLING, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.PROCEEDING, Event.PROVISIONAL): State.PROCEEDING,
        (State.PROCEEDING, Event.SUCCESS): State.ACCEPTED,
        (State.PROCEEDING, Event.FAILURE): State.COMPLETED,
        (State.PROCEEDING, Event.TIMEOUT): State.TERMINATED,
        (State.PROCEEDING, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.COMPLETED, Event.FAILURE): State.COMPLETED,
        (State.COMPLETED, Event.EXPIRED): State.TERMINATED,
        (State.COMPLETED, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.ACCEPTED, Event.SUCCESS): State.ACCEPTED,
        (State.ACCEPTED, Event.EXPIRED): State.TERMINATED,
    }

    _cancel_headers: Sequence[tuple[str, str]] | None = None
    _cancel_sent = False

    def _sent(self, flow: Flow) -> None:
        timers = self._host.timers
        if not flow.reliable:
            self._interval = timers.a
            self._start_timer("A", self._interval, self._resend)
        self._start_timer("B", timers.b, self._timed_out)

    def _resend(self) -> None:
        self._advance(Event.RESEND)
        self._interval *= 2
        self._start_timer("A", self._interval, self._resend)
        self._retransmit()

    def receive(self, response: Response, flow: Flow) -> None:
        event = event_of(response.code)
        if not self._accepts(event):
            if event is Event.SUCCESS:
                self._client_host.stray(response, flow)
            return
        again = self.state is State.COMPLETED
        self._advance(event)
        if event is Event.PROVISIONAL:
            self._provisional(response)
        elif event is Event.SUCCESS:
            self._success(response)
        else:
            self._failure(response, flow, again)

    def _provisional(self, response: Response) -> None:
        self._stop_timer("A")
        if not self._cancel_sent:
            self._stop_timer("B")
        if self._cancel_headers is not None and not self._cancel_sent:
            self._send_cancel()
        self._deliver(response)

    def _success(self, response: Response) -> None:
        """Every 2xx goes up: another To tag is another fork, the same one wants its ACK again."""
        if "M" not in self._timers:
            self._clear_timers()
            self._start_timer("M", self._host.timers.m, self._expire)
        self._deliver(response)

    def _failure(self, response: Response, flow: Flow, again: bool) -> None:
        if not again:
            self._clear_timers()
            delay = 0.0 if flow.reliable else self._host.timers.d
            self._start_timer("D", delay, self._expire)
        self._acknowledge(response, flow)
        if not again:
            self._deliver(response)

    def _acknowledge(self, response: Response, flow: Flow) -> None:
        """17.1.1.3: same top Via, Route and CSeq number, the To of the answer."""
        request = self.request
        ack = make_request(
            "ACK",
            request.uri_text,
            from_=request.headers["From"],
            to=response.headers["To"],
            call_id=request.call_id,
            cseq=request.cseq.sequence,
            route=request.headers.getlist("Route"),
        )
        ack.charset = request.charset
        ack.headers.setlist("Via", request.headers.getlist("Via")[:1])
        way = self.flow if self.flow is not None and not self.flow.closed else flow
        try:
            way.send(to_bytes(ack))
        except SipError as error:
            log.info("event=ack-not-sent %s reason=%s", self.label, error.text)

    def cancel(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send CANCEL now, or as soon as a provisional response allows it (9.1); after a final one do
        nothing.

        Still waiting for the connection: the INVITE is not sent at all, `on_failure` gets a 487. No final
        answer within 64*T1 after the CANCEL: `on_failure` gets a TransactionTimeout.
        """
        if self._cancel_headers is not None or self._done:
            return
        self._cancel_headers = tuple(headers)
        if self.state is State.CONNECTING:
            self._done = True
            self._advance(Event.GIVEN_UP)
            error = SipError(487, "cancelled before it was sent")
            self._host.clock.call_later(0, lambda: self._on_failure(error))
        elif self.state is State.PROCEEDING:
            self._send_cancel()
        else:
            self._unanswered()

    def flow_closed(self) -> None:
        """Cancelled and never answered: sent again on a new connection it would only ring now."""
        if self._cancel_headers is not None and self.state is State.CALLING:
            self.fail(SipError(487, f"cancelled, and the connection to {self.flow} was lost"))
        else:
            super().flow_closed()

    def _send_cancel(self) -> None:
        flow = self.flow
        if flow is None:
            return
        self._cancel_sent = True
        request = self.request
        cancel = make_request(
            "CANCEL",
            request.uri_text,
            from_=request.headers["From"],
            to=request.headers["To"],
            call_id=request.call_id,
            cseq=request.cseq.sequence,
            route=request.headers.getlist("Route"),
            headers=self._cancel_headers or (),
        )
        cancel.headers.setlist("Via", request.headers.getlist("Via")[:1])
        self._start_timer("B", self._host.timers.b, self._timed_out)
        self._client_host.start_cancel(cancel, flow)


class NonInviteClientTransaction(ClientTransaction):
    """RFC 3261 17.1.2."""

    name = "non-invite-client"
    table: ClassVar[Table] = {
        (State.CONNECTING, Event.SENT): State.TRYING,
        (State.CONNECTING, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.TRYING, Event.RESEND): State.TRYING,
        (State.TRYING, Event.PROVISIONAL): State.PROCEEDING,
        (State.TRYING, Event.SUCCESS): State.COMPLETED,
        (State.TRYING, Event.FAILURE): State.COMPLETED,
        (State.TRYING, Event.TIMEOUT): State.TERMINATED,
        (State.TRYING, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.PROCEEDING, Event.RESEND): State.PROCEEDING,
        (State.PROCEEDING, Event.PROVISIONAL): State.PROCEEDING,
        (State.PROCEEDING, Event.SUCCESS): State.COMPLETED,
        (State.PROCEEDING, Event.FAILURE): State.COMPLETED,
        (State.PROCEEDING, Event.TIMEOUT): State.TERMINATED,
        (State.PROCEEDING, Event.TRANSPORT_ERROR): State.TERMINATED,
        (State.COMPLETED, Event.EXPIRED): State.TERMINATED,
    }

    def _sent(self, flow: Flow) -> None:
        timers = self._host.timers
        if not flow.reliable:
            self._interval = timers.e
            self._start_timer("E", self._interval, self._resend)
        self._start_timer("F", timers.f, self._timed_out)

    def _resend(self) -> None:
        self._advance(Event.RESEND)
        t2 = self._host.timers.t2
        self._interval = t2 if self.state is State.PROCEEDING else min(2 * self._interval, t2)
        self._start_timer("E", self._interval, self._resend)
        self._retransmit()

    def receive(self, response: Response, flow: Flow) -> None:
        event = event_of(response.code)
        if not self._accepts(event):
            return
        self._advance(event)
        if event is not Event.PROVISIONAL:
            self._clear_timers()
            self._start_timer("K", 0.0 if flow.reliable else self._host.timers.k, self._expire)
        self._deliver(response)
