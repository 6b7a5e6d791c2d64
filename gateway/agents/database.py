"""The agents' room's way to the database: in threads, with one error for everything that may go wrong.

A database that is down at start does not keep the gateway from starting: calls need none. Until it answers,
whoever asks gets StoreUnavailable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.agents import tables
from gateway.cdr import tables as house
from gateway.errors import TandemError
from gateway.threads import Threads

log = logging.getLogger("tandem.agents")

T = TypeVar("T")

_THREADS = 4


class StoreUnavailable(TandemError):
    """The database does not answer (HTTP 503)."""


class AgentDatabase:
    """`url` as in `[gateway] database`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Engine | None = None
        self._opening = asyncio.Lock()
        self._threads = Threads("agents-database", _THREADS)

    async def run(self, job: Callable[[Connection], T], patience: float = house.PATIENCE) -> T:
        """`job` in a transaction of its own, in a thread. StoreUnavailable, also after `patience` seconds:
        then it may be done all the same, once the database answers again.
        """
        try:
            async with asyncio.timeout(patience):
                return await self._threads.run(self._run, await self._open(), job)
        except TimeoutError as error:
            raise StoreUnavailable(f"the database has not answered within {patience:.0f} s") from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"the database cannot be used: {brief(error)}") from error

    async def _open(self) -> Engine:
        async with self._opening:
            if self._engine is None:
                engine = house.make(self._url)
                try:
                    await self._threads.run(tables.migrate, engine)
                except BaseException:
                    engine.dispose()
                    raise
                self._engine = engine
            return self._engine

    @staticmethod
    def _run(engine: Engine, job: Callable[[Connection], T]) -> T:
        with engine.begin() as connection:
            return job(connection)

    async def close(self) -> None:
        self._threads.close(wait=False)
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.dispose)


def brief(error: Exception) -> str:
    """The driver's words without the statement and its parameters, which may be personal or secret."""
    cause = getattr(error, "orig", None) or error
    words = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {words[0] if words else ''}"
