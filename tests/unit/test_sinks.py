"""Sinks that need no server: JSON lines and SQLite; the migrations against the table of columns."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from gateway.cdr import tables
from gateway.cdr.call_detail import CallDetail, call_detail
from gateway.cdr.columns import COLUMNS
from gateway.cdr.sinks import JsonLinesSink, SinkRejected, SinkUnavailable
from gateway.cdr.sinks_sql import SqlSink
from gateway.model import PartyType, Role
from tests.cdr.events import HUNG_UP, History, simple_call


def make_row(call: str = "c" * 32, **changes: Any) -> CallDetail:
    (row,) = call_detail(simple_call(call))
    return dataclasses.replace(row, **changes)


def lines_of(directory: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(directory.glob("*.jsonl"))
    }


async def written(sink: SqlSink | JsonLinesSink, *batches: Sequence[CallDetail]) -> None:
    await sink.open()
    try:
        for batch in batches:
            await sink.write(batch)
    finally:
        await sink.close()


def stored(path: Path, query: str = "SELECT * FROM call_detail ORDER BY id") -> list[dict[str, Any]]:
    engine = tables.make(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(text(query)).mappings()]
    engine.dispose()
    return found


# -- JSON lines --


async def test_json_lines_are_one_file_a_utc_day(tmp_path: Path) -> None:
    midnight = datetime(2026, 1, 2, tzinfo=UTC)
    before, after = make_row("a", end_time=midnight - timedelta(seconds=1)), make_row("b", end_time=midnight)
    await written(JsonLinesSink(tmp_path / "out"), [before, after], [make_row("c", end_time=midnight)])
    found = lines_of(tmp_path / "out")
    assert {name: [row["id"] for row in rows] for name, rows in found.items()} == {
        "call-detail-2026-01-01.jsonl": ["a"],
        "call-detail-2026-01-02.jsonl": ["b", "c"],
    }
    assert CallDetail.from_dict(found["call-detail-2026-01-01.jsonl"][0]) == before


async def test_a_line_cut_by_a_crash_is_replaced(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path)
    await written(sink, [make_row("a")])
    path = tmp_path / "call-detail-2026-01-01.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id":"b","global')
    await written(sink, [make_row("b")])
    assert [row["id"] for row in lines_of(tmp_path)[path.name]] == ["a", "b"]


async def test_json_lines_that_cannot_be_written_are_tried_again(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path)
    path = tmp_path / "call-detail-2026-01-01.jsonl"
    path.mkdir()
    with pytest.raises(SinkUnavailable):
        await written(sink, [make_row()])
    path.rmdir()
    await written(sink, [make_row()])
    assert len(lines_of(tmp_path)[path.name]) == 1


# -- SQLite --


async def test_sqlite_has_each_row_once_and_its_newest_form(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tandem.db"
    rows = [make_row("a"), make_row("b")]
    await written(
        SqlSink(f"sqlite:///{path}"), rows, rows, [make_row("a", acw_time=5), make_row("a", acw_time=7)]
    )
    await written(SqlSink(f"sqlite:///{path}"), [make_row("c", mos=4.25, answer_time=None)])
    found = stored(path)
    assert [(row["id"], row["acw_time"]) for row in found] == [("a", 7), ("b", 0), ("c", 0)]
    assert (found[2]["mos"], found[2]["answer_time"]) == (4.25, None)
    assert json.loads(found[0]["detail"]) == rows[0].detail


async def test_the_view_for_grafana(tmp_path: Path) -> None:
    path = tmp_path / "tandem.db"
    await written(SqlSink(f"sqlite:///{path}"), [make_row("a")])
    (row,) = stored(path, "SELECT * FROM call_detail_report")
    assert (row["epoch"], row["answered"], row["with_teams"], row["agent"]) == (1767225600, 1, 1, "ann")
    assert set(row) == {c.name for c in COLUMNS} - {"detail"} | {
        "time",
        "epoch",
        "answered",
        "with_teams",
        "agent",
    }


def conference() -> CallDetail:
    """A customer and an agent, who adds a Teams user."""
    history = History("added").started()
    history.leg("a", Role.CALLER, PartyType.EXTERNAL, "+15550100")
    history.leg("b", Role.CALLEE, PartyType.AGENT, "601", login="ann").dialled("b")
    history.wait(3000).answered("b", "a").joined("a", "b").wait(5000)
    history.leg("c", Role.PARTICIPANT, PartyType.TEAMS_EXPERT, "+15550199", "teams").dialled("c")
    history.wait(2000).answered("c").joined("c").wait(9000)
    (row,) = call_detail(history.ended(HUNG_UP, "a", "b", "c").events)
    return row


def later_parties() -> list[CallDetail]:
    """Whoever came later is in the legs alone."""
    plain = {"caller_party_type": "external", "callee_party_type": "agent"}
    nobody = {"caller_login_id": "", "callee_login_id": ""}
    agents = {"legs": [{"party": "agent", "login": login} for login in ("", "eve", "ann")]}
    return [
        conference(),
        make_row("called", **plain | {"callee_party_type": "teams_expert"}, detail={}),
        make_row("without", **plain, detail=agents),
        make_row("unknown", **plain, detail={}),
        make_row("agent added", **plain, **nobody, detail=agents),
        make_row("no agent", **plain, **nobody, detail={"legs": []}),
    ]


VIEW = "SELECT id, with_teams, agent FROM call_detail_report"
VIEWED = {
    "added": (1, "ann"),
    "called": (1, "ann"),
    "without": (0, "ann"),
    "unknown": (0, "ann"),
    "agent added": (0, "eve"),
    "no agent": (0, ""),
}


async def test_the_view_sees_who_was_added_or_merged_later(tmp_path: Path) -> None:
    path = tmp_path / "tandem.db"
    await written(SqlSink(f"sqlite:///{path}"), later_parties())
    found = {row["id"]: (row["with_teams"], row["agent"]) for row in stored(path, VIEW)}
    assert found == VIEWED


async def test_migrations_end_at_the_table_of_columns(tmp_path: Path) -> None:
    engine = tables.make(f"sqlite:///{tmp_path / 'x.db'}")
    tables.migrate(engine)
    tables.migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": tables.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, tables.metadata) == []
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    engine.dispose()


async def test_what_a_peer_sent_cannot_make_a_row_unwritable(tmp_path: Path) -> None:
    path = tmp_path / "tandem.db"
    await written(SqlSink(f"sqlite:///{path}"), [make_row("a", from_phone="1\x002", detail={"x\0": ["\0"]})])
    (row,) = stored(path)
    assert row["from_phone"] == "1\ufffd2"
    assert json.loads(row["detail"]) == {"x\ufffd": ["\ufffd"]}


async def test_a_row_the_database_will_never_take_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SinkRejected):
        await written(SqlSink(f"sqlite:///{tmp_path / 'x.db'}"), [make_row("a", reason=None)])


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(SinkUnavailable):
        await written(SqlSink(f"sqlite:///{tmp_path / 'x.db'}"), [])


AGENTS_OF_ALL = "SELECT id, login_id, start_time FROM call_detail_agent ORDER BY id, login_id"


def old_rows(engine: Engine) -> list[CallDetail]:
    """Rows as the schema's first version had them: nothing said which agents had a leg."""
    legs = [{"login": login} for login in ("ann", "", "eve", "eve")]
    rows = [make_row("a"), make_row("b", detail={"legs": legs}), make_row("c", detail={})]
    rows.append(make_row("d", caller_login_id="", detail={"legs": []}))
    tables.migrate(engine, version="0001")
    with engine.begin() as connection:
        connection.execute(tables.call_detail.insert(), [row.values() for row in rows])
    return rows


def agents_found(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [(row[0], row[1]) for row in connection.execute(text(AGENTS_OF_ALL))]


def test_an_older_database_learns_which_agents_had_a_leg(tmp_path: Path) -> None:
    engine = tables.make(f"sqlite:///{tmp_path / 'old.db'}")
    old_rows(engine)
    tables.migrate(engine)
    assert agents_found(engine) == [("a", "ann"), ("b", "ann"), ("b", "eve"), ("c", "ann")]
    engine.dispose()


async def test_a_row_that_comes_again_with_a_further_agent_is_found_for_him_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    row = make_row("a")
    more = dataclasses.replace(row, acw_time=7, detail={"legs": [{"login": "ann"}, {"login": "eve"}]})
    await written(SqlSink(url), [row], [row, more], [more])
    engine = tables.make(url)
    assert agents_found(engine) == [("a", "ann"), ("a", "eve")]
    engine.dispose()
    assert [found["acw_time"] for found in stored(tmp_path / "x.db")] == [7]


def test_many_who_open_a_new_sqlite_file_at_once_are_all_served(tmp_path: Path) -> None:
    """SQLite refuses, without waiting, whoever turns the write-ahead log on beside somebody else."""
    together = threading.Barrier(6)

    def use(turn: tuple[int, int]) -> None:
        attempt, table = turn
        engine = tables.make(f"sqlite:///{tmp_path}/{attempt}.db")
        together.wait()
        with engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql(f"CREATE TABLE t{table} (x)")
        engine.dispose()

    with ThreadPoolExecutor(6) as threads:
        for attempt in range(20):
            list(threads.map(use, [(attempt, table) for table in range(6)]))


@pytest.mark.parametrize("room", ["cdr", "agents", "teams"])
def test_the_newest_migration_by_name_is_the_last_of_its_chain(room: str) -> None:
    """A start reads only the name, and asks Alembic when the database is not there yet."""
    scripts = Path(tables.__file__).parents[1] / room / "migrations"
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(scripts))
    assert ScriptDirectory.from_config(settings).get_current_head() == tables.newest(scripts)


def test_a_database_that_is_up_to_date_needs_no_alembic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tables.make(f"sqlite:///{tmp_path}/tandem.db")
    tables.migrate(engine)
    monkeypatch.setattr("alembic.command.upgrade", None)
    tables.migrate(engine)
    engine.dispose()
