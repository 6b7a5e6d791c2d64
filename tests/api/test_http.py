"""Health, metrics, tokens and problem documents over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.api.metrics import Histogram, Metrics, Reading
from gateway.api.problems import Problem
from gateway.api.server import HttpApi
from gateway.app import Health, State


@dataclass
class Gateway:
    ready: bool = True
    state: str = State.RUNNING
    calls: int = 3
    parts: dict[str, Health] = field(default_factory=lambda: {"media": Health(True)})

    def health(self) -> Mapping[str, Health]:
        return self.parts


@dataclass
class Site:
    api: HttpApi
    gateway: Gateway
    metrics: Metrics
    session: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return "http://{}:{}{}".format(*self.api.address, path)

    async def get(self, path: str, **more: Any) -> tuple[int, Any, Mapping[str, str]]:
        async with self.session.get(self.url(path), **more) as response:
            kind = response.content_type
            body = await (response.json(content_type=kind) if "json" in kind else response.text())
            return response.status, body, response.headers


async def _echo(request: web.Request) -> web.Response:
    return web.json_response(await request.json())


async def _broken(_: web.Request) -> web.Response:
    raise RuntimeError("secret detail /home/somebody/x.py")


async def _conflict(_: web.Request) -> web.Response:
    raise Problem(409, "the call is not held", state="talking")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    gateway, metrics = Gateway(), Metrics()
    api = HttpApi(
        "127.0.0.1:0", status=lambda: gateway, metrics=metrics, tokens={"ops": "s3cret", "crm": "t0ken"}
    )
    api.add_routes(
        [
            web.post("/api/v1/echo", _echo),
            web.get("/api/v1/broken", _broken),
            web.get("/api/v1/conflict", _conflict),
        ]
    )
    await api.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Site(api, gateway, metrics, session)
    finally:
        await api.stop()


TOKEN = {"Authorization": "Bearer t0ken"}


async def test_healthz_says_alive_and_readyz_says_why_not(site: Site) -> None:
    assert (await site.get("/healthz"))[:2] == (200, {"status": "ok"})
    status, body, _ = await site.get("/readyz")
    assert (status, body["ready"], body["state"], body["calls"]) == (200, True, "running", 3)
    site.gateway.ready = False
    site.gateway.parts["media"] = Health(False, "rtpengine does not answer")
    status, body, _ = await site.get("/readyz")
    assert (status, body["parts"]) == (503, {"media": {"ok": False, "text": "rtpengine does not answer"}})
    assert (await site.get("/healthz"))[0] == 200, "not being ready is no reason to be restarted"


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer ", "Basic dDBrZW4=", "t0ken", "Bearer s3cre", "Bearer s3crett"]
)
async def test_the_control_api_wants_a_token(site: Site, header: str | None) -> None:
    status, body, headers = await site.get(
        "/api/v1/conflict", headers={"Authorization": header} if header else {}
    )
    assert (status, body["status"], body["title"]) == (401, 401, "Unauthorized")
    assert headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/nothing"])
async def test_an_unknown_path_is_a_problem_document(site: Site, path: str) -> None:
    status, body, headers = await site.get(path, headers=TOKEN)
    assert (status, body["title"]) == (404, "Not Found")
    assert headers["Content-Type"].startswith("application/problem+json")


async def test_a_path_under_api_is_not_told_to_strangers(site: Site) -> None:
    assert (await site.get("/api/v1/nothing"))[0] == 401


async def test_problems_carry_their_cause(site: Site) -> None:
    status, body, _ = await site.get("/api/v1/conflict", headers=TOKEN)
    assert (status, body["detail"], body["state"]) == (409, "the call is not held", "talking")


@pytest.mark.allow_tracebacks
async def test_nothing_of_an_exception_is_shown(site: Site) -> None:
    async with site.session.get(site.url("/api/v1/broken"), headers=TOKEN) as response:
        text = await response.text()
        assert response.status == 500
        assert "secret detail" not in text
        assert "Traceback" not in text


async def test_a_wrong_method_and_a_large_body_are_problems(site: Site) -> None:
    async with site.session.delete(site.url("/healthz")) as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]
        assert response.content_type == "application/problem+json"
    async with site.session.post(site.url("/api/v1/echo"), headers=TOKEN, data=b"1" * 300_000) as response:
        assert response.status == 413
        assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("request_text", ["NONSENSE\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"])
async def test_the_server_does_not_say_what_it_is_made_of(site: Site, request_text: str) -> None:
    for text in (request_text, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):
        reader, writer = await asyncio.open_connection(*site.api.address)
        writer.write(text.encode())
        answer = (await reader.read()).decode().lower()
        writer.close()
        await writer.wait_closed()
        assert "server: tandem\r\n" in answer
        assert "python" not in answer
        assert "aiohttp" not in answer


async def test_metrics_show_sources_and_survive_a_broken_one(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = Histogram("tandem_x_seconds", "Some time.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        seconds.observe(value)
    site.metrics.add_histogram(seconds)
    site.metrics.add(
        "sip",
        lambda: [
            Reading("tandem_strangers", 4, "Messages from nobody we know.", "counter"),
            Reading("tandem_trunk_up", 1, "Usable.", labels={"trunk": "a"}),
            Reading("tandem_trunk_up", 0, "Usable.", labels={"trunk": "b"}),
        ],
    )
    status, text, headers = await site.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    for line in (
        "tandem_strangers_total 4.0",
        'tandem_trunk_up{trunk="a"} 1.0',
        'tandem_trunk_up{trunk="b"} 0.0',
        'tandem_x_seconds_bucket{le="0.1"} 2.0',
        'tandem_x_seconds_bucket{le="+Inf"} 4.0',
        "tandem_x_seconds_count 4.0",
    ):
        assert line in text.splitlines()


@pytest.mark.allow_tracebacks
async def test_a_source_that_fails_is_counted(site: Site) -> None:
    def broken() -> list[Reading]:
        raise RuntimeError("gone")

    site.metrics.add("media", broken)
    site.metrics.add("sip", lambda: [Reading("tandem_fine", 1)])
    await site.get("/metrics")
    _, text, _ = await site.get("/metrics")
    assert "tandem_fine 1.0" in text
    assert 'tandem_metrics_source_failures_total{source="media"} 2.0' in text


def test_a_metric_must_carry_our_name() -> None:
    with pytest.raises(ValueError, match="tandem_"):
        Reading("calls", 1)


async def test_a_taken_port_is_an_error_and_leaves_nothing(site: Site) -> None:
    host, port = site.api.address
    second = HttpApi(f"{host}:{port}", status=lambda: site.gateway, metrics=site.metrics, tokens={})
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.stop()
    assert not second.health().ok


async def test_stopping_ends_idle_connections_and_frees_the_port(site: Site) -> None:
    await site.get("/healthz")
    host, port = site.api.address
    async with asyncio.timeout(8):
        await site.api.stop()
    with socket.socket() as probe:
        assert probe.connect_ex((host, port)) != 0
