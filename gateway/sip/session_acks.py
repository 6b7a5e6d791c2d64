"""Answers that are repeated until the peer confirms them: 2xx to INVITE until ACK, reliable 18x until
PRACK.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock, TimerHandle
from gateway.errors import SipError
from gateway.sip.message import Request, Response
from gateway.sip.session_ports import ServerTransactionPort
from gateway.sip.session_values import cseq_of
from gateway.sip.transaction_timers import Timers

log = logging.getLogger("tandem.sip")


def respond(transaction: ServerTransactionPort, response: Response) -> None:
    """Send a response; a lost connection is logged, the peer or a timer will notice."""
    try:
        transaction.respond(response)
    except SipError as error:
        log.warning(
            "response_failed call_id=%s code=%d error=%s",
            response.headers.get("Call-ID"),
            response.code,
            error,
        )


class Repeater:
    """Calls `again` after T1, 2*T1, 4*T1… (at most `cap` apart) and `expired` once after 64*T1."""

    def __init__(
        self,
        clock: Clock,
        timers: Timers,
        again: Callable[[], None],
        expired: Callable[[], None],
        cap: float | None = None,
    ) -> None:
        self._clock = clock
        self._again = again
        self._expired = expired
        self._cap = cap
        self._interval = timers.t1
        self._next: TimerHandle | None = clock.call_later(timers.t1, self._tick)
        self._end: TimerHandle | None = clock.call_later(64 * timers.t1, self._finish)

    def stop(self) -> None:
        for handle in (self._next, self._end):
            if handle is not None:
                handle.cancel()
        self._next = self._end = None

    def _tick(self) -> None:
        self._interval *= 2
        if self._cap is not None:
            self._interval = min(self._interval, self._cap)
        self._next = self._clock.call_later(self._interval, self._tick)
        self._again()

    def _finish(self) -> None:
        self.stop()
        self._expired()


@dataclass(slots=True)
class _Waiting:
    repeater: Repeater
    on_ack: Callable[[Request], None]


class UnackedAnswers:
    """2xx responses to INVITE and re-INVITE that wait for their ACK (RFC 3261 13.3.1.4), by CSeq."""

    def __init__(self, clock: Clock, timers: Timers, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._timers = timers
        self._expired = expired
        self._waiting: dict[int, _Waiting] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def send(
        self, transaction: ServerTransactionPort, response: Response, on_ack: Callable[[Request], None]
    ) -> None:
        """Send the 2xx and go on sending it, also on reliable transports, until its ACK or 64*T1."""
        cseq = cseq_of(transaction.request)

        def expired() -> None:
            self._waiting.pop(cseq, None)
            self._expired()

        repeater = Repeater(
            self._clock,
            self._timers,
            lambda: respond(transaction, response),
            expired,
            cap=self._timers.t2,
        )
        self._waiting[cseq] = _Waiting(repeater, on_ack)
        respond(transaction, response)

    def ack(self, ack: Request) -> bool:
        """An ACK arrived; False when no 2xx waits for it (a repeated ACK)."""
        waiting = self._waiting.pop(cseq_of(ack), None)
        if waiting is None:
            return False
        waiting.repeater.stop()
        waiting.on_ack(ack)
        return True

    def stop(self) -> None:
        for waiting in self._waiting.values():
            waiting.repeater.stop()
        self._waiting.clear()
