"""Reports: filters, pages, exports."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.cdr.call_detail import CallDetail, call_detail
from gateway.cdr.columns import COLUMNS
from gateway.cdr.export import as_csv, as_json, as_json_lines
from gateway.cdr.report import Query, ReportError, Reports, ReportUnavailable
from gateway.cdr.sinks_sql import SqlSink
from tests.cdr.events import simple_call

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(number: int, **changes: Any) -> CallDetail:
    (found,) = call_detail(simple_call(f"{number:032x}"))
    changes = {"start_time": NOON + timedelta(seconds=number // 3)} | changes
    return dataclasses.replace(found, **changes)


async def store(url: str, rows: Sequence[CallDetail]) -> None:
    sink = SqlSink(url)
    await sink.open()
    await sink.write(rows)
    await sink.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tandem.db'}"


@pytest.fixture
async def reports(url: str) -> AsyncIterator[Reports]:
    found = Reports(url)
    yield found
    await found.close()


async def text(parts: AsyncIterator[str]) -> str:
    return "".join([part async for part in parts])


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_pages_give_every_row_once_in_order(url: str, reports: Reports, oldest_first: bool) -> None:
    rows = [row(number) for number in range(50)]
    await store(url, rows)
    query, found = Query(limit=7, oldest_first=oldest_first), list[str]()
    while True:
        page = await reports.page(query)
        assert len(page.rows) <= 7
        found += [r.id for r in page.rows]
        if not page.next:
            break
        query = dataclasses.replace(query, cursor=page.next)
    expected = [r.id for r in rows]
    assert found == (expected if oldest_first else expected[::-1])
    assert (await reports.page(Query(limit=50))).next == ""
    assert (await reports.page(Query(limit=1))).rows == (rows[-1],)


async def test_a_row_that_arrives_between_pages_repeats_none(url: str, reports: Reports) -> None:
    await store(url, [row(number) for number in range(10)])
    first = await reports.page(Query(limit=5))
    await store(url, [row(99)])
    second = await reports.page(Query(limit=5, cursor=first.next))
    assert [r.id for r in (*first.rows, *second.rows)] == [row(number).id for number in range(9, -1, -1)]


def _joined_by(login: str, found: CallDetail) -> CallDetail:
    """An agent who is neither caller nor callee: a third party of a conference."""
    legs = [*found.detail["legs"], {"login": login}]
    return dataclasses.replace(found, detail=found.detail | {"legs": legs})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(agent="bob"), {1, 2}),
        (Query(number="+1777"), {3}),
        (Query(number="+1888"), {4}),
        (Query(trunk="other"), {5, 9}),
        (Query(giid="g-6"), {6}),
        (Query(start=NOON + timedelta(hours=1), end=NOON + timedelta(hours=2)), {7}),
        (Query(agent="bob", trunk="other"), set()),
        (Query(start=NOON, end=NOON), set()),
        (Query(agent="ann", number="+1777"), {3}),
        (Query(agent="ann", limit=2), {7, 8}),
        (Query(agent="ann", limit=2, oldest_first=True), {0, 2}),
        (Query(end=NOON), set()),
        (Query(start=NOON + timedelta(hours=2)), {8}),
        (Query(number="' OR 1=1 --"), set()),
        (Query(agent="eve"), {9}),
        (Query(agent="eve", number="+1999", trunk="other", giid="g-9"), {9}),
        (Query(agent="eve", number="+1777"), set()),
        (Query(agent="eve", trunk="other", start=NOON, end=NOON + timedelta(hours=9)), {9}),
        (Query(agent="ann", trunk="other"), {5, 9}),
        (Query(agent="ann", giid="g-6"), {6}),
    ],
)
async def test_filters(url: str, reports: Reports, query: Query, expected: set[int]) -> None:
    hour = timedelta(hours=1)
    rows = [
        row(0),
        row(1, caller_login_id="bob", detail={"legs": [{"login": "bob"}]}),
        row(2, callee_login_id="bob"),
        row(3, connected_to_phone="+1777"),
        row(4, transferred_to_phone="+1888"),
        row(5, callee_trunk="other"),
        row(6, global_interaction_id="g-6"),
        row(7, start_time=NOON + hour),
        row(8, start_time=NOON + 2 * hour),
        _joined_by("eve", row(9, caller_trunk="other", global_interaction_id="g-9", from_phone="+1999")),
    ]
    await store(url, rows)
    assert {int(r.id, 16) for r in (await reports.page(query)).rows} == expected


@pytest.mark.parametrize(
    "query",
    [
        Query(cursor="nonsense!"),
        Query(cursor="AAAA"),
        Query(cursor="OTk5OTk5OTk5OTk5OTk5OTk5OTk6YQ"),
        Query(limit=0),
        Query(limit=100_000),
        Query(start=datetime(2026, 1, 1)),  # noqa: DTZ001
    ],
)
async def test_a_question_without_sense_is_an_error(url: str, reports: Reports, query: Query) -> None:
    await store(url, [])
    with pytest.raises(ReportError):
        await reports.page(query)


async def test_a_database_that_cannot_be_read_is_unavailable(reports: Reports) -> None:
    with pytest.raises(ReportUnavailable):
        await reports.page(Query())


async def test_exports_hold_every_row(url: str, reports: Reports) -> None:
    rows = [row(number) for number in range(1100)]
    rows[3] = row(3, from_phone="=HYPERLINK(1)", reason='a "quoted", word', mos=4.5)
    await store(url, rows)
    query = Query(oldest_first=True)
    assert json.loads(await text(as_json(reports.stream(query)))) == [r.to_dict() for r in rows]
    lines = (await text(as_json_lines(reports.stream(query)))).splitlines()
    assert [json.loads(line) for line in lines] == [r.to_dict() for r in rows]
    table = list(csv.DictReader(io.StringIO(await text(as_csv(reports.stream(query))))))
    assert list(table[0]) == [column.name for column in COLUMNS]
    assert [line["id"] for line in table] == [r.id for r in rows]
    assert table[3]["from_phone"] == "'=HYPERLINK(1)"
    assert table[3]["reason"] == 'a "quoted", word'
    assert table[4]["from_phone"] == "+15550100"
    assert (table[3]["mos"], table[4]["mos"]) == ("4.5", "")
    assert json.loads(table[3]["detail"]) == rows[3].detail


async def test_an_empty_export_is_still_a_document(url: str, reports: Reports) -> None:
    await store(url, [])
    assert json.loads(await text(as_json(reports.stream(Query())))) == []
    assert await text(as_json_lines(reports.stream(Query()))) == ""
    assert (await text(as_csv(reports.stream(Query())))).count("\n") == 1


async def test_an_export_streams_in_constant_memory(
    url: str, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cdr.report._CHUNK", 50)

    async def peak(query: Query) -> tuple[int, int]:
        tracemalloc.start()
        size = 0
        async for part in as_csv(reports.stream(query)):
            size += len(part)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size, found

    await store(url, [row(number) for number in range(900)])
    await peak(Query(end=NOON + timedelta(seconds=1)))
    small, small_peak = await peak(Query(end=NOON + timedelta(seconds=60)))
    large, large_peak = await peak(Query())
    assert large > 3 * small
    assert large_peak < 1.5 * small_peak
