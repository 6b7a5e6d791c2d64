"""Digits for whoever answers: an attendant is called by its number, and told whom the call is for."""

from __future__ import annotations

import asyncio
import logging

from gateway.calls.context import CallContext
from gateway.calls.digits import DIGITS
from gateway.calls.leg import Leg
from gateway.cdr.journal import Entry
from gateway.clock import pause
from gateway.errors import MediaError, MediaRejected
from gateway.events import LegEnded, LegJoined
from gateway.model import LegId

log = logging.getLogger("tandem.calls")

PAUSE = ","
PAUSE_SECONDS = 1.0
STREAM_WITHIN = 5.0
"""Seconds in which a packet of whoever is connected with the party has to come: rtpengine puts digits between
such packets, and refuses them ("No SSRC context") while there has been none."""
_AGAIN = 0.1
_MOST = 1000


class DigitsAfter:
    """Sends them once the leg's party is connected with the others; "," waits a second.

    What was not sent when the gateway restarts is not sent: it is a second's window, and the agent hears it.
    """

    def __init__(self, context: CallContext) -> None:
        self._clock = context.clock
        self._waiting: dict[LegId, tuple[Leg, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        context.journal.subscribe(self._heard)

    def expect(self, leg: Leg, digits: str) -> None:
        """`leg` is about to be called."""
        if digits:
            self._waiting[leg.id] = (leg, digits.upper())
            while len(self._waiting) > _MOST:
                # Commands that were refused after all leave theirs behind.
                del self._waiting[next(iter(self._waiting))]

    def _heard(self, entry: Entry) -> None:
        event = entry.event
        if not self._waiting or not isinstance(event, LegJoined | LegEnded):
            return
        found = self._waiting.pop(event.leg, None)
        if found is not None and isinstance(event, LegJoined):
            task = asyncio.get_running_loop().create_task(self._send(*found), name=f"digits-{event.leg}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, leg: Leg, digits: str) -> None:
        """Who hangs up meanwhile gets no more."""
        try:
            for digit in digits:
                if digit == PAUSE:
                    await pause(self._clock, PAUSE_SECONDS)
                else:
                    await self._press(leg, digit)
        except MediaError as error:
            log.warning("digits_after_answer_not_sent leg=%s cause=%s", leg.id, error.text)
        else:
            log.info("digits_after_answer_sent leg=%s count=%d", leg.id, len(digits))

    async def _press(self, leg: Leg, digit: str) -> None:
        limit = self._clock.now() + STREAM_WITHIN
        while True:
            try:
                await leg.anchor.send_digit(digit)
                return
            except MediaRejected as error:
                if "SSRC" not in error.text or self._clock.now() > limit:
                    raise
            await pause(self._clock, _AGAIN)


def sendable(digits: str) -> bool:
    """Whether every character is a digit or a pause."""
    return set(digits.upper()) <= DIGITS | {PAUSE}
