"""Waiting for a condition that no event announces, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], limit: float = 10.0) -> None:
    """Return once `condition()` is true; TimeoutError after `limit` seconds."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110  the condition is not ours to set an event
            await asyncio.sleep(0.005)
