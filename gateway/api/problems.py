"""Errors of the HTTP API as problem details (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from gateway.errors import TandemError

log = logging.getLogger("tandem.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(TandemError):
    """Raise it in a handler to answer with a problem document.

    detail: what is wrong with this request, for the person who made it
    more:   further members of the document, such as `"errors"`; JSON values
    """

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        self.status, self.detail, self.more, self.headers = status, detail, more, headers or {}
        super().__init__(f"{status} {detail}")


def problem_response(
    status: int, detail: str = "", headers: dict[str, str] | None = None, **more: Any
) -> web.Response:
    """`application/problem+json` with type, title, status and detail."""
    document: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail:
        document["detail"] = detail
    return web.Response(
        status=status,
        text=json.dumps(document | more),
        content_type="application/problem+json",
        headers=headers,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure becomes a problem document; what we did not expect is logged and not shown."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem_response(problem.status, problem.detail, problem.headers, **problem.more)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        keep = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        return problem_response(error.status, headers=keep)
    except Exception:
        log.exception("event=request_failed method=%s path=%s", request.method, request.path)
        return problem_response(500, "the gateway's log says more")
