"""Brings agent activity into the database: ended activities at once, running ones interval by interval.

Rows have ids that follow from the activity, so writing one again changes nothing. What is not written yet is
in the agents' journal, and is made again from there after a crash.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from sqlalchemy import Connection, Insert
from sqlalchemy.dialects import postgresql, sqlite

from gateway.agents import tables
from gateway.agents.activity import INTERVAL, Activity, ActivityFold, ActivityRow, Who, call_activity, rows
from gateway.agents.database import AgentDatabase, StoreUnavailable
from gateway.agents.events import AgentCallEnded
from gateway.agents.journal import AgentEntry, AgentJournal
from gateway.clock import Clock

log = logging.getLogger("tandem.agents")

_BATCH = 500
_MOST = 200_000


class ActivityWriter:
    """One beside each agents' journal.

    who:           name and team of a login, for the rows
    running:       calls that last, as if they ended at the moment asked for: of them too the intervals that
                   are over are written, and again at the call's end
    retry_seconds: how soon a database that is down is tried again
    """

    def __init__(
        self,
        journal: AgentJournal,
        database: AgentDatabase,
        who: Callable[[str], Who],
        clock: Clock,
        *,
        running: Callable[[int], Iterable[AgentCallEnded]] = lambda now: (),
        retry_seconds: float = 5.0,
    ) -> None:
        self._journal, self._database, self._who, self._clock = journal, database, who, clock
        self._running, self._retry_seconds = running, retry_seconds
        self._fold = ActivityFold()
        self._waiting: dict[str, ActivityRow] = {}
        self._seen = 0
        self._lost = False
        self._partial = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self.fault = ""

    def start(self, entries: Iterable[AgentEntry]) -> None:
        """Make the rows of what the journal has, then follow it."""
        for entry in entries:
            self._observe(entry)
        self._unsubscribe = self._journal.subscribe(self._observe)
        self._partial = self._now() // INTERVAL
        self._task = asyncio.create_task(self._keep(), name="agent-activity")

    async def stop(self, seconds: float = 3.0) -> None:
        """Write what waits, for `seconds` at most; the rest is in the journal."""
        self._unsubscribe()
        if self._task is None:
            return
        if not self.fault:
            await self.settled(seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def settled(self, seconds: float = 5.0) -> bool:
        """Wait until everything is written; False when it took longer."""
        self._idle.clear()
        self._wake.set()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _now(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)

    def _observe(self, entry: AgentEntry) -> None:
        self._seen = entry.seq
        for activity in self._fold.observe(entry.seq, entry.event):
            self._take(activity)
        self._wake.set()

    def _take(self, activity: Activity, complete_at: int | None = None) -> None:
        for row in rows(activity, self._who(activity.login), complete_at=complete_at):
            if len(self._waiting) < _MOST:
                self._waiting[row.id] = row
            elif not self._lost:
                self._lost = True
                log.error("activity_waits_in_journal rows=%d: they are written after a restart", _MOST)

    async def _keep(self) -> None:
        while True:
            boundary = ((self._now() // INTERVAL) + 1) * INTERVAL
            try:
                async with asyncio.timeout((boundary - self._now()) / 1000 + 0.5):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self._intervals()
            upto = self._seen
            try:
                await self._write()
            except StoreUnavailable as error:
                if not self.fault:
                    log.warning("activity_not_written cause=%s", error)
                self.fault = str(error)
                await asyncio.sleep(self._retry_seconds)
                self._wake.set()
                continue
            self.fault = ""
            needed = self._fold.oldest_needed
            if not self._lost:
                await self._journal.compact(upto if needed is None else min(upto, needed - 1))
            if not self._wake.is_set():
                self._idle.set()

    def _intervals(self) -> None:
        """The parts of running activities whose interval has become complete."""
        now = self._now()
        if now // INTERVAL > self._partial:
            self._partial = now // INTERVAL
            calls = map(call_activity, self._running(now))
            for activity in itertools.chain(self._fold.running(now), calls):
                self._take(activity, complete_at=now)

    async def _write(self) -> None:
        while self._waiting:
            batch = list(self._waiting.values())[:_BATCH]
            await self._database.run(partial(write, found=batch))
            for row in batch:
                if self._waiting.get(row.id) is row:
                    del self._waiting[row.id]


def write(connection: Connection, found: Sequence[ActivityRow]) -> None:
    """Insert the rows, or replace those with the same ids."""
    values = [{name: _clean(value) for name, value in asdict(row).items()} for row in found]
    connection.execute(_upsert(connection.dialect.name), values)


def _upsert(dialect: str) -> Insert:
    table = tables.agent_activity
    names = [column.name for column in table.c if not column.primary_key]
    if dialect == "postgresql":
        shared = postgresql.insert(table)
        return shared.on_conflict_do_update(
            index_elements=[table.c.id], set_={name: shared.excluded[name] for name in names}
        )
    local = sqlite.insert(table)
    return local.on_conflict_do_update(
        index_elements=[table.c.id], set_={name: local.excluded[name] for name in names}
    )


def _clean(value: Any) -> Any:
    """PostgreSQL keeps no NUL in text; what a peer sent must not make a row unwritable."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
