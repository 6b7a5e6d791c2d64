"""`GET /api/v1/call-detail`: rows in pages as JSON; everything that matches as CSV, JSON lines or Parquet."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal
from urllib.parse import urlencode

from aiohttp import web
from pydantic import AwareDatetime, Field

from gateway.api.accept import preferred
from gateway.api.operation import Answer, Asked, Operation, Parameters
from gateway.api.problems import Problem
from gateway.cdr import parquet
from gateway.cdr.call_detail import CallDetail
from gateway.cdr.columns import json_schema
from gateway.cdr.export import Rows, as_csv, as_json_lines
from gateway.cdr.report import MAX_LIMIT, Query, ReportError, Reports, ReportUnavailable

log = logging.getLogger("tandem.api")

_JSON = "application/json"
_EXPORTS: dict[str, tuple[Callable[[Rows], AsyncIterator[str | bytes]], str]] = {
    "text/csv": (as_csv, "csv"),
    "application/x-ndjson": (as_json_lines, "ndjson"),
    parquet.MEDIA_TYPE: (parquet.as_parquet, "parquet"),
}
"""Media type -> how it is made, and the ending of the file's name."""

DESCRIPTION = f"""\
`Accept` decides the form. `{_JSON}` (the default) comes in pages: `next` is the cursor of the next one, which
the `Link` header has as a whole address. The other forms are everything that matches in one stream, however
much it is; `limit` and `cursor` are not for them. The columns are those of every sink.
"""


class CallDetailQuery(Parameters):
    start: AwareDatetime | None = Field(
        default=None, description="calls that began at this moment or later, such as 2026-01-31T00:00:00Z"
    )
    end: AwareDatetime | None = Field(default=None, description="calls that began before this moment")
    agent: str = Field(
        default="", description="login of an agent who had a leg: caller, callee, participant or supervisor"
    )
    number: str = Field(default="", description="exactly one of the row's five phone numbers")
    trunk: str = Field(default="", description="name of the caller's or the callee's trunk")
    giid: str = Field(default="", description="global interaction id")
    order: Literal["newest", "oldest"] = Field(default="newest", description="which rows come first")
    limit: int | None = Field(default=None, ge=1, le=MAX_LIMIT, description="rows a page, 100 if not said")
    cursor: str = Field(default="", description="`next` of the page before")


def call_detail_operation(reports: Reports) -> Operation:
    async def serve(asked: Asked[None, CallDetailQuery]) -> web.StreamResponse:
        query, request = asked.query, asked.request
        if query.start is not None and query.end is not None and query.end <= query.start:
            raise Problem(422, "query.end: it must be later than start", reason="invalid")
        kind = preferred(request.headers.get("Accept", ""), (_JSON, *_EXPORTS))
        if kind is None:
            raise Problem(406, f"call detail comes as {_JSON}, {', '.join(_EXPORTS)}: accept one of them")
        wanted = Query(
            start=query.start,
            end=query.end,
            agent=query.agent,
            number=query.number,
            trunk=query.trunk,
            giid=query.giid,
            oldest_first=query.order == "oldest",
            limit=query.limit or 100,
            cursor=query.cursor,
        )
        try:
            if kind == _JSON:
                return await _page(request, reports, wanted)
            if query.limit is not None or query.cursor:
                raise Problem(
                    422, f"limit and cursor are for pages of {_JSON}: leave them out", reason="invalid"
                )
            return await _export(request, kind, reports.stream(wanted))
        except ReportError as error:
            raise Problem(400, str(error), reason="bad_query") from error
        except ReportUnavailable as error:
            raise Problem(
                503,
                f"{error}: try again later, the rows wait",
                headers={"Retry-After": "5"},
                reason="database_unavailable",
            ) from error

    page = {
        "type": "object",
        "properties": {
            "rows": {"type": "array", "items": json_schema()},
            "next": {"type": ["string", "null"], "description": "cursor of the next page; null = no more"},
        },
        "required": ["rows", "next"],
    }
    return Operation(
        method="GET",
        path="/api/v1/call-detail",
        name="callDetail",
        tag="call detail",
        summary="Rows of calls that have ended",
        description=DESCRIPTION,
        query=CallDetailQuery,
        handler=serve,
        head=False,
        errors=frozenset({400, 406, 503}),
        answers=(
            Answer(
                200,
                "The rows",
                {_JSON: page, **dict.fromkeys(_EXPORTS)},
                {"Link": 'address of the next page, rel="next"; not on the last'},
            ),
        ),
    )


async def _page(request: web.Request, reports: Reports, query: Query) -> web.Response:
    page = await reports.page(query)
    headers = {"Vary": "Accept"}
    if page.next:
        address = f"{request.path}?{urlencode({**request.query, 'cursor': page.next})}"
        headers["Link"] = f'<{address}>; rel="next"'
    document: dict[str, Any] = {"rows": [row.to_dict() for row in page.rows], "next": page.next or None}
    return web.json_response(document, headers=headers)


async def _export(
    request: web.Request, kind: str, rows: AsyncIterator[Sequence[CallDetail]]
) -> web.StreamResponse:
    """Begins only once the database has answered; when it fails later the connection is broken off."""
    make, ending = _EXPORTS[kind]
    first = await anext(rows, None)
    response = web.StreamResponse(
        headers={"Vary": "Accept", "Content-Disposition": f'attachment; filename="call-detail.{ending}"'}
    )
    response.content_type = kind
    if kind == "text/csv":
        response.charset = "utf-8"
    await response.prepare(request)
    try:
        async with aclosing(_bytes(make(_with_first(first, rows)))) as pieces:
            async for piece in pieces:
                await response.write(piece)
        await response.write_eof()
    except ConnectionError:
        log.info("event=export_left remote=%s", request.remote)
    except Exception as error:
        known = isinstance(error, ReportUnavailable)
        log.error(
            "event=export_broken remote=%s cause=%s", request.remote, error, exc_info=None if known else error
        )
        # An answer that is under way can only be made to look as incomplete as it is.
        if request.transport is not None:
            request.transport.abort()
    return response


async def _with_first(
    first: Sequence[CallDetail] | None, rows: AsyncIterator[Sequence[CallDetail]]
) -> AsyncIterator[Sequence[CallDetail]]:
    if first is not None:
        yield first
    async for chunk in rows:
        yield chunk


async def _bytes(pieces: AsyncIterator[str | bytes]) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in pieces:
            yield piece.encode() if isinstance(piece, str) else piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
