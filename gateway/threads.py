"""Threads of one room's own, for what blocks.

asyncio's default threads are few and everybody's: a database that answers nothing any more would take them
from the files that calls are recorded in, and keep the program from ending or restarting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Up to `most` threads, made when first needed; after `close` they are made again."""

    def __init__(self, name: str, most: int = 1) -> None:
        self._name, self._most = name, most
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, job: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """What `job` returns or raises. Cancelled, it goes on in its thread when it has begun."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._most, self._name)
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(job, *args, **more))

    def close(self, *, wait: bool = True) -> None:
        """What waits is still done. wait: until it is; not where that may be never."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait)
