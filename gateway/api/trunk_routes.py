"""`GET /api/v1/trunks`: how trunks and their peers are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiohttp import web

from gateway.api.operation import Asked, Operation, json_answer, json_response
from gateway.trunks.trunk import TrunkStatus


@dataclass(frozen=True, slots=True)
class TrunkList:
    trunks: list[TrunkStatus]


def trunk_routes(status: Callable[[], Iterable[TrunkStatus]]) -> list[Operation]:
    async def trunks(_: Asked[None, None]) -> web.Response:
        return json_response(TrunkList, TrunkList(list(status())))

    return [
        Operation(
            method="GET",
            path="/api/v1/trunks",
            name="listTrunks",
            tag="trunks",
            summary="Trunks and their peers, as the gateway sees them",
            handler=trunks,
            answers=(json_answer(200, "All trunks, in the order of the configuration", TrunkList),),
        )
    ]
