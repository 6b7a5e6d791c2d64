"""`GET /api/v1/trunks`: how trunks and their peers are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from aiohttp import web

from gateway.trunks.trunk import TrunkStatus


def trunk_routes(status: Callable[[], Iterable[TrunkStatus]]) -> list[web.AbstractRouteDef]:
    async def trunks(_: web.Request) -> web.Response:
        return web.json_response({"trunks": [_plain(asdict(one)) for one in status()]})

    return [web.get("/api/v1/trunks", trunks)]


def _plain(value: Any) -> Any:
    """JSON-ready: times in ISO 8601, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value
