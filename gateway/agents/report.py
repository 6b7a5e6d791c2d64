"""Questions to agent activity: filters and pages by (start_time, id), as for call detail."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, select, tuple_

from gateway.agents import tables
from gateway.agents.activity import ActivityName, ActivityRow
from gateway.agents.database import AgentDatabase
from gateway.errors import TandemError

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
    return ActivityPage(tuple(found), _cursor(found[-1]) if more else "")


def _statement(query: ActivityQuery) -> Select[Any]:
    table = tables.agent_activity.c
    wanted = select(tables.agent_activity)
    for moment in (query.start, query.end):
        if moment is not None and moment.tzinfo is None:
            raise ActivityQueryError("a time needs its zone, for example 2026-01-31T00:00:00Z")
    if query.start is not None:
        wanted = wanted.where(table.start_time >= query.start)
    if query.end is not None:
        wanted = wanted.where(table.start_time < query.end)
    for column, value in (
        (table.login_id, query.agent),
        (table.team_name, query.team),
        (table.activity, query.activity),
    ):
        if value:
            wanted = wanted.where(column == value)
    if query.cursor:
        here, there = tuple_(table.start_time, table.id), tuple_(*_parse(query.cursor))
        wanted = wanted.where(here > there if query.oldest_first else here < there)
    order = (table.start_time, table.id) if query.oldest_first else (table.start_time.desc(), table.id.desc())
    return wanted.order_by(*order).limit(query.limit + 1)


def _cursor(row: ActivityRow) -> str:
    text = f"{round(row.start_time.timestamp() * 1_000_000)}:{row.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        micros, _, row_id = text.partition(":")
        seconds, rest = divmod(int(micros), 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest), row_id
    except (ValueError, binascii.Error, OverflowError, OSError) as error:
        raise ActivityQueryError("the cursor is none of ours: take it from the page before") from error
