"""Health and metrics: for whoever watches the gateway, without a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from aiohttp import web

from gateway.api.metrics import Metrics
from gateway.api.operation import Answer, Asked, Operation, json_answer, json_response
from gateway.app import Health


class Status(Protocol):
    """What the health pages ask; `gateway.app.App` is one."""

    @property
    def ready(self) -> bool: ...

    @property
    def state(self) -> str: ...

    @property
    def calls(self) -> int: ...

    def health(self) -> Mapping[str, Health]: ...


@dataclass(frozen=True, slots=True)
class Alive:
    status: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True)
class Readiness:
    """`parts`: what each part of the gateway says of itself."""

    ready: bool
    state: str
    calls: int
    parts: Mapping[str, Health]


def house_operations(status: Callable[[], Status], metrics: Metrics) -> list[Operation]:
    async def healthz(_: Asked[None, None]) -> web.Response:
        return json_response(Alive, Alive())

    async def readyz(_: Asked[None, None]) -> web.Response:
        now = status()
        found = Readiness(now.ready, str(now.state), now.calls, now.health())
        return json_response(Readiness, found, status=200 if found.ready else 503)

    async def page(asked: Asked[None, None]) -> web.Response:
        return await metrics.handler(asked.request)

    return [
        Operation(
            method="GET",
            path="/healthz",
            name="healthz",
            tag="gateway",
            summary="Whether the process is alive",
            description="Its loop runs; what its parts think is for /readyz.",
            token=False,
            handler=healthz,
            answers=(json_answer(200, "It is alive", Alive),),
        ),
        Operation(
            method="GET",
            path="/readyz",
            name="readyz",
            tag="gateway",
            summary="Whether calls may be sent here",
            token=False,
            handler=readyz,
            answers=(
                json_answer(200, "They may", Readiness),
                json_answer(503, "They may not: starting, draining, or a part is unwell", Readiness),
            ),
        ),
        Operation(
            method="GET",
            path="/metrics",
            name="metrics",
            tag="gateway",
            summary="Figures for Prometheus",
            token=False,
            handler=page,
            answers=(Answer(200, "Prometheus' text form", {"text/plain": {"type": "string"}}),),
        ),
    ]
