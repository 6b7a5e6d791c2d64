"""Webhook: signed, keyed, tried again, and never twice what was taken once."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway.cdr.call_detail import CallDetail, call_detail
from gateway.cdr.columns import SCHEMA_VERSION
from gateway.cdr.sinks import SinkRejected, SinkUnavailable
from gateway.cdr.sinks_webhook import WebhookSink
from tests.cdr.events import simple_call
from tests.cdr.sinks import until
from tests.cdr.test_recorder import Gateway
from tests.support.clock import EPOCH, FakeClock

SECRET = "not a real secret"


class Receiver:
    """Somebody's server; `answers` by row id, else 200."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.tries: Counter[str] = Counter()
        self.answers: dict[str, int] = {}
        self.everything = 0
        self.headers: dict[str, str] = {}
        self.last: tuple[web.Request, bytes] | None = None
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_post("/hook", self._post)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        (address,) = self._runner.addresses
        self.url = f"http://127.0.0.1:{address[1]}/hook"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.read()
        key = request.headers["Idempotency-Key"]
        self.last = (request, body)
        self.tries[key] += 1
        status = self.everything or self.answers.get(key, 200)
        if status == 200:
            self.taken.append(key)
        return web.Response(status=status, headers=self.headers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def sink(receiver: Receiver) -> AsyncIterator[WebhookSink]:
    found = WebhookSink(receiver.url, SECRET, timeout_seconds=5, clock=FakeClock())
    await found.open()
    yield found
    await found.close()


def rows(*names: str) -> list[CallDetail]:
    (row,) = call_detail(simple_call())
    return [dataclasses.replace(row, id=name) for name in names]


async def test_a_post_can_be_verified_by_its_receiver(receiver: Receiver, sink: WebhookSink) -> None:
    (row,) = rows("a")
    await sink.write([row])
    assert receiver.last is not None
    request, body = receiver.last
    assert json.loads(body) == {"type": "call_detail", "schema_version": SCHEMA_VERSION, "row": row.to_dict()}
    parts = dict(part.split("=") for part in request.headers["Tandem-Signature"].split(","))
    assert parts["t"] == str(int(EPOCH.timestamp()))
    signed = parts["t"].encode() + b"." + body
    assert parts["v1"] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert request.headers["Idempotency-Key"] == "a"


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
async def test_a_refusal_for_now_is_tried_again_without_what_was_taken(
    receiver: Receiver, sink: WebhookSink, status: int
) -> None:
    names = [f"r{n}" for n in range(20)]
    receiver.answers["r3"] = status
    receiver.headers = {"Retry-After": "7", "Location": "/elsewhere"}
    with pytest.raises(SinkUnavailable, match=str(status)) as caught:
        await sink.write(rows(*names))
    assert caught.value.retry_after == 7
    receiver.answers.clear()
    await sink.write(rows(*names))
    assert sorted(receiver.taken) == sorted(names)
    assert receiver.tries["r3"] == 2
    await sink.write(rows("r0"))
    assert receiver.tries["r0"] == 2, "a row that is written anew later is sent anew"


async def test_a_later_revision_is_no_repetition_and_overtakes_none(
    receiver: Receiver, sink: WebhookSink
) -> None:
    (row,) = rows("a")
    second, third = (dataclasses.replace(row, detail=row.detail | {"revision": n}) for n in (2, 3))
    await sink.write([row])
    await sink.write([second, third])
    assert receiver.taken == ["a", "a-3"], "of one batch the newest is told"


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_for_ever_is_told_apart(receiver: Receiver, sink: WebhookSink, status: int) -> None:
    receiver.everything = status
    with pytest.raises(SinkRejected, match=str(status)):
        await sink.write(rows("a"))


async def test_nobody_listening_and_no_answer_are_unavailable(receiver: Receiver) -> None:
    await receiver.stop()
    sink = WebhookSink(receiver.url, SECRET, timeout_seconds=2)
    await sink.open()
    with pytest.raises(SinkUnavailable):
        await sink.write(rows("a"))
    await sink.close()


async def test_a_receiver_that_is_away_and_picky_gets_the_rest_once_it_is_back(
    tmp_path: Path, receiver: Receiver
) -> None:
    port = int(receiver.url.split(":")[2].split("/")[0])
    bad = f"{5:032x}"
    receiver.answers[bad] = 422
    async with Gateway(tmp_path, WebhookSink(receiver.url, SECRET, timeout_seconds=5)) as gateway:
        await gateway.calls(*range(3))
        await until(lambda: len(receiver.taken) == 3)
        await receiver.stop()
        await gateway.calls(*range(3, 30))
        await until(lambda: gateway.recorder.sinks[0].failures > 1)
        await receiver.start(port)
        await until(lambda: not gateway.recorder.sinks[0].behind)
        assert gateway.recorder.sinks[0].rejected == 1
    assert sorted(receiver.taken) == sorted(f"{n:032x}" for n in range(30) if n != 5)
