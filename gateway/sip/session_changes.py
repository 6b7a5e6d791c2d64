"""Changes we ask for inside a session: re-INVITE and UPDATE with an offer, and the session timer's
refresh.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.clock import TimerHandle
from gateway.errors import MessageError, SessionRefused, SipError
from gateway.sip.message import Request, Response
from gateway.sip.session_events import OfferAnswered
from gateway.sip.session_link import Exchange
from gateway.sip.session_state import OfferEdge, SessionState
from gateway.sip.session_timer import granted_by_peer, parse_min_se, request_headers
from gateway.sip.session_uac import ReliableReceiver, description_or_none
from gateway.sip.session_values import SDP_TYPE, cseq_of

if TYPE_CHECKING:
    from gateway.sip.session import Session

log = logging.getLogger("tandem.sip")

Method = Literal["auto", "invite", "update"]
Outcome = bytes | SipError | None
MAX_GLARES = 8
MAX_WAITING = 8
"""Offers that may queue behind one another; more means that their maker is in a loop."""


@dataclass(slots=True)
class Change:
    """One re-INVITE or UPDATE from request to outcome.

    sdp: our offer, None for an UPDATE that only refreshes
    done: called once with the answer (None without an offer) or the error
    """

    method: Method
    sdp: bytes | None
    done: Callable[[Outcome], None]
    refresh: bool = False
    glares: int = 0
    interval_retries: int = 0
    exchange: Exchange | None = None
    ack: Request | None = None
    sent_as: str = ""
    receiver: ReliableReceiver | None = None


class Changes:
    """Sends one change at a time, waits for its turn, retries after glare (RFC 3261 14.1, RFC 3311 5.1)."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queue: deque[Change] = deque()
        self._current: Change | None = None
        self._retry: TimerHandle | None = None
        self._answered: deque[Change] = deque(maxlen=4)

    @property
    def busy(self) -> bool:
        """A request of ours is out and has no final response."""
        return self._current is not None and self._retry is None

    @property
    def inviting(self) -> bool:
        return self.busy and self._current is not None and self._current.sent_as == "INVITE"

    def add(self, change: Change) -> None:
        if len(self._queue) >= MAX_WAITING:
            change.done(SessionRefused(491, "too many offers waiting"))
            return
        self._queue.append(change)
        self.pump()

    def refresh(self) -> None:
        """The session timer's refresh; a change that is under way or waiting refreshes as well (RFC 4028
        7.4).
        """
        if self._current is not None or self._queue:
            return
        session = self._session
        wanted = session.profile.refresh_method
        update = session.dialog.peer_allow is not None and "UPDATE" in session.dialog.peer_allow
        method: Method = "update" if update and wanted != "invite" else "invite"
        sdp = None if method == "update" else session.dialog.local_sdp
        self.add(Change(method, sdp, self._refreshed, refresh=True))

    def pump(self) -> None:
        """Send the next change if nothing else is going on."""
        if self._current is not None or not self._queue or not self._may_start(self._queue[0]):
            return
        self._current = self._queue.popleft()
        self._send(self._current)

    def stop(self) -> None:
        """The session is over: every waiting change fails."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        waiting = [self._current] if self._current is not None else []
        waiting.extend(self._queue)
        self._current = None
        self._queue.clear()
        for change in waiting:
            change.done(SessionRefused(487, "the session ended"))

    def resend_ack(self, response: Response) -> bool:
        """A 2xx to a re-INVITE came again after its transaction had ended."""
        cseq = cseq_of(response)
        for change in self._answered:
            if change.ack is not None and cseq_of(change.ack) == cseq:
                self._session.link.ack(self._session.dialog, change.ack)
                return True
        return False

    def _may_start(self, change: Change) -> bool:
        session = self._session
        if session.over or not session.offers.stable or session.changes_in.pending or session.unacked:
            return False
        if session.state is SessionState.CONFIRMED:
            return True
        return self._method(change) == "UPDATE" and bool(session.dialog.remote_tag)

    def _method(self, change: Change) -> str:
        session = self._session
        if change.method != "auto":
            return change.method.upper()
        if session.dialog.confirmed:
            return "INVITE"
        return "UPDATE"

    def _send(self, change: Change) -> None:
        session = self._session
        dialog = session.dialog
        change.sent_as = self._method(change)
        if change.sent_as == "UPDATE" and not session.may_send("UPDATE"):
            self._finish(change, SessionRefused(405, "the peer does not allow UPDATE"))
            return
        if change.sdp is not None:
            session.offers.advance(OfferEdge.LOCAL_OFFER)
        change.exchange = Exchange(
            session.link,
            dialog,
            change.sent_as,
            contact=dialog.contact,
            headers=self._headers(),
            body=change.sdp or b"",
            content_type=SDP_TYPE if change.sdp is not None else None,
            on_response=lambda exchange, response: self._response(change, exchange, response),
            on_failure=lambda error: self._failed(change, error),
        )
        change.exchange.send()

    def _headers(self) -> list[tuple[str, str]]:
        profile, timer = self._session.profile, self._session.dialog.timer
        return [
            *request_headers(profile.session_expires, profile.min_se, timer),
            *profile.capabilities(response=False),
        ]

    def _response(self, change: Change, exchange: Exchange, response: Response) -> None:
        session = self._session
        if response.code < 200:
            if change.sent_as == "INVITE":
                self._receiver(change, exchange).take(response)
            return
        if response.code < 300 and change.sent_as == "INVITE":
            repeated = change.ack is not None
            if change.ack is None or exchange.cseq != cseq_of(change.ack):
                change.ack = self._make_ack(exchange, response)
                self._answered.append(change)
            session.link.ack(session.dialog, change.ack)
            if repeated:
                return
        if self._current is not change:
            return
        if response.code < 300:
            self._accepted(change, response)
        elif response.code == 491 and change.glares < MAX_GLARES:
            self._glare(change)
        elif response.code == 422 and self._retry_interval(change, exchange, response):
            return
        elif change.refresh and change.sent_as == "UPDATE" and response.code in (405, 501):
            change.method, change.sdp = "invite", session.dialog.local_sdp
            self._send(change)
        else:
            self._refused(change, response)

    def _receiver(self, change: Change, exchange: Exchange) -> ReliableReceiver:
        """For reliable 18x to a re-INVITE; a new one when the re-INVITE went out again with another CSeq."""
        if change.receiver is None or change.receiver.invite_cseq != exchange.cseq:
            session = self._session
            identity = session.profile.identity(response=False)
            change.receiver = ReliableReceiver(session.link, session.dialog, exchange.cseq, identity)
        return change.receiver

    def _make_ack(self, exchange: Exchange, response: Response) -> Request:
        session = self._session
        session.dialog.refresh_target(response)
        return session.dialog.request(
            "ACK",
            exchange.cseq,
            headers=[*exchange.acknowledgement(), *session.profile.identity(response=False)],
        )

    def _accepted(self, change: Change, response: Response) -> None:
        session = self._session
        dialog = session.dialog
        dialog.learn(response)
        dialog.refresh_target(response)
        answer = description_or_none(response)
        before = dialog.remote_sdp
        if change.sdp is not None:
            if answer is None:
                session.offers.advance(OfferEdge.WITHDRAWN)
                self._finish(change, SessionRefused(500, "a 2xx without an answer"))
                return
            session.offers.advance(OfferEdge.REMOTE_ANSWER)
            dialog.local_sdp, dialog.remote_sdp = change.sdp, answer
        try:
            dialog.timer = granted_by_peer(response.headers, dialog.timer)
        except MessageError:
            log.warning("session_expires_ignored call_id=%s", dialog.call_id)
        session.restart_timer()
        self._finish(change, answer if change.sdp is not None else None)
        if change.refresh and change.sdp is not None and answer is not None and answer != before:
            session.emit(OfferAnswered(answer))

    def _glare(self, change: Change) -> None:
        """491: try again later, the owner of the Call-ID after 2.1 to 4 s, the other side within 2 s
        (14.1).
        """
        session = self._session
        self._withdraw(change)
        change.glares += 1
        random = session.agent.random
        ticks = random.randint(210, 400) if session.dialog.role == "uac" else random.randint(0, 200)
        self._retry = session.clock.call_later(ticks / 100, self._after_glare)

    def _after_glare(self) -> None:
        self._retry = None
        change, self._current = self._current, None
        if change is not None:
            self._queue.appendleft(change)
        self.pump()

    def _retry_interval(self, change: Change, exchange: Exchange, response: Response) -> bool:
        timer = self._session.dialog.timer
        try:
            wanted = parse_min_se(response.headers)
        except MessageError:
            return False
        if wanted <= timer.min_se or change.interval_retries >= 2:
            return False
        change.interval_retries += 1
        timer.min_se = wanted
        exchange.headers = self._headers()
        exchange.send()
        return True

    def _refused(self, change: Change, response: Response) -> None:
        """The session stays as it was, unless the peer says there is no session (481) or stays mute (408)."""
        self._withdraw(change)
        if response.code in (408, 481):
            self._session.lost(response.code)
        self._finish(change, SessionRefused(response.code, response.phrase))

    def _failed(self, change: Change, error: SipError) -> None:
        if self._current is not change:
            return
        self._withdraw(change)
        if error.code == 408:
            self._session.lost(408)
        self._finish(change, error)

    def _withdraw(self, change: Change) -> None:
        if change.sdp is not None and not self._session.offers.stable:
            self._session.offers.advance(OfferEdge.WITHDRAWN)

    def _finish(self, change: Change, outcome: Outcome) -> None:
        if self._current is change:
            self._current = None
            change.done(outcome)
        self.pump()

    def _refreshed(self, outcome: Outcome) -> None:
        if isinstance(outcome, SipError) and not self._session.over:
            log.warning("refresh_failed call_id=%s code=%d", self._session.dialog.call_id, outcome.code)
            self._session.refresh_timer.retry()
