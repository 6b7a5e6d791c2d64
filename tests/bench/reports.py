"""`scripts/bench reports`: a million call-detail rows, and what a day of them costs to ask for and to export.

The first 20,000 are made by the real `call_detail` of synthetic calls, spread over thirty days and written by
the real SQL sink into a temporary SQLite database; the others are copies with an id, an interaction and times
of their own, made inside the database because writing a million would say no more and take ten minutes.
Each question is asked in a process of its own, so that its peak memory is its own. Exports are asked for over
HTTP, of the gateway's own route, and the benchmark fails when that of everything takes more memory than a
day's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from gateway.api.call_detail_routes import call_detail_operation
from gateway.cdr import parquet, tables
from gateway.cdr.call_detail import CallDetail, call_detail
from gateway.cdr.report import Query, Reports
from gateway.cdr.sinks_sql import SqlSink
from gateway.events import LegHeld, LegResumed
from gateway.model import LegId, PartyType, Role
from tests.api.site import READER, open_site
from tests.bench.sides import ROOT, SideFailed
from tests.cdr.events import HUNG_UP, History

MAX_ROWS = 2_000_000
_DAYS = 30
_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_DAY = _FIRST_DAY + timedelta(days=14)
_BATCH = 5000
_SEED = 20_000
_SHIFT = 17
_TIMES = ("start_time", "answer_time", "end_time")
_NEW = dict.fromkeys(("id", "global_interaction_id"), "lower(hex(randomblob(16)))")
_TEMPLATES = 400
_AGENTS = 200
_LIMIT = 1800.0
_MORE = 12 << 20
"""Bytes by which the peak of a whole export may exceed a day's: allocators differ by some."""
_FORMS = {"csv": "text/csv", "parquet": parquet.MEDIA_TYPE}
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one question: rows found, seconds, peak resident bytes, the same before the question was asked."""

    rows: int
    seconds: float
    peak: int
    before: int
    bytes_written: int = 0


@dataclass(slots=True)
class Figures:
    """rows: how many there are; written: how many of them by the sink; answers by question."""

    rows: int
    written: int = 0
    write_seconds: float = 0.0
    database_bytes: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)


def templates(count: int = _TEMPLATES) -> list[CallDetail]:
    """Rows of calls to agents, some of them held."""
    rows: list[CallDetail] = []
    for number in range(count):
        history = History(uuid.uuid4().hex).started(f"+1555010{number:04}")
        history.leg("a", Role.CALLER, PartyType.EXTERNAL, f"+1555010{number:04}", "center")
        login = f"agent{number % _AGENTS}"
        history.leg("b", Role.CALLEE, PartyType.AGENT, f"+1555020{number % _AGENTS:04}", "teams", login)
        history.dialled("b").wait(800).ringing("b").wait(2000 + 37 * number)
        history.answered("a", "b").joined("a", "b").wait(20_000 + 500 * number)
        if number % 3 == 0:
            call, leg, by = history.call, LegId("b"), PartyType.AGENT
            history.add(LegHeld(call=call, leg=leg, at=history.at, by=by)).wait(9000)
            history.add(LegResumed(call=call, leg=leg, at=history.at, by=by)).wait(4000)
        rows += call_detail(history.ended(HUNG_UP, "a", "b").events)
    return rows


async def fill(url: str, rows: int) -> float:
    """Write so many rows; the seconds that those took which went through the sink."""
    began = time.monotonic()
    sink, patterns, luck = SqlSink(url), templates(), random.Random(1)
    seed = min(rows, _SEED)
    await sink.open()
    try:
        for first in range(0, seed, _BATCH):
            await sink.write([_spread(luck, patterns) for _ in range(min(_BATCH, seed - first))])
    finally:
        await sink.close()
    seconds = time.monotonic() - began
    await asyncio.to_thread(_copy, url, seed, rows)
    return seconds


def _copy(url: str, seed: int, rows: int) -> None:
    """The first `seed` rows again and again, each time some seconds later, until there are `rows`."""
    names = [column.name for column in tables.call_detail.c]
    indexes = tables.call_detail.indexes | tables.call_detail_agent.indexes
    engine = tables.make(url)
    try:
        with engine.begin() as connection:
            for index in indexes:
                index.drop(connection)
            for number, first in enumerate(range(seed, rows, seed), 1):
                values = {**_NEW, **dict.fromkeys(_TIMES, f"'+{number * _SHIFT} seconds'")}
                chosen = ", ".join(_chosen(name, values.get(name)) for name in names)
                connection.exec_driver_sql(
                    f"INSERT INTO call_detail ({', '.join(names)}) "
                    f"SELECT {chosen} FROM call_detail WHERE rowid <= {min(seed, rows - first)}"
                )
            connection.exec_driver_sql(
                "INSERT OR IGNORE INTO call_detail_agent (id, login_id, start_time) "
                "SELECT id, callee_login_id, start_time FROM call_detail"
            )
            for index in indexes:
                index.create(connection)
    finally:
        engine.dispose()


def _chosen(name: str, new: str | None) -> str:
    if name in _TIMES:
        return f"strftime('%Y-%m-%d %H:%M:%f000', {name}, {new})"
    return new or name


def _spread(luck: random.Random, patterns: Sequence[CallDetail]) -> CallDetail:
    row = luck.choice(patterns)
    start = _FIRST_DAY + timedelta(seconds=luck.randrange(_DAYS * 86400))
    shift = start - row.start_time
    return replace(
        row,
        id=f"{luck.getrandbits(128):032x}",
        global_interaction_id=str(uuid.UUID(int=luck.getrandbits(128))),
        start_time=start,
        answer_time=row.answer_time + shift if row.answer_time else None,
        end_time=row.end_time + shift,
    )


async def measure(rows: int, folder: Path, only: str = "") -> Figures:
    """Ask the questions that have `only` in their words. SideFailed when a process ends badly."""
    if not 0 < rows <= MAX_ROWS:
        raise ValueError(f"at most {MAX_ROWS} rows")
    database = folder / "reports.db"
    figures = Figures(rows, min(rows, _SEED))
    figures.write_seconds = await fill(f"sqlite:///{database}", rows)
    figures.database_bytes = _size(database)
    for question in (words for words in QUESTIONS if only in words):
        figures.answers[question] = await _asked(question, database)
    return figures


def _size(file: Path) -> int:
    return sum(part.stat().st_size for part in file.parent.glob(file.name + "*"))


async def _asked(question: str, database: Path) -> Answer:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.reports", question, str(database)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise SideFailed(f"{question}: exit code {process.returncode}")
    return Answer(**json.loads(output))


# ---- a question, in its own process ------------------------------------------------------------------


def _day() -> Query:
    return Query(start=_DAY, end=_DAY + timedelta(days=1), oldest_first=True)


QUESTIONS: dict[str, tuple[Query, str]] = {
    "a day: first page of 100": (_day(), "page"),
    "a day: every row": (_day(), "rows"),
    "a day: CSV export": (_day(), "csv"),
    "a day: Parquet export": (_day(), "parquet"),
    "an agent: latest 100": (Query(agent="agent7"), "page"),
    "an agent: CSV export": (Query(agent="agent7", oldest_first=True), "csv"),
    "a number: latest 100": (Query(number="+15550100007"), "page"),
    "all: CSV export": (Query(oldest_first=True), "csv"),
    "all: Parquet export": (Query(oldest_first=True), "parquet"),
}
"""What is asked -> the query, and how: one page, all rows, or all rows as a file over HTTP."""


def grown(figures: Figures) -> list[str]:
    """Exports of everything that took more memory than those of a day, in words.

    A day with fewer than three row groups in it fills no export's memory, and says nothing.
    """
    found = []
    for form in ("CSV", "Parquet"):
        day, whole = (figures.answers.get(f"{what}: {form} export") for what in ("a day", "all"))
        if day is None or whole is None or day.rows < 3 * parquet.ROW_GROUP:
            continue
        if whole.peak > day.peak + _MORE:
            more = (whole.peak - day.peak) / 2**20
            found.append(f"{form}: {whole.rows:,} rows took {more:.0f} MiB more than {day.rows:,}")
    return found


async def ask(question: str, database: Path) -> Answer:
    """Ask it here and now."""
    query, how = QUESTIONS[question]
    reports = _Counted(f"sqlite:///{database}")
    before = _peak()
    began = time.monotonic()
    written = rows = 0
    try:
        if how == "page":
            rows = len((await reports.page(query)).rows)
        elif how == "rows":
            async for chunk in reports.stream(query):
                rows += len(chunk)
        else:
            rows, written = await _download(reports, query, how)
    finally:
        await reports.close()
    return Answer(rows, time.monotonic() - began, _peak(), before, written)


class _Counted(Reports):
    """Counts what it streams."""

    rows = 0

    async def stream(self, query: Query, at_most: int | None = None) -> AsyncIterator[Sequence[CallDetail]]:
        async for chunk in super().stream(query, at_most):
            self.rows += len(chunk)
            yield chunk


async def _download(reports: _Counted, query: Query, form: str) -> tuple[int, int]:
    """The rows, and the bytes that came over the wire."""
    moments = {"start": query.start, "end": query.end}
    words = {name: moment.isoformat() for name, moment in moments.items() if moment is not None}
    words |= {"order": "oldest"} | ({"agent": query.agent} if query.agent else {})
    headers, timeout = READER | {"Accept": _FORMS[form]}, aiohttp.ClientTimeout(total=_LIMIT)
    written = 0
    async with open_site(call_detail_operation(reports)) as site:
        url = site.url("/api/v1/call-detail")
        async with site.session.get(url, params=words, headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            async for piece in response.content.iter_chunked(_CHUNK):
                written += len(piece)
    return reports.rows, written


def _peak() -> int:
    """Of this program alone: `ru_maxrss` would begin with what the parent had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def table(figures: Figures) -> list[tuple[str, ...]]:
    """Head and lines."""
    head = (f"{figures.rows:,} rows", "rows", "seconds", "rows/s", "peak MiB", "of it for the question")
    lines: list[tuple[str, ...]] = [head]
    for question, answer in figures.answers.items():
        speed = f"{answer.rows / answer.seconds:,.0f}" if answer.seconds else "-"
        peak, more = answer.peak / 2**20, (answer.peak - answer.before) / 2**20
        lines.append(
            (question, f"{answer.rows:,}", f"{answer.seconds:.3f}", speed, f"{peak:.0f}", f"{more:.0f}")
        )
    each = figures.written / figures.write_seconds
    size = f"database {figures.database_bytes / 2**20:.0f} MiB"
    wrote = ("the SQL sink wrote", f"{figures.written:,}", f"{figures.write_seconds:.1f}", f"{each:,.0f}")
    lines.append((*wrote, "", size))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.reports")
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("database", type=Path)
    options = parser.parse_args()
    answer: Any = asyncio.run(ask(options.question, options.database))
    print(json.dumps({name: getattr(answer, name) for name in Answer.__slots__}))


if __name__ == "__main__":
    main()
