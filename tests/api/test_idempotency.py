"""Idempotency-Key: what is kept, for whom and for how long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from gateway.api.idempotency import HEADER, REPLAYED, Idempotency
from gateway.api.operation import Asked, Operation
from gateway.api.problems import Problem
from tests.api.site import TOKEN, Reply, Site, open_site


@dataclass
class Counter:
    """A POST that counts how often it was carried out, and does so only when `go` is set."""

    site: Site
    go: asyncio.Event
    entered: asyncio.Event
    done: int = 0
    fail: bool = False

    async def act(self) -> web.Response:
        self.entered.set()
        await self.go.wait()
        if self.fail:
            raise Problem(409, "not now", reason="busy")
        self.done += 1
        return web.json_response({"n": self.done}, status=201, headers={"Location": f"/n/{self.done}"})

    async def post(self, key: str, token: str = TOKEN["Authorization"], body: object = None) -> Reply:
        headers = {HEADER: key, "Authorization": token}
        return await self.site.ask("POST", "/api/v1/count", headers=headers, json=body)


@contextlib.asynccontextmanager
async def counting(**options: float) -> AsyncIterator[Counter]:
    store = Idempotency(**options)  # type: ignore[arg-type]

    async def handler(asked: Asked[None, None]) -> web.StreamResponse:
        return await store.once(asked.request, counter.act)

    operation = Operation(
        method="POST", path="/api/v1/count", name="count", tag="t", summary="", handler=handler, answers=()
    )
    async with open_site(operation) as site:
        counter = Counter(site, asyncio.Event(), asyncio.Event())
        counter.go.set()
        yield counter


async def test_a_repetition_gets_the_first_answer_whole() -> None:
    async with counting() as counter:
        first, again = await counter.post("a", body={"x": 1}), await counter.post("a", body={"x": 1})
        assert (first.status, first.body) == (again.status, again.body) == (201, {"n": 1})
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
        assert (REPLAYED in first.headers, again.headers[REPLAYED]) == (False, "true")
        other = await counter.post("a", body={"x": 2})
        assert (other.status, other.body["reason"]) == (422, "idempotency_key_reused")
        assert (await counter.post("b", body={"x": 1})).body == {"n": 2}


async def test_while_the_first_is_under_way_the_second_waits_for_nothing() -> None:
    async with counting() as counter:
        counter.go.clear()
        first = asyncio.create_task(counter.post("a"))
        await counter.entered.wait()
        second = await counter.post("a")
        assert second.status == 409
        assert second.body["reason"] == "idempotency_key_in_use"
        counter.go.set()
        assert (await first).body == {"n": 1}


async def test_a_failure_is_not_kept() -> None:
    async with counting() as counter:
        counter.fail = True
        assert (await counter.post("a")).status == 409
        counter.fail = False
        assert (await counter.post("a")).body == {"n": 1}


async def test_the_oldest_go_when_there_are_too_many_or_they_are_too_old() -> None:
    async with counting(most=2) as counter:
        for key in "abc":
            await counter.post(key)
        assert (await counter.post("c")).body == {"n": 3}
        assert (await counter.post("a")).body == {"n": 4}, "it was forgotten"
    async with counting(lifetime=0.0) as counter:
        await counter.post("a")
        assert (await counter.post("a")).body == {"n": 2}
