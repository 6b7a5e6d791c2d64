"""Questions to the call detail: filters, pages, and everything that matches in constant memory.

Pages and streams walk by (start_time, id), as `gateway.paging` has it. Blocking SQL runs in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, RowMapping, Select, Table, or_, select, union
from sqlalchemy.exc import SQLAlchemyError

from gateway.cdr import tables
from gateway.cdr.call_detail import CallDetail
from gateway.errors import TandemError
from gateway.paging import cursor_of, order, within
from gateway.threads import Threads

MAX_LIMIT = 1000
_CHUNK = 1000
_THREADS = 4


class ReportError(TandemError):
    """The question makes no sense: a cursor that is none, a limit or range out of bounds (HTTP 400)."""


class ReportUnavailable(TandemError):
    """The database does not answer (HTTP 503). cause: the driver's own words, for an engineer's eyes."""

    def __init__(self, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to find; empty fields do not narrow.

    start, end: the calls whose start_time lies in [start, end), aware datetimes
    agent:      login of any agent who had a leg: caller, callee, participant, supervisor
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
        self._threads = Threads("reports", _THREADS)

    async def close(self) -> None:
        self._threads.close(wait=False)
        await asyncio.to_thread(self._engine.dispose)

    async def page(self, query: Query) -> Page:
        """One page. ReportError, ReportUnavailable."""
        if not 1 <= query.limit <= MAX_LIMIT:
            raise ReportError(f"limit must be 1 to {MAX_LIMIT}")
        rows = await self._ask(query, query.limit + 1)
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        return Page(tuple(rows), _place(rows[-1]) if more else "")

    async def stream(self, query: Query, at_most: int | None = None) -> AsyncIterator[Sequence[CallDetail]]:
        """Everything that matches, or the first `at_most`; a thousand rows at a time and no more in memory.

        `limit` is for pages and does not count here.
        """
        left = at_most
        while left is None or left > 0:
            size = _CHUNK if left is None else min(_CHUNK, left)
            rows = await self._ask(query, size)
            if rows:
                yield rows
            if len(rows) < size:
                return
            left = None if left is None else left - size
            query = replace(query, cursor=_place(rows[-1]))

    async def _ask(self, query: Query, limit: int) -> list[CallDetail]:
        try:
            async with asyncio.timeout(tables.PATIENCE):
                return await self._threads.run(self._fetch, query, limit)
        except TimeoutError as error:
            cause = f"no answer within {tables.PATIENCE:.0f} s"
            raise ReportUnavailable("call detail cannot be read: TimeoutError", cause) from error

    def _fetch(self, query: Query, limit: int) -> list[CallDetail]:
        statement = statement_of(query, limit)
        try:
            with self._engine.connect() as connection:
                return [_row(found) for found in connection.execute(statement).mappings()]
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
            raise ReportUnavailable(f"call detail cannot be read: {type(error).__name__}", cause) from error


def statement_of(query: Query, limit: int) -> Select[Any]:
    """The SELECT of a query, from its cursor on. ReportError for a cursor or range that cannot be.

    "One of several columns" is asked as one question a column, each answered by its own index in order and
    no further than `limit`: an OR would make the database collect and sort every row of a busy agent. For
    the same reason agents have a table of their own with the call's moment in it.
    """
    table = tables.call_detail.c
    others: list[ColumnElement[bool]] = [table.global_interaction_id == query.giid] if query.giid else []
    asked = [
        [table[name] == value for name in names]
        for value, names in ((query.number, tables.NUMBERS), (query.trunk, tables.TRUNKS))
        if value
    ]
    if query.agent and not query.number:
        others += [or_(*choices) for choices in asked]
        parts = [_of_agent(query, others, limit)]
    else:
        if query.agent:
            others.append(_has_agent(query.agent))
        others += [or_(*choices) for choices in asked[1:]]
        parts = [_of_column(query, [choice, *others], limit) for choice in asked[0]] if asked else []
    conditions = _within(query, tables.call_detail) + others
    if parts:
        found = [part.subquery() for part in parts]
        conditions = [table.id.in_(union(*(select(part.c.id) for part in found)))]
    return select(tables.call_detail).where(*conditions).order_by(*_order(query)).limit(limit)


def _of_column(query: Query, conditions: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    """Ids of the first rows that match."""
    within_range = _within(query, tables.call_detail)
    return (
        select(tables.call_detail.c.id)
        .where(*conditions, *within_range)
        .order_by(*_order(query))
        .limit(limit)
    )


def _of_agent(query: Query, others: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    """Ids of the agent's first calls; `others` are conditions on the calls themselves."""
    agent, call = tables.call_detail_agent, tables.call_detail
    conditions = [agent.c.login_id == query.agent, *_within(query, agent)]
    if others:
        conditions.append(select(call.c.id).where(call.c.id == agent.c.id, *others).exists())
    return select(agent.c.id).where(*conditions).order_by(*_order(query, agent)).limit(limit)


def _has_agent(login: str) -> ColumnElement[bool]:
    agent = tables.call_detail_agent.c
    return select(agent.id).where(agent.id == tables.call_detail.c.id, agent.login_id == login).exists()


def _order(query: Query, table: Table = tables.call_detail) -> tuple[ColumnElement[Any], ...]:
    return order(table.c.start_time, table.c.id, oldest_first=query.oldest_first)


def _within(query: Query, table: Table) -> list[ColumnElement[bool]]:
    try:
        return within(
            table.c.start_time,
            table.c.id,
            start=query.start,
            end=query.end,
            cursor=query.cursor,
            oldest_first=query.oldest_first,
        )
    except ValueError as error:
        raise ReportError(str(error)) from error


def _place(row: CallDetail) -> str:
    return cursor_of(row.start_time, row.id)


def _row(found: RowMapping) -> CallDetail:
    values: Mapping[str, Any] = dict(found)
    return CallDetail.from_dict(dict(values))
