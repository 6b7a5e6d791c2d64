"""A sink to test with: keeps what it gets, and is down or picky on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.cdr.call_detail import CallDetail
from gateway.cdr.sinks import SinkRejected, SinkUnavailable


class MemorySink:
    def __init__(self, name: str = "memory") -> None:
        self._name = name
        self.got: list[str] = []
        self.rows: dict[str, CallDetail] = {}
        self.down = False
        self.refuses: set[str] = set()
        self.tries = 0
        self.largest = 0
        self.closed = False

    @property
    def name(self) -> str:
        return self._name

    async def open(self) -> None:
        self._check()

    async def write(self, rows: Sequence[CallDetail]) -> None:
        self._check()
        self.largest = max(self.largest, len(rows))
        if any(row.id in self.refuses for row in rows):
            raise SinkRejected("not this one")
        self.got += [row.id for row in rows]
        self.rows |= {row.id: row for row in rows}

    def _check(self) -> None:
        self.tries += 1
        if self.down:
            raise SinkUnavailable("down for a test")

    async def close(self) -> None:
        self.closed = True


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for something that has no event of its own; AssertionError when it does not come."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError("it did not come to pass") from None
