"""A browser's half of a leg: rings the page, takes its answer, outlives its reloads.

It speaks the events and commands of `gateway.sip.session.Session`, as far as one that we call has them, so
that neither the leg nor the call knows which of the two it has.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from gateway.clock import Clock, TimerHandle
from gateway.errors import IllegalTransition, SessionRefused
from gateway.model import LegId
from gateway.sip.message import make_request
from gateway.sip.session_events import Answered, Ended, Failed, Progress, RequestReceived, SessionEvent
from gateway.sip.session_ports import Headers
from gateway.sip.session_state import OVER, TALKING, Edge, SessionState, next_session_state

if TYPE_CHECKING:
    from gateway.phone.phones import Phones

log = logging.getLogger("tandem.calls")

Message = dict[str, Any]
_REASON: Final = re.compile(r'text="([^"]{1,80})"')
_REFUSALS: Final = {486: "Busy Here", 603: "Decline"}
_LOSS, _RTT = 5.0, 500.0
"""Percent, and milliseconds, from which a page's network is in trouble."""
_NOWHERE: Final = "sip:page.invalid"
_SETTLING: Final = 1.0
"""Seconds after an answer before the page may ask for a further connection: the first one is being wired."""


@dataclass(frozen=True, slots=True)
class Ring:
    """What the page is told of a call. direction: "in", or "out" for one that the agent himself placed."""

    call: str
    caller: str
    display: str
    number: str
    direction: str
    auto_answer: bool

    def fields(self) -> Message:
        return {
            "call": self.call,
            "from": self.caller,
            "display": self.display,
            "number": self.number,
            "direction": self.direction,
        }


@dataclass(frozen=True, slots=True)
class _NoInvite:
    """There is no SIP behind it."""

    call_id: str = ""


class PageSession:
    """One leg at the page of `login`. Events go to `handler`; commands to a session that is over do nothing.

    on_again: asked for when the page needs a new connection; an `offer` follows
    trouble:  its network is bad, says the browser
    on_away:  told whether the page is gone, while the leg waits `grace` seconds for it
    """

    remote_offer = None

    def __init__(
        self,
        phones: Phones,
        clock: Clock,
        leg: LegId,
        login: str,
        ring: Ring,
        *,
        grace: float,
        on_again: Callable[[], None],
        on_away: Callable[[bool], None],
    ) -> None:
        self.leg, self.login, self.ring = leg, login, ring
        self.handler: Any = None
        self.request = _NoInvite()
        self.state = SessionState.CALLING
        self.trouble = False
        self._phones, self._clock, self._grace = phones, clock, grace
        self._on_again, self._on_away = on_again, on_away
        self._offer = ""
        self._answer: asyncio.Future[bytes] | None = None
        self._answered_at = 0.0
        self._again: TimerHandle | None = None
        self._leaving: TimerHandle | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def picture(self) -> Message:
        """For `welcome`."""
        up = self.state in TALKING
        return {"leg": self.leg, "state": "up" if up else "ringing", **self.ring.fields()}

    # ---- over a restart of the gateway ----

    def snapshot(self) -> Message:
        """What the next gateway has to know of one that is up."""
        return {"login": self.login, "ring": asdict(self.ring)}

    def resume(self) -> None:
        """It was up with the last gateway; the page has lost its connection, and is on its way back."""
        self._phones.sessions[self.leg] = self
        self._advance(Edge.PROVISIONAL)
        self._advance(Edge.ACCEPT)
        self.page_gone()

    # ---- commands ----

    def begin(self, offer: bytes) -> None:
        """Ring the page."""
        self._offer = offer.decode()
        self._phones.sessions[self.leg] = self
        self._advance(Edge.PROVISIONAL)
        self._tell_ring()
        self._emit(Progress(180, "Ringing", "", None, None))
        if not self._phones.connected(self.login):
            self.page_gone()

    def provisional(
        self, code: int, phrase: str | None = None, sdp: bytes | None = None, headers: Headers = ()
    ) -> None:
        raise IllegalTransition("page", self.state, "provisional")

    def accept(self, sdp: bytes, headers: Headers = ()) -> None:
        raise IllegalTransition("page", self.state, "accept")

    def confirm(self) -> None:
        """Pages need no ACK."""

    def cancel(self, headers: Headers = ()) -> None:
        self.end(487, headers)

    def end(self, code: int, headers: Headers = ()) -> None:
        """Tell the page that it is over. No event follows: whoever gives this command knows."""
        if self.over:
            return
        text = next(
            (m[1] for name, value in headers if name == "Reason" and (m := _REASON.search(value))), ""
        )
        if self.state in TALKING:
            self._advance(Edge.BYE_SENT)
            self._advance(Edge.DONE)
        else:
            self._advance(Edge.CANCEL)
            self._advance(Edge.FAIL)
        self._gone(text or "ended", code)

    async def talk(self) -> int:
        """Let the page answer by itself: 200 when it was told, 480 while it is gone."""
        if self.state is not SessionState.PROCEEDING or not self._phones.connected(self.login):
            return 480
        self.ring = replace(self.ring, auto_answer=True)
        self._tell({"type": "answer", "leg": self.leg})
        return 200

    async def offer(self, sdp: bytes) -> bytes:
        """A new connection: our offer, the page's answer. SessionRefused(487) when the leg ends first."""
        if self.state not in TALKING:
            raise SessionRefused(487, "the session ended")
        self._offer = sdp.decode()
        self._answer = asyncio.get_running_loop().create_future()
        self._tell_offer()
        try:
            return await self._answer
        finally:
            self._answer = None

    # ---- what the page says ----

    def accepted(self, sdp: str) -> None:
        """Its answer to the last offer; a late or second one means nothing."""
        if self.state is SessionState.PROCEEDING:
            self._advance(Edge.ACCEPT)
            self._answered_at = self._clock.now()
            self._tell({"type": "answered", "leg": self.leg})
            self._emit(Answered(sdp.encode(), None))
        elif self._answer is not None and not self._answer.done():
            self._answered_at = self._clock.now()
            self._answer.set_result(sdp.encode())
            self._tell({"type": "answered", "leg": self.leg})

    def rejected(self, code: int) -> None:
        if self.state is SessionState.PROCEEDING:
            self._advance(Edge.FAIL)
            self._gone("rejected", code)
            self._emit(Failed(code, _REFUSALS.get(code, "Declined"), None, "response"))

    def hung_up(self) -> None:
        if self.state is SessionState.PROCEEDING:
            self.rejected(603)
        elif self.state in TALKING:
            self._advance(Edge.BYE_RECEIVED)
            self._gone("hangup", 200)
            self._emit(Ended("remote", None, 200))

    def again(self) -> None:
        """The page needs a new connection, its old one is lost or went with a reload."""
        if self.state is SessionState.PROCEEDING:
            self._tell_ring()
        elif self.state in TALKING and self._answer is not None:
            self._tell_offer()
        elif self.state in TALKING and self._again is None:
            wait = self._answered_at + _SETTLING - self._clock.now()
            self._again = self._clock.call_later(max(wait, 0.0), self._ask_again)

    def digits(self, digits: str) -> None:
        """For the other parties, as if they came by SIP INFO."""
        for digit in digits if self.state in TALKING else "":
            info = make_request(
                "INFO",
                _NOWHERE,
                from_=f"<{_NOWHERE}>",
                to=f"<{_NOWHERE}>",
                call_id=self.leg,
                cseq=1,
                body=f"Signal={digit}\r\nDuration=160\r\n".encode(),
                content_type="application/dtmf-relay",
            )
            self._emit(RequestReceived(info, _nothing))

    def measured(self, loss: float | None, jitter_ms: float | None, rtt_ms: float | None) -> None:
        """What the browser's own statistics say; a change between good and bad is logged."""
        bad = (loss or 0.0) >= _LOSS or (rtt_ms or 0.0) >= _RTT
        if bad is not self.trouble:
            self.trouble = bad
            log.log(
                logging.WARNING if bad else logging.INFO,
                "page_network leg=%s login=%s trouble=%s loss=%s jitter_ms=%s rtt_ms=%s",
                self.leg, self.login, bad, loss, jitter_ms, rtt_ms,
            )  # fmt: skip

    # ---- where the page is ----

    def page_gone(self) -> None:
        """Its connection is lost: it has a while to come back."""
        if not self.over and self._leaving is None:
            self._on_away(True)
            self._leaving = self._clock.call_later(self._grace, self._abandoned)

    def page_back(self) -> None:
        """It is there again, and knows the leg from `welcome`."""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self.state is SessionState.PROCEEDING:
            self._tell_ring()
        elif self._answer is not None:
            self._tell_offer()
        self._on_away(False)

    # ---- inside ----

    def _abandoned(self) -> None:
        self._leaving = None
        if self.over:
            return
        log.warning("page_gone leg=%s login=%s", self.leg, self.login)
        if self.state in TALKING:
            self._advance(Edge.FAIL)
            self._gone("page_gone", 408)
            self._emit(Ended("timeout", None, 408, "page_gone"))
        else:
            self._advance(Edge.FAIL)
            self._gone("page_gone", 480)
            self._emit(Failed(480, "Page Gone", None, "response"))

    def _ask_again(self) -> None:
        self._again = None
        if self.state in TALKING and self._answer is None:
            self._on_again()

    def _tell_ring(self) -> None:
        self._tell(
            {"type": "ring", "leg": self.leg, **self.ring.fields(), "auto_answer": self.ring.auto_answer}
        )
        self._tell_offer()

    def _tell_offer(self) -> None:
        self._tell({"type": "offer", "leg": self.leg, "sdp": self._offer})

    def _tell(self, message: Message) -> None:
        self._phones.send(self.login, message)

    def _gone(self, reason: str, code: int) -> None:
        self._phones.sessions.pop(self.leg, None)
        for timer in (self._leaving, self._again):
            if timer is not None:
                timer.cancel()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SessionRefused(487, "the session ended"))
        self._tell({"type": "ended", "leg": self.leg, "reason": reason, "code": code})

    def _advance(self, edge: Edge) -> None:
        self.state = next_session_state(self.state, edge, call=self.leg)

    def _emit(self, event: SessionEvent) -> None:
        if self.handler is not None:
            self.handler(self, event)


def _nothing(code: int, phrase: str | None, headers: Headers, body: bytes, content_type: str | None) -> None:
    """Nobody waits for an answer to a page's digit."""
