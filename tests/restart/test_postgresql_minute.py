"""PostgreSQL away for a minute under twenty calls a second: every row is there afterwards, none twice.

SIPp calls, Teams picks up, twenty times a second. Where a machine does not carry that beside its other work,
calls that are events in the journal and nothing else make up for it: the recorder has as much to cope with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.cdr import tables
from gateway.cdr.delivery import Backoff
from gateway.cdr.recorder import Recorder
from gateway.cdr.report import Query, Reports, ReportUnavailable
from gateway.cdr.sinks_sql import SqlSink
from gateway.sip.transaction_timers import Timers
from media.engine import Engine
from tests.calls.foreign import Foreign, listener
from tests.calls.house import EXPERT, House, open_house, until
from tests.calls.test_peers_load import Tally, machines, roomy, sink
from tests.cdr.events import simple_call
from tests.cdr.postgres import PostgresServer
from tests.cdr.sinks import MemorySink
from tests.peers.certs import Pki
from tests.peers.rtp import RtpPeer
from tests.peers.sipp import Sipp, available
from tests.support import ports

__all__ = ["roomy", "sink"]
pytestmark = [
    pytest.mark.load,
    pytest.mark.longest,
    pytest.mark.skipif(not available(), reason="sipp is not installed"),
]
RATE = 20
BEFORE, AWAY, AFTER = 2.0, 60.0, 3.0
"""Seconds that the server is there, is not, and is again."""
CALLS = round(RATE * (BEFORE + AWAY + AFTER))
AT_ONCE = 40
BEHIND = 2 * RATE
"""Calls that SIPp may be late with before others make up for them."""


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    found = PostgresServer()
    try:
        await asyncio.to_thread(found.create)
        await asyncio.to_thread(found.start)
        yield found
    finally:
        await asyncio.to_thread(found.remove)


class Pace:
    """Sees to it that twenty calls a second end; `others` are those that are no SIP calls."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.others: list[str] = []
        self._began = asyncio.get_running_loop().time()

    @property
    def ended(self) -> int:
        assert isinstance(self._house.events, Tally)
        return self._house.events.ended

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            due = (asyncio.get_running_loop().time() - self._began) * RATE - BEHIND
            while self.ended < due:
                self.others.append(f"{len(self.others):032x}")
                await self._house.journal.append(*simple_call(self.others[-1], at=len(self.others) * 50))


async def test_a_minute_without_postgresql_loses_no_row_and_doubles_none(
    roomy: Engine, pki: Pki, sink: RtpPeer, server: PostgresServer, tmp_path: Path
) -> None:
    teams = machines(pki, sink)
    center = Foreign(f"udp:127.0.0.1:{ports.free_port()}")
    async with open_house(roomy, pki, tmp_path, center=center, teams=teams) as h:
        h.events = Tally()
        layer = h.gateway.transactions
        layer.timers = layer._sending.timers = Timers(t1=0.05)  # or ended calls would be remembered for 32 s
        other = MemorySink()
        recorder = Recorder(
            h.journal, tmp_path / "outbox", [SqlSink(server.url()), other], backoff=Backoff(most=4.0)
        )
        await recorder.start()
        try:
            pace = await _the_minute(h, recorder, other, server, tmp_path / "sipp")
        finally:
            await recorder.stop()
    assert len(other.got) == CALLS + len(pace.others) == len(set(other.got)), "the other sink never waited"
    reports = Reports(server.url())
    found = [row.id async for rows in reports.stream(Query(oldest_first=True)) for row in rows]
    await reports.close()
    assert sorted(found) == sorted(other.got)
    engine = tables.make(server.url())
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM call_detail")).scalar() == len(found)
    engine.dispose()


async def _the_minute(
    h: House, recorder: Recorder, other: MemorySink, server: PostgresServer, folder: Path
) -> Pace:
    loop = asyncio.get_running_loop()
    port = int(h.center.peer.rpartition(":")[2])
    caller = Sipp(
        folder,
        gateway=listener(h, "udp"),
        called=EXPERT,
        port=port,
        calls=CALLS,
        rate=float(RATE),
        limit=AT_ONCE,
        hold=0.1,
        timeout=400,
    )
    async with caller:
        pace = Pace(h)
        keeping = asyncio.create_task(pace.keep())
        await asyncio.sleep(BEFORE)
        await asyncio.to_thread(server.stop)
        stopped, before = loop.time(), pace.ended
        await asyncio.sleep(AWAY)
        reports = Reports(server.url())
        with pytest.raises(ReportUnavailable):
            await reports.page(Query())
        await reports.close()
        away, ended = loop.time() - stopped, pace.ended - before
        assert recorder.sinks[0].fault
        assert recorder.sinks[0].behind
        await asyncio.to_thread(server.start)
        await asyncio.sleep(AFTER)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        counts = await caller.finished(300)
    print(
        f"away {away:.1f} s, {ended / away:.1f} calls a second ended meanwhile, {len(pace.others)} of all"
        f" {CALLS + len(pace.others)} were no SIP calls; set-up {counts.setup_ms:.0f} ms"
    )
    assert counts.all_good, counts.errors
    assert away >= AWAY
    assert ended >= RATE * AWAY * 0.9
    await until(lambda: pace.ended == CALLS + len(pace.others), "the last call's end", 30)
    await until(lambda: not any(sink.behind for sink in recorder.sinks), "every row to be there", 60)
    return pace
