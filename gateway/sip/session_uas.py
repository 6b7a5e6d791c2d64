"""The INVITE that starts a session, as server (RFC 3261 13.3): provisional and reliable answers, 2xx, ACK,
CANCEL.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.clock import TimerHandle
from gateway.errors import IllegalTransition
from gateway.sip.message import Request, Response, make_response
from gateway.sip.session_acks import Repeater, respond
from gateway.sip.session_events import Cancelled, Confirmed, Ended, OfferAnswered
from gateway.sip.session_ports import Headers, ServerTransactionPort
from gateway.sip.session_state import Edge, OfferEdge, OfferState, SessionState
from gateway.sip.session_timer import SessionTimer
from gateway.sip.session_uac import description_or_none
from gateway.sip.session_values import SDP_TYPE, cseq_of, extra_headers, positive_int

if TYPE_CHECKING:
    from gateway.sip.session import Session

log = logging.getLogger("tandem.sip")

REPEAT_PROVISIONAL = 60.0
"""Seconds between repeats of an unreliable 18x, so that proxies on the way do not time out (RFC 3261
13.3.1.1).
"""
_RACK = re.compile(r"\s*(\d{1,10})\s+(\d{1,10})\s+([A-Za-z]+)\s*")


@dataclass(slots=True)
class _Reliable:
    rseq: int
    response: Response
    has_sdp: bool
    repeater: Repeater | None = None


class InviteServer:
    """The peer's INVITE and every answer of ours to it, to the ACK."""

    def __init__(
        self,
        session: Session,
        transaction: ServerTransactionPort,
        granted: SessionTimer,
        timer_headers: Headers,
    ) -> None:
        self._session = session
        self._transaction = transaction
        self._granted = granted
        self._timer_headers = timer_headers
        self._rseq = session.agent.random.randrange(1, 2**31 - 2**16)
        self._unacknowledged: _Reliable | None = None
        self._queue: deque[_Reliable] = deque()
        self._held_accept: Callable[[], None] | None = None
        self._repeat: TimerHandle | None = None
        self._expiry: TimerHandle | None = None
        self._late_offer = session.remote_offer is None
        if not self._late_offer:
            session.offers.advance(OfferEdge.REMOTE_OFFER)
        seconds = positive_int(transaction.request.headers, "Expires")
        if seconds:
            self._expiry = session.clock.call_later(float(seconds), self._expired)

    @property
    def transaction(self) -> ServerTransactionPort:
        return self._transaction

    @property
    def request(self) -> Request:
        return self._transaction.request

    def provisional(self, code: int, phrase: str | None, sdp: bytes | None, headers: Headers) -> None:
        """A 1xx; reliable when the peer requires it, or supports it and the profile wants it (RFC 3262 3)."""
        session = self._session
        if not 100 <= code < 200:
            raise IllegalTransition("invite server", session.state, f"provisional {code}")
        session.advance(Edge.PROVISIONAL)
        if code == 100:
            respond(self._transaction, make_response(self.request, 100, phrase))
            return
        if session.offers.stable and self._answered_reliably:
            sdp = None
        if self._is_reliable():
            self._rseq += 1
            extra = [("RSeq", str(self._rseq)), ("Require", "100rel")]
            response = self._response(code, phrase, sdp, headers, extra)
            self._queue.append(_Reliable(self._rseq, response, sdp is not None))
            if sdp is not None:
                self._describe(sdp)
            self._send_reliable()
            return
        if self._late_offer and sdp is not None:
            log.info("sdp_left_out call_id=%s code=%d cause=late_offer", session.dialog.call_id, code)
            sdp = None
        response = self._response(code, phrase, sdp, headers, [])
        respond(self._transaction, response)
        self._repeat_later(response)

    def accept(self, sdp: bytes, headers: Headers) -> None:
        """The 2xx; waits for the PRACK of a reliable 18x that carries SDP (RFC 3262 3)."""
        if self._held_accept is not None:
            raise IllegalTransition("invite server", self._session.state, "accept twice")
        if self._waits_for_prack():
            self._held_accept = lambda: self._accept(sdp, headers)
        else:
            self._accept(sdp, headers)

    def answer(self, sdp: bytes) -> Response:
        """The 2xx as `accept` sends it, for the record of a session that is about to be accepted."""
        return self._response(200, None, sdp, (), list(self._timer_headers))

    @property
    def granted(self) -> SessionTimer:
        """The session timer that the 2xx grants."""
        return self._granted

    def reject(self, code: int, phrase: str | None, headers: Headers) -> None:
        session = self._session
        self._stop()
        session.advance(Edge.FAIL)
        respond(self._transaction, self._final(code, phrase, headers))
        session.finish(None)

    def cancelled(self, request: Request) -> None:
        """CANCEL, or BYE on the early dialog: 487 to the INVITE (RFC 3261 9.2, 15.1.2)."""
        session = self._session
        self._stop()
        session.advance(Edge.CANCEL if request.method != "BYE" else Edge.BYE_RECEIVED)
        respond(self._transaction, self._final(487, None, ()))
        session.finish(Cancelled(request))

    def prack(self, transaction: ServerTransactionPort) -> None:
        """A PRACK: match it, confirm the 18x, take in an answer or an offer (RFC 3262 3, 5)."""
        session = self._session
        match = _RACK.fullmatch(transaction.request.headers.get("RAck") or "")
        waiting = self._unacknowledged
        if (
            match is None
            or waiting is None
            or int(match.group(1)) != waiting.rseq
            or int(match.group(2)) != cseq_of(self.request)
            or match.group(3).upper() != "INVITE"
        ):
            session.refuse(transaction, 400 if match is None else 481)
            return
        if waiting.repeater is not None:
            waiting.repeater.stop()
        self._unacknowledged = None
        self._take_prack_body(transaction)
        self._send_reliable()
        self.release()

    def release(self) -> None:
        """Go on with an accept() that had to wait."""
        if self._held_accept is None or self._waits_for_prack() or self._session.over:
            return
        held, self._held_accept = self._held_accept, None
        held()

    def stop(self) -> None:
        self._stop()

    def _take_prack_body(self, transaction: ServerTransactionPort) -> None:
        session = self._session
        sdp = description_or_none(transaction.request)
        if sdp is not None and session.offers.stable:
            session.changes_in.offered_in_prack(transaction, sdp)
            return
        respond(transaction, session.response(transaction.request, 200))
        if sdp is not None and session.offers.state is OfferState.LOCAL:
            session.offers.advance(OfferEdge.REMOTE_ANSWER)
            session.dialog.remote_sdp = sdp
            session.emit(OfferAnswered(sdp))

    @property
    def _answered_reliably(self) -> bool:
        return bool(self._session.dialog.local_sdp)

    def _is_reliable(self) -> bool:
        mode = self._session.profile.reliable_provisional
        if mode == "never":
            return False
        if "100rel" in self.request.tokens("Require"):
            return True
        return mode == "when-supported" and "100rel" in self.request.tokens("Supported")

    def _describe(self, sdp: bytes) -> None:
        """SDP that is on its way for good: the answer, or our offer to an offerless INVITE."""
        session = self._session
        dialog = session.dialog
        if session.offers.state is OfferState.REMOTE:
            session.offers.advance(OfferEdge.LOCAL_ANSWER)
            dialog.remote_sdp = session.remote_offer or b""
        elif session.offers.stable:
            session.offers.advance(OfferEdge.LOCAL_OFFER)
        dialog.local_sdp = sdp

    def _send_reliable(self) -> None:
        if self._unacknowledged is not None or not self._queue:
            return
        reliable = self._unacknowledged = self._queue.popleft()
        reliable.repeater = Repeater(
            self._session.clock,
            self._session.timers,
            lambda: respond(self._transaction, reliable.response),
            self._prack_missing,
        )
        respond(self._transaction, reliable.response)

    def _waits_for_prack(self) -> bool:
        """An offer/answer exchange in 18x and PRACK is not complete."""
        if self._session.changes_in.pending:
            return True
        pending = [self._unacknowledged] if self._unacknowledged is not None else []
        return any(reliable.has_sdp for reliable in (*pending, *self._queue))

    def _accept(self, sdp: bytes, headers: Headers) -> None:
        session = self._session
        self._settle()
        body: bytes | None = sdp
        if session.offers.stable and self._answered_reliably:
            body = None
        else:
            self._describe(sdp)
        session.advance(Edge.ACCEPT)
        session.dialog.confirmed = True
        session.dialog.timer = self._granted
        response = self._response(200, None, body, headers, list(self._timer_headers))
        session.unacked.send(self._transaction, response, self._acknowledged)
        session.restart_timer()

    def _acknowledged(self, ack: Request) -> None:
        session = self._session
        if session.state is not SessionState.ACCEPTED:
            return
        session.advance(Edge.ACK)
        answer: bytes | None = None
        if session.offers.state is OfferState.LOCAL:
            answer = description_or_none(ack)
            if answer is None:
                session.offers.advance(OfferEdge.WITHDRAWN)
                session.bye_because(Ended("error", None, 488), "no answer in the ACK")
                return
            session.offers.advance(OfferEdge.REMOTE_ANSWER)
            session.dialog.remote_sdp = answer
        session.emit(Confirmed(answer))

    def _response(
        self,
        code: int,
        phrase: str | None,
        sdp: bytes | None,
        headers: Headers,
        own: list[tuple[str, str]],
    ) -> Response:
        return self._session.response(
            self.request,
            code,
            phrase,
            headers=[*own, *self._session.profile.capabilities(response=True), *extra_headers(headers)],
            body=sdp or b"",
            content_type=SDP_TYPE if sdp else None,
            contact=True,
        )

    def _final(self, code: int, phrase: str | None, headers: Headers) -> Response:
        session = self._session
        contact = [
            (name, value) for name, value in headers if name.lower() == "contact" and 300 <= code < 400
        ]
        return session.response(
            self.request,
            code,
            phrase,
            headers=[*contact, *session.profile.identity(response=True), *extra_headers(headers)],
        )

    def _prack_missing(self) -> None:
        """64*T1 without PRACK: the INVITE is refused (RFC 3262 3)."""
        session = self._session
        log.warning("prack_missing call_id=%s", session.dialog.call_id)
        self._stop()
        session.advance(Edge.FAIL)
        respond(self._transaction, self._final(504, None, ()))
        session.finish(Ended("timeout", None, 504))

    def _expired(self) -> None:
        """The peer's Expires passed without an answer (RFC 3261 13.3.1): as if it had cancelled."""
        if self._session.state is SessionState.INCOMING:
            self.cancelled(self.request)

    def _repeat_later(self, response: Response) -> None:
        if self._repeat is not None:
            self._repeat.cancel()

        def again() -> None:
            respond(self._transaction, response)
            self._repeat_later(response)

        self._repeat = self._session.clock.call_later(REPEAT_PROVISIONAL, again)

    def _stop(self) -> None:
        self._settle()
        self._unacknowledged = None

    def _settle(self) -> None:
        """A final response ends all repeats; the PRACK of the last reliable 18x may still come (RFC 3262
        3).
        """
        if self._unacknowledged is not None and self._unacknowledged.repeater is not None:
            self._unacknowledged.repeater.stop()
        self._queue.clear()
        for timer in (self._repeat, self._expiry):
            if timer is not None:
                timer.cancel()
