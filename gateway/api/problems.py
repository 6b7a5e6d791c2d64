"""Errors of the HTTP API as problem details (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import TandemError

log = logging.getLogger("tandem.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


URN = "urn:tandem:problem:"
"""The type of a problem is this and its reason; `about:blank` where the status says it all."""


class ProblemDocument(BaseModel):
    """What every failed request gets (RFC 9457); further members may follow."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description=f"`{URN}` and the reason, or `about:blank`")
    title: str
    status: int
    detail: str | None = Field(default=None, description="the cause and, where there is one, the cure")
    instance: str | None = Field(default=None, description="the path asked for")
    reason: str | None = Field(default=None, description="one word_joined_so of a bounded set")


class Problem(TandemError):
    """Raise it in a handler to answer with a problem document.

    detail: what is wrong with this request, for the person who made it
    reason: one word of a bounded set, for the program that made it; it makes the problem's type
    more:   further members of the document, such as `"errors"`; JSON values
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        reason: str = "",
        **more: Any,
    ) -> None:
        self.status, self.detail, self.more, self.headers = status, detail, more, headers or {}
        self.reason = reason
        super().__init__(f"{status} {detail}")


def problem_response(
    status: int,
    detail: str = "",
    headers: dict[str, str] | None = None,
    *,
    reason: str = "",
    instance: str = "",
    **more: Any,
) -> web.Response:
    """`application/problem+json` as a ProblemDocument."""
    document = ProblemDocument(
        type=f"{URN}{reason}" if reason else "about:blank",
        title=reason.replace("_", " ").capitalize() or HTTPStatus(status).phrase,
        status=status,
        detail=detail or None,
        instance=instance or None,
        reason=reason or None,
        **more,
    )
    return web.Response(
        status=status,
        text=document.model_dump_json(exclude_none=True),
        content_type="application/problem+json",
        headers=headers,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure becomes a problem document; what we did not expect is logged and not shown."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem_response(
            problem.status,
            problem.detail,
            problem.headers,
            reason=problem.reason,
            instance=request.path,
            **problem.more,
        )
    except web.HTTPException as error:
        if error.status < 400:
            raise
        keep = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        return problem_response(error.status, headers=keep, instance=request.path)
    except Exception:
        log.exception("event=request_failed method=%s path=%s", request.method, request.path)
        return problem_response(500, "the gateway's log says more", instance=request.path)
