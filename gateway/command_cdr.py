"""`tandem cdr`: call detail from the database, asked as `GET /api/v1/call-detail` asks, in the same forms."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.engine import make_url

from gateway.cdr.call_detail import CallDetail
from gateway.cdr.export import Rows, as_csv, as_json, as_json_lines
from gateway.cdr.parquet import as_parquet
from gateway.cdr.report import Query, Reports, ReportUnavailable
from gateway.config import load
from gateway.errors import ConfigError
from gateway.exit_codes import ExitCode
from gateway.tables_text import table

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_FORMS: dict[str, Callable[[Rows], AsyncIterator[str | bytes]]] = {
    "json": as_json,
    "ndjson": as_json_lines,
    "csv": as_csv,
    "parquet": as_parquet,
}
FORMATS = ("table", *_FORMS)
"""What `--format` takes; `ndjson` is one JSON object a line, which `--json` means too."""
TABLE_ROWS = 100
"""How many calls the table shows where no limit is said; the other forms have everything that matches."""


def moment(text: str, now: datetime | None = None) -> datetime:
    """`2026-01-31`, `2026-01-31T12:00`, with or without offset (UTC without), or `90m`, `24h`, `7d` ago."""
    ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if ago:
        return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def cdr(
    path: Path, query: Query, *, form: str = "table", limit: int | None = None, output: Path | None = None
) -> ExitCode:
    """Print what matches, or write it to the file `output`; UNAVAILABLE when there is no database to read.

    form:  one of FORMATS
    limit: at most so many rows; 0 = all; None = TABLE_ROWS in a table, all in the other forms
    """
    try:
        url = load(path).database_url
    except ConfigError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.CONFIG
    if form == "parquet" and output is None and sys.stdout.isatty():
        print("tandem: Parquet is not for the eye: give --output FILE, or a pipe", file=sys.stderr)
        return ExitCode.USAGE
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        print(f"tandem: no database yet: {parsed.database}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    at_most = (TABLE_ROWS if form == "table" else None) if limit is None else limit or None
    try:
        asyncio.run(_print(url, query, form, at_most, output))
    except BrokenPipeError:
        # the reader has seen enough; nothing may be flushed to it at exit
        with contextlib.suppress(OSError):
            sys.stdout.close()
    except ReportUnavailable as error:
        print(f"tandem: the database cannot be read: {error.cause}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    except OSError as error:
        print(f"tandem: {output or 'standard output'}: {error.strerror}", file=sys.stderr)
        return ExitCode.CANNOT_CREATE
    return ExitCode.OK


async def _print(url: str, query: Query, form: str, at_most: int | None, output: Path | None) -> None:
    reports = Reports(url)
    try:
        rows = reports.stream(query, at_most)
        make = _FORMS.get(form, _as_overview)
        # the first rows are fetched before a file is begun: a database that is down leaves none
        first = await anext(rows, None)
        async with aclosing(_bytes(make(_again(first, rows)))) as pieces:
            with open(output, "wb") if output is not None else contextlib.nullcontext() as file:  # noqa: ASYNC230
                stream = file or sys.stdout.buffer
                async for piece in pieces:
                    stream.write(piece)
                stream.flush()
    finally:
        await reports.close()


async def _again(first: Sequence[CallDetail] | None, rows: Rows) -> Rows:
    if first is not None:
        yield first
    async for chunk in rows:
        yield chunk


async def _bytes(pieces: AsyncIterator[str | bytes]) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        yield piece.encode() if isinstance(piece, str) else piece


async def _as_overview(rows: Rows) -> AsyncIterator[str | bytes]:
    """Everything at once: columns are as wide as their widest cell."""
    found = [row async for chunk in rows for row in chunk]
    yield overview(found) + "\n"


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


def overview(found: Sequence[CallDetail]) -> str:
    """One line a call; the other forms have all columns."""
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
