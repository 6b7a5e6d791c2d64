"""Tasks that nobody waits for: kept, logged when they fail, ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from gateway.errors import TandemError

log = logging.getLogger("tandem.teams")


class Tasks:
    def __init__(self, name: str) -> None:
        self._name = name
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, object], about: str) -> None:
        async def guarded() -> None:
            try:
                await work
            except TandemError as error:
                log.warning("event=%s_failed about=%s cause=%s", self._name, about, error)
            except Exception:
                log.exception("event=%s_failed about=%s", self._name, about)

        task = asyncio.create_task(guarded(), name=f"teams-{self._name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # What was ended before it began would warn that nobody awaited it.
        task.add_done_callback(lambda _: work.close())

    @property
    def idle(self) -> bool:
        return not self._running

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
