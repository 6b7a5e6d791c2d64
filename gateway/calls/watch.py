"""The watch over RTP: a party whose sound stopped coming is hung up; rtpengine reports no such thing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.calls.leg import Leg
from gateway.calls.signals import MediaLost
from gateway.errors import MediaError

if TYPE_CHECKING:
    from gateway.calls.call import Call
    from gateway.calls.registry import CallRegistry

log = logging.getLogger("tandem.calls")

ROUND = 5.0
"""Seconds in which every leg is looked at once; a look costs rtpengine 0.35 ms."""


class MediaWatch:
    """One task over all calls. Held legs are left alone: they are silent by right (T19).

    limit: seconds without RTP; 0 = never
    """

    def __init__(self, calls: CallRegistry, limit: float) -> None:
        self._calls, self._limit = calls, limit
        self._task: asyncio.Task[None] | None = None
        self._since: dict[str, float] = {}

    def start(self) -> None:
        if self._limit:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="media-watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        period = min(ROUND, self._limit / 4)
        while True:
            await asyncio.sleep(period)
            work = [(call, leg) for call in self._calls.calls.values() for leg in self._watched(call)]
            self._since = {leg.id: self._since[leg.id] for _, leg in work if leg.id in self._since}
            for call, leg in work:
                await self._look(call, leg)

    def _watched(self, call: Call) -> list[Leg]:
        return [
            leg
            for leg in list(call.legs.values())
            if leg.id in call.joined and leg.id not in call.away and leg.patchable and not leg.held
        ]

    async def _look(self, call: Call, leg: Leg) -> None:
        clock = self._calls.context.clock
        try:
            statistics = await leg.anchor.statistics()
        except MediaError as error:
            log.debug("watch_failed call=%s leg=%s cause=%s", call.id, leg.id, error.text)
            return
        # a leg that was held or has just been answered gets the whole limit from the moment it is watched
        watched = clock.now() - self._since.setdefault(leg.id, clock.now())
        silence = min(statistics.silence(clock.wall().timestamp()), watched)
        if silence >= self._limit and leg.id in call.joined and not leg.held:
            log.warning(
                "media_lost call=%s leg=%s trunk=%s silence=%.0f", call.id, leg.id, leg.trunk.name, silence
            )
            self._since.pop(leg.id, None)
            call.post(MediaLost(leg, silence))
