"""Call detail over HTTP, from a real database: pages, filters, exports, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pyarrow.parquet
import pytest

from gateway.api.accept import preferred
from gateway.api.call_detail_routes import call_detail_operation
from gateway.cdr.call_detail import CallDetail
from gateway.cdr.columns import COLUMNS, json_schema
from gateway.cdr.parquet import MEDIA_TYPE, as_parquet
from gateway.cdr.report import Reports
from gateway.cdr.sinks_sql import SqlSink
from tests.api.site import READER, Site, open_site
from tests.api.test_commands import NOON, row

PATH = "/api/v1/call-detail"


def sound(number: int, **more: object) -> CallDetail:
    """A row that fits the schema."""
    return row(number, disposition="caller_terminated", **more)


async def fill(url: str, count: int) -> None:
    sink = SqlSink(url)
    await sink.open()
    for first in range(0, count, 500):
        await sink.write(
            [
                sound(n, callee_login_id="anna" if n % 5 == 2 else "", caller_trunk="pbx" if n == 3 else "cc")
                for n in range(first, min(first + 500, count))
            ]
        )
    await sink.close()


@contextlib.asynccontextmanager
async def reporting(folder: Path, count: int) -> AsyncIterator[Site]:
    url = f"sqlite:///{folder / 'tandem.db'}"
    if count:
        await fill(url, count)
    reports = Reports(url)
    async with open_site(call_detail_operation(reports), stopping=[reports.close]) as site:
        yield site


def numbers(body: Any) -> list[int]:
    return [int(one["id"], 16) for one in body["rows"]]


async def test_pages_follow_one_another_to_the_end(tmp_path: Path) -> None:
    async with reporting(tmp_path, 23) as site:
        found, path = [], f"{PATH}?limit=10&trunk=teams"
        while path:
            reply = await site.get(path, headers=READER)
            assert reply.status == 200
            found += numbers(reply.body)
            link = reply.headers.get("Link", "")
            assert (reply.body["next"] is None) == (not link)
            path = link.removeprefix("<").removesuffix('>; rel="next"')
        assert found == list(range(23))
        for one in reply.body["rows"]:
            jsonschema.validate(one, json_schema())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", list(range(12))),
        ("start=2026-01-31T10:30:00Z", [0, 1]),
        ("start=2026-01-31T11:30:00%2B01:00", [0, 1]),
        ("end=2026-01-31T02:00:00Z", [11]),
        ("start=2026-01-31T01:00:00Z&end=2026-01-31T03:00:00Z&order=oldest", [11, 10]),
        ("agent=anna", [2, 7]),
        ("trunk=pbx", [3]),
        ("number=%2B494", [4]),
        ("giid=i1", [1]),
        ("trunk=teams&agent=nobody", []),
        ("limit=2", [0, 1]),
    ],
)
async def test_filters(tmp_path: Path, query: str, expected: list[int]) -> None:
    async with reporting(tmp_path, 12) as site:
        reply = await site.get(f"{PATH}?{query}")
        assert (reply.status, numbers(reply.body)) == (200, expected)


@pytest.mark.parametrize(
    ("query", "accept", "status", "text"),
    [
        ("limit=0", "", 422, "query.limit"),
        ("limit=1001", "", 422, "query.limit"),
        ("start=2026-01-31T10:30:00", "", 422, "query.start"),
        ("start=2026-01-31T10:30:00+01:00", "", 422, "query.start"),
        ("start=2026-02-01T00:00:00Z&end=2026-01-01T00:00:00Z", "", 422, "later than start"),
        ("who=anna", "", 422, "query.who"),
        ("order=best", "", 422, "query.order"),
        ("cursor=moon", "", 400, "none of ours"),
        ("limit=5", "text/csv", 422, "leave them out"),
        ("", "image/png", 406, "text/csv"),
        ("", "text/csv;q=0", 406, "text/csv"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    tmp_path: Path, query: str, accept: str, status: int, text: str
) -> None:
    async with reporting(tmp_path, 1) as site:
        reply = await site.get(f"{PATH}?{query}", headers={"Accept": accept} if accept else {})
        assert (reply.status, reply.body["status"]) == (status, status)
        assert text in reply.body["detail"]


async def test_csv_json_lines_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    async with reporting(tmp_path, 2345) as site:
        by_csv = await site.get(PATH + "?order=oldest", headers={"Accept": "text/csv"})
        assert by_csv.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert 'filename="call-detail.csv"' in by_csv.headers["Content-Disposition"]
        table = list(csv.DictReader(io.StringIO(by_csv.body.decode(), newline="")))
        by_lines = await site.get(PATH + "?order=oldest", headers={"Accept": "application/x-ndjson"})
        lines = [json.loads(line) for line in by_lines.body.splitlines()]
        by_parquet = await site.get(PATH + "?order=oldest", headers={"Accept": MEDIA_TYPE})
        file = pyarrow.parquet.ParquetFile(io.BytesIO(by_parquet.body))
        parquet = file.read().to_pylist()
        expected = [f"{n:032x}" for n in reversed(range(2345))]
        for rows in (table, lines, parquet):
            assert [one["id"] for one in rows] == expected
            assert list(rows[0]) == [column.name for column in COLUMNS]
        assert parquet[-1]["start_time"] == NOON
        assert parquet[-1]["end_time"] - parquet[-1]["answer_time"] == timedelta(seconds=60)
        assert json.loads(parquet[-1]["detail"]) == lines[-1]["detail"] == {"legs": []}
        assert file.schema_arrow.field("talk_time").metadata[b"unit"] == b"seconds"


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson", MEDIA_TYPE])
async def test_an_export_of_nothing_is_whole(tmp_path: Path, accept: str) -> None:
    async with reporting(tmp_path, 1) as site:
        reply = await site.get(PATH + "?agent=nobody", headers={"Accept": accept})
        assert reply.status == 200
        if accept == MEDIA_TYPE:
            assert pyarrow.parquet.ParquetFile(io.BytesIO(reply.body)).metadata.num_rows == 0
        else:
            assert len(reply.body.splitlines()) == (1 if accept == "text/csv" else 0)


async def test_parquet_is_written_in_constant_memory() -> None:
    chunk = [row(n) for n in range(1000)]

    async def rows(chunks: int) -> AsyncIterator[list[Any]]:
        for _ in range(chunks):
            yield chunk

    async def peak(chunks: int) -> tuple[int, int]:
        tracemalloc.start()
        size, groups = 0, 0
        async for piece in as_parquet(rows(chunks), group=1000):
            size, groups = size + len(piece), groups + 1
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert groups == chunks + 1
        return highest, size

    await peak(1)
    (small, few), (large, many) = await peak(2), await peak(20)
    assert many > 5 * few
    assert large < small + 500_000


async def test_a_database_that_is_away_is_503_whatever_the_form(tmp_path: Path) -> None:
    async with reporting(tmp_path, 0) as site:
        for accept in ("application/json", "text/csv", MEDIA_TYPE):
            reply = await site.get(PATH, headers={"Accept": accept})
            assert (reply.status, reply.body["reason"]) == (503, "database_unavailable")
            assert "try again" in reply.body["detail"]


@pytest.mark.parametrize("accept", ["text/csv", MEDIA_TYPE])
async def test_an_export_that_breaks_half_way_is_not_taken_for_whole(tmp_path: Path, accept: str) -> None:
    """The database goes when the first thousand rows are on their way: the reader must notice."""
    async with (
        reporting(tmp_path, 15_000) as site,
        site.session.get(site.url(PATH), headers={**READER, "Accept": accept}, read_bufsize=1024) as response,
    ):
        assert response.status == 200
        await asyncio.to_thread(_lose, tmp_path)
        with pytest.raises(aiohttp.ClientError):
            await response.read()


def _lose(folder: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(folder / "tandem.db")) as connection:
        connection.execute("ALTER TABLE call_detail RENAME TO gone")
        connection.commit()


async def test_a_reader_that_leaves_an_export_costs_nothing(tmp_path: Path) -> None:
    async with reporting(tmp_path, 15_000) as site:
        response = await site.session.get(
            site.url(PATH), headers={**READER, "Accept": "text/csv"}, read_bufsize=1024
        )
        await response.content.read(100)
        response.close()
        assert (await site.get(PATH + "?limit=1")).status == 200


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "a/json"),
        ("*/*", "a/json"),
        ("t/csv", "t/csv"),
        ("T/CSV ; charset=utf-8", "t/csv"),
        ("a/json;q=0.5, t/csv;q=0.8", "t/csv"),
        ("t/*, a/json;q=0.1", "t/csv"),
        ("*/*;q=0.1, a/json;q=0", "t/csv"),
        ("t/csv;q=2, a/json;q=x", None),
        ("csv", None),
        ("x/y", None),
    ],
)
def test_what_an_accept_header_prefers(accept: str, expected: str | None) -> None:
    assert preferred(accept, ["a/json", "t/csv"]) == expected
