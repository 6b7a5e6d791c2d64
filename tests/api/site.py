"""The HTTP side alone on a real socket, with whatever operations a test is about."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from gateway.api.metrics import Metrics
from gateway.api.server import HttpApi
from gateway.app import Health, State

TOKEN = {"Authorization": "Bearer t0ken"}
READER = {"Authorization": "Bearer r3ad"}


@dataclass
class Gateway:
    """What the health pages ask."""

    ready: bool = True
    state: str = State.RUNNING
    calls: int = 0
    parts: dict[str, Health] = field(default_factory=dict)

    def health(self) -> Mapping[str, Health]:
        return self.parts


@dataclass
class Reply:
    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass
class Site:
    api: HttpApi
    session: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return "http://{}:{}{}".format(*self.api.address, path)

    async def ask(self, method: str, path: str, **more: Any) -> Reply:
        """With a good token unless `headers` say otherwise; JSON is read."""
        headers = {**TOKEN, **more.pop("headers", {})}
        async with self.session.request(method, self.url(path), headers=headers, **more) as response:
            kind = response.content_type
            body = await (
                response.json(content_type=kind) if kind.endswith(("/json", "+json")) else response.read()
            )
            return Reply(response.status, body, dict(response.headers))

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.ask("GET", path, **more)


@contextlib.asynccontextmanager
async def open_site(*operations: web.AbstractRouteDef, **more: Any) -> AsyncIterator[Site]:
    """`more["stopping"]`: what HttpApi.on_stopping gets."""
    api = HttpApi(
        "127.0.0.1:0",
        status=Gateway,
        metrics=Metrics(),
        tokens={"crm": "t0ken", "board": "r3ad"},
        readers=["board"],
    )
    api.add_routes(operations)
    closers: Iterable[Any] = more.get("stopping", ())
    for close in closers:
        api.on_stopping(close)
    await api.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Site(api, session)
    finally:
        await api.stop()
