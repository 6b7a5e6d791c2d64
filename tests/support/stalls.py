"""How much time the machine has taken from us, so that a limit in milliseconds judges the gateway and not the
neighbours' load.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

_TICK = 0.005


class Stalls:
    """`async with Stalls() as stalls`: ticks every 5 ms and keeps how late each tick was."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="stalls")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def lost(self, since: float, until: float = float("inf")) -> float:
        """Seconds between two loop times in which nobody in this process could run when he was due."""
        return sum(late for at, late in self._late if since < at <= until)

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due = now() + _TICK
            await asyncio.sleep(_TICK)
            if (late := now() - due) > _TICK:
                self._late.append((due + late, late))
