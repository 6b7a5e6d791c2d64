"""Questions to the call detail: filters, pages, and everything that matches in constant memory.

Pages and streams walk by (start_time, id), so rows that arrive meanwhile neither repeat nor hide others, and
the millionth page costs what the first does. Blocking SQL runs in threads.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, RowMapping, Select, or_, select, tuple_, union
from sqlalchemy.exc import SQLAlchemyError

from gateway.cdr import tables
from gateway.cdr.call_detail import CallDetail
from gateway.errors import TandemError

MAX_LIMIT = 1000
_CHUNK = 1000


class ReportError(TandemError):
    """The question makes no sense: a cursor that is none, a limit or range out of bounds (HTTP 400)."""


class ReportUnavailable(TandemError):
    """The database does not answer (HTTP 503)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to find; empty fields do not narrow.

    start, end: the calls whose start_time lies in [start, end), aware datetimes
    agent:      login of the caller or the callee
    number:     exactly one of the five phone columns
    trunk:      name, of the caller or the callee
    giid:       global interaction id
    oldest_first: order by start_time; newest first otherwise
    limit:      rows a page, 1..1000
    cursor:     `Page.next` of the page before
    """

    start: datetime | None = None
    end: datetime | None = None
    agent: str = ""
    number: str = ""
    trunk: str = ""
    giid: str = ""
    oldest_first: bool = False
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows and the cursor of the next page, "" when this is the last."""

    rows: tuple[CallDetail, ...]
    next: str


class Reports:
    """Reads what the SQL sink of the same `url` writes; `close` gives the connections back."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = tables.make(url)

    async def close(self) -> None:
        await asyncio.to_thread(self._engine.dispose)

    async def page(self, query: Query) -> Page:
        """One page. ReportError, ReportUnavailable."""
        if not 1 <= query.limit <= MAX_LIMIT:
            raise ReportError(f"limit must be 1 to {MAX_LIMIT}")
        rows = await asyncio.to_thread(self._fetch, query, query.limit + 1)
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        return Page(tuple(rows), cursor_of(rows[-1]) if more else "")

    async def stream(self, query: Query) -> AsyncIterator[Sequence[CallDetail]]:
        """Everything that matches, `limit` apart, a thousand rows at a time and no more in memory."""
        while True:
            rows = await asyncio.to_thread(self._fetch, query, _CHUNK)
            if rows:
                yield rows
            if len(rows) < _CHUNK:
                return
            query = replace(query, cursor=cursor_of(rows[-1]))

    def _fetch(self, query: Query, limit: int) -> list[CallDetail]:
        statement = statement_of(query, limit)
        try:
            with self._engine.connect() as connection:
                return [_row(found) for found in connection.execute(statement).mappings()]
        except SQLAlchemyError as error:
            raise ReportUnavailable(f"call detail cannot be read: {type(error).__name__}") from error


def statement_of(query: Query, limit: int) -> Select[Any]:
    """The SELECT of a query, from its cursor on. ReportError for a cursor or range that cannot be.

    "One of several columns" is asked as one question a column, each answered by its own index in order and
    no further than `limit`: an OR would make the database collect and sort every row of a busy agent.
    """
    table = tables.call_detail.c
    conditions = _range(query)
    if query.giid:
        conditions.append(table.global_interaction_id == query.giid)
    asked = [
        [table[name] == value for name in names]
        for value, names in (
            (query.number, tables.NUMBERS),
            (query.agent, tables.AGENTS),
            (query.trunk, tables.TRUNKS),
        )
        if value
    ]
    order = (table.start_time, table.id) if query.oldest_first else (table.start_time.desc(), table.id.desc())
    if asked:
        conditions += [or_(*choices) for choices in asked[1:]]
        found = [
            select(table.id).where(choice, *conditions).order_by(*order).limit(limit).subquery()
            for choice in asked[0]
        ]
        conditions = [table.id.in_(union(*(select(part.c.id) for part in found)))]
    return select(tables.call_detail).where(*conditions).order_by(*order).limit(limit)


def _range(query: Query) -> list[ColumnElement[bool]]:
    table = tables.call_detail.c
    for moment in (query.start, query.end):
        if moment is not None and moment.tzinfo is None:
            raise ReportError("a time needs its zone, for example 2026-01-31T00:00:00Z")
    conditions: list[ColumnElement[bool]] = []
    if query.start is not None:
        conditions.append(table.start_time >= query.start)
    if query.end is not None:
        conditions.append(table.start_time < query.end)
    if query.cursor:
        moment, row_id = _parse_cursor(query.cursor)
        here, there = tuple_(table.start_time, table.id), tuple_(moment, row_id)
        conditions.append(here > there if query.oldest_first else here < there)
    return conditions


def cursor_of(row: CallDetail) -> str:
    """Opaque to callers: the place of `row` in the order."""
    text = f"{int(row.start_time.timestamp())}:{row.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        seconds, _, row_id = text.partition(":")
        return datetime.fromtimestamp(int(seconds), UTC), row_id
    except (ValueError, binascii.Error, OverflowError, OSError) as error:
        raise ReportError("the cursor is none of ours; take it from the page before, unchanged") from error


def _row(found: RowMapping) -> CallDetail:
    values: Mapping[str, Any] = dict(found)
    return CallDetail.from_dict(dict(values))
