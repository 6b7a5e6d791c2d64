"""Pages of rows by (moment, id): one way to order, to go on after a row, and to name its place.

Rows that arrive meanwhile neither repeat nor hide others, and the millionth page costs what the first does.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, tuple_


def cursor_of(moment: datetime, row_id: str) -> str:
    """The place of a row as text that is opaque to callers. moment: aware, microseconds count."""
    text = f"{round(moment.timestamp() * 1_000_000)}:{row_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[datetime, str]:
    """Inverse of `cursor_of`; ValueError for what is none of ours."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        micros, _, row_id = text.partition(":")
        seconds, rest = divmod(int(micros), 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest), row_id
    except (ValueError, binascii.Error, OverflowError, OSError) as error:
        raise ValueError("the cursor is none of ours; take it from the page before, unchanged") from error


def order(moment: Column[Any], row_id: Column[Any], *, oldest_first: bool) -> tuple[ColumnElement[Any], ...]:
    """What to ORDER BY."""
    return (moment, row_id) if oldest_first else (moment.desc(), row_id.desc())


def within(
    moment: Column[Any],
    row_id: Column[Any],
    *,
    start: datetime | None,
    end: datetime | None,
    cursor: str,
    oldest_first: bool,
) -> list[ColumnElement[bool]]:
    """Conditions: moment in [start, end), and after the cursor's row in the order. ValueError."""
    for one in (start, end):
        if one is not None and one.tzinfo is None:
            raise ValueError("a time needs its zone, for example 2026-01-31T00:00:00Z")
    conditions: list[ColumnElement[bool]] = []
    if start is not None:
        conditions.append(moment >= start)
    if end is not None:
        conditions.append(moment < end)
    if cursor:
        here, there = tuple_(moment, row_id), tuple_(*place_of(cursor))
        conditions.append(here > there if oldest_first else here < there)
    return conditions
