"""PostgreSQL away for a minute while twenty calls end each second: every row is there afterwards, none twice.

A minute of wall clock, and little of the processor: the calls are events in the real journal, the rows go
through the real recorder and outbox.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from sqlalchemy import text

from gateway.cdr import tables
from gateway.cdr.delivery import Backoff
from gateway.cdr.recorder import Recorder
from gateway.cdr.report import Query, Reports, ReportUnavailable
from gateway.cdr.sinks_sql import SqlSink
from tests.cdr.events import simple_call
from tests.cdr.postgres import PostgresServer
from tests.cdr.sinks import MemorySink, until
from tests.cdr.test_recorder import Gateway

RATE = 20
BEFORE, AWAY, AFTER = 2.0, 60.0, 2.0
"""Seconds that the server is there, is not, and is again."""


class Minute(Gateway):
    """Calls by the clock, and what each waited for its journal."""

    def __init__(self, directory: Path, url: str) -> None:
        self.other = MemorySink()
        super().__init__(directory, SqlSink(url), self.other, segment=100_000)
        self.recorder = Recorder(
            self.journal,
            directory / "outbox",
            [SqlSink(url), self.other],
            backoff=Backoff(most=4.0),
            segment_bytes=100_000,
        )
        self.ended = 0
        self.waits: list[float] = []

    async def run(self, over: asyncio.Event) -> None:
        """Twenty calls a second by the clock: who comes late catches up."""
        began = time.monotonic()
        while not over.is_set():
            while self.ended < (time.monotonic() - began) * RATE:
                asked = time.monotonic()
                await self.journal.append(*simple_call(f"{self.ended:032x}", at=self.ended * 50))
                self.waits.append(time.monotonic() - asked)
                self.ended += 1
            await asyncio.sleep(1 / RATE)


async def test_a_minute_without_postgresql_loses_no_row_and_doubles_none(tmp_path: Path) -> None:
    server = PostgresServer()
    try:
        await asyncio.to_thread(server.create)
        await asyncio.to_thread(server.start)
        await _the_minute(server, tmp_path)
    finally:
        await asyncio.to_thread(server.remove)


async def _the_minute(server: PostgresServer, folder: Path) -> None:
    over = asyncio.Event()
    async with Minute(folder, server.url()) as gateway:
        calls = asyncio.create_task(gateway.run(over))
        await asyncio.sleep(BEFORE)
        await asyncio.to_thread(server.stop)
        stopped = time.monotonic()
        missed = gateway.ended
        await asyncio.sleep(AWAY)
        reports = Reports(server.url())
        try:
            await reports.page(Query())
        except ReportUnavailable:
            pass
        else:
            raise AssertionError("PostgreSQL was to be away")
        away, missed = time.monotonic() - stopped, gateway.ended - missed
        assert gateway.recorder.sinks[0].fault
        assert gateway.recorder.sinks[0].behind
        await until(lambda: len(gateway.other.got) >= gateway.ended - RATE)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(AFTER)
        over.set()
        await calls
        await until(lambda: not any(sink.behind for sink in gateway.recorder.sinks), 30)
        assert gateway.other.got == [f"{n:032x}" for n in range(gateway.ended)], "the other sink never waited"
    assert away >= AWAY
    assert missed >= RATE * AWAY * 0.95, "twenty calls ended in each second of the minute"
    assert sorted(gateway.waits)[len(gateway.waits) * 95 // 100] < 0.5, "no call waited for the database"
    found = [r.id async for rows in reports.stream(Query(oldest_first=True)) for r in rows]
    await reports.close()
    assert found == [f"{n:032x}" for n in range(gateway.ended)]
    engine = tables.make(server.url())
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM call_detail")).scalar() == gateway.ended
    engine.dispose()
