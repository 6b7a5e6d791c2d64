"""`tandem cdr`: call detail from the database, as a table or JSON lines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from gateway.cdr import tables
from gateway.cdr.call_detail import CallDetail
from gateway.config import load
from gateway.errors import ConfigError
from gateway.exit_codes import ExitCode
from gateway.tables_text import table

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_BATCH = 500


@dataclass(frozen=True)
class Filters:
    """What `tandem cdr` shows: calls that began in [since, until), each further value narrowing it.

    agent:  login of the caller or callee
    number: any of the call's phone numbers, exactly
    trunk:  of the caller or callee
    limit:  the latest so many; 0 = all
    """

    since: datetime | None = None
    until: datetime | None = None
    agent: str = ""
    number: str = ""
    trunk: str = ""
    interaction: str = ""
    limit: int = 100


def moment(text: str, now: datetime | None = None) -> datetime:
    """`2026-01-31`, `2026-01-31T12:00`, with or without offset (UTC without), or `90m`, `24h`, `7d` ago."""
    ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if ago:
        return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def query(filters: Filters) -> Select[Any]:
    """Latest calls first."""
    columns = tables.call_detail.c
    wanted = select(tables.call_detail).order_by(columns.start_time.desc(), columns.id.desc())
    if filters.since is not None:
        wanted = wanted.where(columns.start_time >= filters.since)
    if filters.until is not None:
        wanted = wanted.where(columns.start_time < filters.until)
    for value, names in (
        (filters.agent, ("caller_login_id", "callee_login_id")),
        (filters.number, ("from_phone", "original_destination_phone", "connected_to_phone")),
        (filters.trunk, ("caller_trunk", "callee_trunk")),
        (filters.interaction, ("global_interaction_id",)),
    ):
        if value:
            wanted = wanted.where(or_(*(columns[name] == value for name in names)))
    return wanted.limit(filters.limit) if filters.limit else wanted


def rows(url: str, filters: Filters) -> Iterator[CallDetail]:
    """Matching rows, in constant memory; LookupError when the database was never written."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        raise LookupError(f"no database yet: {parsed.database}")
    engine = tables.make(url)
    try:
        with engine.connect().execution_options(yield_per=_BATCH) as connection:
            for row in connection.execute(query(filters)).mappings():
                yield CallDetail.from_dict(dict(row))
    finally:
        engine.dispose()


def cdr(path: Path, filters: Filters, *, as_json: bool) -> ExitCode:
    """Print the rows, latest first; UNAVAILABLE when there is no database to read."""
    try:
        url = load(path).database_url
    except ConfigError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.CONFIG
    try:
        found = rows(url, filters)
        if as_json:
            for row in found:
                print(json.dumps(row.to_dict(), ensure_ascii=False))
        else:
            print(overview(list(found)))
    except LookupError as error:
        print(f"tandem: {error.args[0]}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
        print(f"tandem: the database cannot be read: {cause}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    return ExitCode.OK


_HEADS = [
    "START (UTC)",
    "TYPE",
    "FROM",
    "TO",
    "TALK",
    "HOLD",
    "DURATION",
    "SIP",
    "DISPOSITION",
    "REASON",
    "ID",
]


def overview(found: list[CallDetail]) -> str:
    """One line a call; `--json` has all columns."""
    if not found:
        return "no calls"
    lines = [
        (
            row.start_time.strftime("%Y-%m-%d %H:%M:%S"),
            row.type,
            row.from_phone or "-",
            row.connected_to_phone or row.original_destination_phone or "-",
            f"{row.talk_time} s" if row.answer_time else "-",
            f"{row.hold_time} s" if row.answer_time else "-",
            f"{row.duration} s",
            str(row.sip_code),
            row.disposition,
            row.reason,
            row.id,
        )
        for row in found
    ]
    return table(_HEADS, lines)
