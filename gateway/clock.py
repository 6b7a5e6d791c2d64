"""Time as a parameter: the event loop's clock in the gateway, a hand-driven one in unit tests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Protocol

log = logging.getLogger("tandem.app")

_SLEW = 0.002
"""Seconds by which records' time may come nearer to the real time in a second; NTP itself needs 0.0005."""
_STEP = 0.25
"""Seconds of difference that are worth a line."""


class TimerHandle(Protocol):
    """A pending callback; cancelling twice or after it ran is harmless."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What timers, journals and back-offs read the time from."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        ...

    def wall(self) -> datetime:
        """The time of day, timezone-aware UTC."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        """Run `callback` once, `delay` seconds from now, in the loop's thread."""
        ...


class LoopClock:
    """The running event loop's clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        return self._loop.call_later(delay, callback)


class SteadyClock:
    """A clock whose time of day does not jump while calls are up: the one that records are made with.

    Were a clock set back by ten minutes in mid-call, every event of the next ten minutes would seem to come
    before the last one, and holds and talk would be nothing; set forward, a hold would last an hour. So with
    a call up the time of day goes on as evenly as the monotonic clock, and only slowly towards the real one
    (fast enough for all that NTP does without a step). With none up it is the real one at once, as it is in a
    gateway that has just started. A machine's sleep is such a step too: its calls do not outlive that.

    running: the calls that are up
    """

    def __init__(self, clock: Clock, running: Callable[[], Collection[str]]) -> None:
        self._clock, self._running = clock, running
        self._at = self._offset = 0.0
        self._during: frozenset[str] = frozenset()
        self._apart = False

    def now(self) -> float:
        return self._clock.now()

    def wall(self) -> datetime:
        now, running = self._clock.now(), self._running()
        real = self._clock.wall().timestamp() - now
        if self._during.isdisjoint(running):
            # since the last look there was a moment, or there is one now, at which nobody would have noticed
            self._offset = real
        else:
            most = (now - self._at) * _SLEW
            self._offset += min(max(real - self._offset, -most), most)
        self._at, self._during = now, frozenset(running)
        self._tell(real - self._offset)
        return datetime.fromtimestamp(now + self._offset, UTC)

    def _tell(self, apart: float) -> None:
        if self._apart is not (abs(apart) > _STEP):
            self._apart = not self._apart
            if self._apart:
                log.warning("clock_stepped seconds=%.1f: records of running calls go on evenly", apart)
            else:
                log.info("clock_followed: records have the real time again")

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        return self._clock.call_later(delay, callback)


async def pause(clock: Clock, seconds: float) -> None:
    """Wait by `clock`."""
    if seconds <= 0:
        return
    over = asyncio.Event()
    timer = clock.call_later(seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
