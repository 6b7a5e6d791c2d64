"""The Agent Desktop at `/desk/`. Files are read once: a request's path is a key, never a place on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.api.operation import Answer, Asked, Operation
from gateway.api.problems import Problem

FOLDER = Path(__file__).resolve().parent.parent / "web"
DESK = "/desk/"
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""`no-cache`: a browser may keep a file and asks each time, by its ETag, whether it is still the one."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    type: str
    etag: str


def _read(folder: Path) -> dict[str, _File]:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in _TYPES and path.is_file():
            content = path.read_bytes()
            found[path.name] = _File(content, _TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:32])
    return found


def web_operations(folder: Path = FOLDER) -> list[Operation]:
    """The page, its files, and the way there from `/`. OSError when the folder cannot be read."""
    files = _read(folder)

    def answer(request: web.Request, name: str) -> web.StreamResponse:
        file = files.get(name)
        if file is None:
            raise Problem(404, f"the Agent Desktop has no file {name!r}", reason="unknown_file")
        headers = {**_HEADERS, "ETag": f'"{file.etag}"'}
        if any(tag.value in (file.etag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.content, content_type=file.type, charset="utf-8", headers=headers)

    async def page(asked: Asked[None, None]) -> web.StreamResponse:
        return answer(asked.request, _INDEX)

    async def file(asked: Asked[None, None]) -> web.StreamResponse:
        return answer(asked.request, asked.path("file"))

    async def lead(asked: Asked[None, None]) -> web.StreamResponse:
        query = asked.request.query_string
        return web.Response(status=302, headers={"Location": DESK + (f"?{query}" if query else "")})

    make = partial(Operation, method="GET", tag="desktop", token=False)
    fresh = Answer(304, "The browser has it")
    html: dict[str, Any] = {"text/html": {"type": "string"}}
    there = Answer(302, "To the Agent Desktop", headers={"Location": "there"})
    return [
        make(path="/", name="front", summary="To the Agent Desktop", handler=lead, answers=(there,)),
        make(path="/desk", name="deskFront", summary="To the Agent Desktop", handler=lead, answers=(there,)),
        make(
            path=DESK, name="deskPage", summary="The Agent Desktop", handler=page,
            answers=(Answer(200, "The page", html), fresh),
        ),
        make(
            path=DESK + "{file}", name="deskFile", summary="A file of the Agent Desktop", handler=file,
            answers=(Answer(200, "The file", dict.fromkeys(_TYPES.values())), fresh),
        ),
    ]  # fmt: skip
