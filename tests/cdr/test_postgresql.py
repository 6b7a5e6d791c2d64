"""PostgreSQL, a real one: schema, upsert, reports; killed while calls are coming in."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from gateway.cdr import tables
from gateway.cdr.call_detail import CallDetail, call_detail
from gateway.cdr.report import Query, Reports, ReportUnavailable
from gateway.cdr.sinks import SinkUnavailable
from gateway.cdr.sinks_sql import SqlSink
from tests.cdr.events import simple_call
from tests.cdr.postgres import PostgresServer
from tests.cdr.sinks import MemorySink, until
from tests.cdr.test_recorder import Gateway
from tests.support import ports
from tests.unit.test_sinks import VIEW, VIEWED, agents_found, later_parties, old_rows


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer.running() as found:
        yield found


@pytest.fixture
async def reports(server: PostgresServer) -> AsyncIterator[Reports]:
    found = Reports(server.url())
    yield found
    await found.close()


def row(call: str) -> CallDetail:
    (found,) = call_detail(simple_call(call))
    return found


async def test_rows_go_in_once_and_come_out_as_they_were(server: PostgresServer, reports: Reports) -> None:
    sinks = [SqlSink(server.url(), name) for name in ("one", "two")]
    await asyncio.gather(*(sink.open() for sink in sinks))
    rows = [
        dataclasses.replace(
            row(f"a{n}"), mos=4.5, from_phone="1\x002" if n == 1 else "+1", transferred_to_phone="+pg"
        )
        for n in range(9)
    ]
    await asyncio.gather(*(sink.write([*rows, *rows]) for sink in sinks))
    await asyncio.gather(*(sink.close() for sink in sinks))
    page = await reports.page(Query(number="+pg", limit=5, oldest_first=True))
    rest = await reports.page(Query(number="+pg", limit=5, oldest_first=True, cursor=page.next))
    found = [*page.rows, *rest.rows]
    assert found == [dataclasses.replace(r, from_phone=r.from_phone.replace("\0", "\ufffd")) for r in rows]
    assert rest.next == ""


def test_the_schema_is_the_table_of_columns_with_its_comments(server: PostgresServer) -> None:
    engine = tables.make(server.url())
    tables.migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": tables.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, tables.metadata) == []
        comment = "SELECT col_description('call_detail'::regclass, attnum) FROM pg_attribute"
        found = (
            connection.execute(text(f"{comment} WHERE attname = 'hold_time' AND attnum > 0"))
            .scalars()
            .first()
        )
        assert found is not None
        assert "at least one agent held" in found
        connection.execute(text("SELECT epoch, answered, with_teams, agent FROM call_detail_report")).all()
    engine.dispose()


def test_an_older_database_learns_which_agents_had_a_leg(server: PostgresServer) -> None:
    house = tables.make(server.url())
    with house.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE old"))
    house.dispose()
    engine = tables.make(server.url("old"))
    old_rows(engine)
    tables.migrate(engine)
    assert agents_found(engine) == [("a", "ann"), ("b", "ann"), ("b", "eve"), ("c", "ann")]
    engine.dispose()


async def test_the_view_sees_who_was_added_or_merged_later(server: PostgresServer) -> None:
    house = tables.make(server.url())
    with house.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE viewed"))
    house.dispose()
    engine = tables.make(server.url("viewed"))
    tables.migrate(engine, version="0002")
    with engine.begin() as connection:
        connection.execute(text("GRANT SELECT ON call_detail_report TO pg_monitor"))
    sink = SqlSink(server.url("viewed"))
    await sink.open()
    await sink.write(later_parties())
    await sink.close()
    with engine.connect() as connection:
        assert {row[0]: (row[1], row[2]) for row in connection.execute(text(VIEW))} == VIEWED
        granted = "SELECT has_table_privilege('pg_monitor', 'call_detail_report', 'SELECT')"
        assert connection.execute(text(granted)).scalar_one(), "who may read it before, may afterwards"
    engine.dispose()


async def test_a_server_that_is_not_there_is_unavailable_and_no_password_is_told() -> None:
    sink = SqlSink(f"postgresql://tandem:secret@127.0.0.1:{ports.free_port()}/x")
    with pytest.raises(SinkUnavailable) as caught:
        await sink.open()
    await sink.close()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_server_that_goes_away_and_comes_back_gets_every_row_once(
    server: PostgresServer, reports: Reports, tmp_path: Path, how: signal.Signals
) -> None:
    other, first = MemorySink(), 1000 * how
    async with Gateway(tmp_path, SqlSink(server.url()), other) as gateway:

        def sql_failures() -> int:
            return gateway.recorder.sinks[0].failures

        for batch in range(6):
            numbers = range(first + batch * 25, first + batch * 25 + 25)
            calls = asyncio.create_task(gateway.calls(*numbers))
            if batch == 2:
                await asyncio.to_thread(server.stop, how)
            await calls
            if batch == 3:
                await until(lambda: sql_failures() > 1)
                await until(lambda: len(other.got) == 100)
                with pytest.raises(ReportUnavailable):
                    await reports.page(Query())
                await asyncio.to_thread(server.start)
        await until(lambda: not any(sink.behind for sink in gateway.recorder.sinks), 30)
    found = [r.id async for rows in reports.stream(Query(oldest_first=True)) for r in rows]
    mine = [call for call in found if call in other.rows]
    assert mine == [f"{number:032x}" for number in range(first, first + 150)]
    assert len(found) == len(set(found))
