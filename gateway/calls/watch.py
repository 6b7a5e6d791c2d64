"""The watch over RTP: a party whose sound stopped coming is hung up; rtpengine reports no such thing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.calls.signals import MediaLost
from gateway.errors import MediaError

if TYPE_CHECKING:
    from gateway.calls.registry import CallRegistry

log = logging.getLogger("tandem.calls")

ROUND = 5.0
"""Seconds in which every leg is looked at once, at most."""


class MediaWatch:
    """One task over all calls; legs on hold are left alone (T19).

    limit: seconds without RTP; 0 = never
    """

    def __init__(self, calls: CallRegistry, limit: float) -> None:
        self._calls, self._limit = calls, limit
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._limit:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="media-watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(min(ROUND, self._limit / 4))
            try:
                await self._look()
            except MediaError as error:
                log.warning("watch_failed cause=%s", error.text)

    async def _look(self) -> None:
        silent = {anchor.leg for anchor in await self._calls.context.bay.silent(self._limit)}
        for call in list(self._calls.calls.values()) if silent else ():
            for leg in list(call.legs.values()):
                if leg.id in silent and leg.id in call.joined and leg.id not in call.away:
                    log.warning("media_lost call=%s leg=%s trunk=%s", call.id, leg.id, leg.trunk.name)
                    call.post(MediaLost(leg, self._limit))
