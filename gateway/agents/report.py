"""Questions to agent activity: filters and pages by (start_time, id), as for call detail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from gateway.agents import tables
from gateway.agents.activity import ActivityName, ActivityRow
from gateway.agents.database import AgentDatabase
from gateway.errors import TandemError
from gateway.paging import cursor_of, order, within

MAX_LIMIT = 1000


class ActivityQueryError(TandemError):
    """A question that makes no sense (HTTP 422)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityQuery:
    """What to find; empty fields do not narrow. start, end: aware; rows that begin in [start, end).

    cursor: `ActivityPage.next` of the page before; newest first unless `oldest_first`
    """

    start: datetime | None = None
    end: datetime | None = None
    agent: str = ""
    team: str = ""
    activity: str = ""
    oldest_first: bool = False
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """Rows and the cursor of the next page, "" when this is the last."""

    rows: tuple[ActivityRow, ...]
    next: str


async def activity_page(database: AgentDatabase, query: ActivityQuery) -> ActivityPage:
    """One page. ActivityQueryError, StoreUnavailable."""
    if not 1 <= query.limit <= MAX_LIMIT:
        raise ActivityQueryError(f"limit must be 1 to {MAX_LIMIT}")
    statement = _statement(query)

    def read(connection: Connection) -> list[ActivityRow]:
        return [
            ActivityRow(**{**row, "activity": ActivityName(row["activity"])})
            for row in connection.execute(statement).mappings()
        ]

    found = await database.run(read)
    more = len(found) > query.limit
    found = found[: query.limit]
    last = found[-1] if more else None
    return ActivityPage(tuple(found), cursor_of(last.start_time, last.id) if last else "")


def _statement(query: ActivityQuery) -> Select[Any]:
    table = tables.agent_activity.c
    try:
        conditions = within(
            table.start_time,
            table.id,
            start=query.start,
            end=query.end,
            cursor=query.cursor,
            oldest_first=query.oldest_first,
        )
    except ValueError as error:
        raise ActivityQueryError(str(error)) from error
    for column, value in (
        (table.login_id, query.agent),
        (table.team_name, query.team),
        (table.activity, query.activity),
    ):
        if value:
            conditions.append(column == value)
    return (
        select(tables.agent_activity)
        .where(*conditions)
        .order_by(*order(table.start_time, table.id, oldest_first=query.oldest_first))
        .limit(query.limit + 1)
    )
