"""REFER received inside a session and its implicit subscription (RFC 3515, RFC 4488; T18, facts 6.3)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock, TimerHandle
from gateway.errors import MessageError, SipError
from gateway.sip.dialog import Dialog
from gateway.sip.message import PHRASES, Request, Response
from gateway.sip.session_link import Exchange, Link
from gateway.sip.session_ports import Headers

log = logging.getLogger("tandem.sip")

SUBSCRIPTION_SECONDS = 300
ANSWER_GUARD = 25.0
"""Seconds a REFER may stay unanswered before it gets 603; below the peer's Timer F (32 s)."""
ReplyRefer = Callable[[int, str | None, Headers], None]


@dataclass(slots=True)
class _Notify:
    body: bytes
    state: str
    final: bool


def refer_to_of(request: Request) -> str:
    """The one Refer-To value, byte-exact as received; MessageError(400) when there is none or several."""
    values = request.headers.getlist("Refer-To")
    if len(values) != 1 or not values[0].strip():
        raise MessageError(400, "Exactly one Refer-To is needed")
    return values[0]


class Referred:
    """A REFER that waits for accept() or reject(), then the reporter of how the new call goes.

    refer_to, referred_by: header values byte-exact as received, referred_by "" when absent
    finished: set when the final NOTIFY was answered or can no longer be sent; wait for it before a BYE of
    ours
    The subscription outlives a BYE of the peer's (Teams sends it 280 ms after the 202).
    """

    def __init__(
        self,
        request: Request,
        link: Link,
        dialog: Dialog,
        clock: Clock,
        reply: ReplyRefer,
        done: Callable[[Referred], None],
        *,
        with_id: bool,
    ) -> None:
        self.request = request
        self.refer_to = refer_to_of(request)
        self.referred_by = request.headers.get("Referred-By") or ""
        self.finished = asyncio.Event()
        self.accepted = False
        self._link = link
        self._dialog = dialog
        self._clock = clock
        self._reply = reply
        self._done = done
        self._event = f"refer;id={request.cseq.sequence}" if with_id else "refer"
        self._wants_reports = (request.headers.get("Refer-Sub") or "true").strip().lower() != "false"
        self._queue: deque[_Notify] = deque()
        self._under_way = False
        self._final_queued = False
        self._deadline: TimerHandle | None = clock.call_later(ANSWER_GUARD, self.reject)
        self._expires_at = 0.0
        self._answered = False

    @property
    def busy(self) -> bool:
        """A NOTIFY is queued or unanswered: a BYE of ours would cross it (T18)."""
        return self._under_way or bool(self._queue)

    def accept(self, headers: Headers = ()) -> None:
        """202, then NOTIFY "100 Trying"; without NOTIFYs when the peer asked for none (Refer-Sub: false)."""
        if self._answered:
            return
        self._answered = self.accepted = True
        self._stop_deadline()
        if not self._wants_reports:
            self._reply(202, None, [("Refer-Sub", "false"), *headers])
            self._finish()
            return
        self._reply(202, None, headers)
        self._expires_at = self._clock.now() + SUBSCRIPTION_SECONDS
        self._deadline = self._clock.call_later(SUBSCRIPTION_SECONDS, self._expired)
        self.notify(100)

    def reject(self, code: int = 603, phrase: str | None = None, headers: Headers = ()) -> None:
        if not self._answered:
            self._answered = True
            self._reply(code, phrase, headers)
            self._finish()

    def notify(self, code: int, phrase: str | None = None, final: bool = False) -> None:
        """Report the new call's status line; 200 and above is final. In order, each after the last one's
        answer.
        """
        if not self.accepted or self._final_queued or self.finished.is_set():
            return
        final = final or code >= 200
        body = f"SIP/2.0 {code} {phrase or PHRASES.get(code, 'Unknown')}\r\n".encode()
        left = max(1, round(self._expires_at - self._clock.now()))
        state = "terminated;reason=noresource" if final else f"active;expires={left}"
        self._enqueue(_Notify(body, state, final))

    def close(self) -> None:
        """Our own BYE went out, or we shut down: nothing more is reported."""
        self._queue.clear()
        self._finish()

    def _enqueue(self, notify: _Notify) -> None:
        self._final_queued = self._final_queued or notify.final
        self._queue.append(notify)
        self._send_next()

    def _send_next(self) -> None:
        if self._under_way or not self._queue:
            return
        notify = self._queue.popleft()
        self._under_way = True
        Exchange(
            self._link,
            self._dialog,
            "NOTIFY",
            contact=self._dialog.contact,
            headers=[
                ("Event", self._event),
                ("Subscription-State", notify.state),
                *self._link.profile.capabilities(response=False),
            ],
            body=notify.body,
            content_type="message/sipfrag",
            on_response=lambda _, response: self._response(notify, response),
            on_failure=lambda error: self._failed(error),
        ).send()

    def _response(self, notify: _Notify, response: Response) -> None:
        if response.code < 200:
            return
        self._under_way = False
        if response.code in (481, 489, 408):
            log.info("subscription_gone call_id=%s code=%d", self._dialog.call_id, response.code)
            self._queue.clear()
            self._finish()
        elif notify.final:
            self._finish()
        else:
            self._send_next()
            self._done(self)

    def _failed(self, error: SipError) -> None:
        self._under_way = False
        log.warning("notify_failed call_id=%s error=%s", self._dialog.call_id, error)
        self._queue.clear()
        self._finish()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expired(self) -> None:
        if not self._final_queued:
            self._enqueue(_Notify(b"SIP/2.0 408 Request Timeout\r\n", "terminated;reason=timeout", True))

    def _finish(self) -> None:
        self._stop_deadline()
        self.finished.set()
        self._done(self)
