"""The HTTP side of the gateway: health, metrics, and the control API behind bearer tokens."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from aiohttp import web

from gateway.api.auth import BearerTokens
from gateway.api.metrics import Metrics
from gateway.api.problems import problem_response, problems
from gateway.app import Health
from gateway.config_types import split_address

log = logging.getLogger("tandem.api")

MAX_BODY = 256 * 1024
_SERVER = "Tandem"
_HANDLER_GRACE = 3.0


class Status(Protocol):
    """What the health pages ask; `gateway.app.App` is one."""

    @property
    def ready(self) -> bool: ...

    @property
    def state(self) -> str: ...

    @property
    def calls(self) -> int: ...

    def health(self) -> Mapping[str, Health]: ...


class _Connection(web.RequestHandler):
    """aiohttp's connection, but an unreadable request gets a problem document and one log line."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            log.error("event=request_failed remote=%s", request.remote, exc_info=exc)
        else:
            log.info("event=bad_request remote=%s cause=%s", request.remote, type(exc).__name__)
        response = problem_response(status, headers={"Server": _SERVER})
        response.force_close()
        return response


class HttpApi:
    """A part of the gateway. Further rooms add their routes with `add_routes` before `start`.

    listen: `address:port`; port 0 takes a free one, `address` tells which
    """

    name = "http"

    def __init__(
        self, listen: str, *, status: Callable[[], Status], metrics: Metrics, tokens: Mapping[str, str]
    ) -> None:
        self._listen, self._status, self._metrics = listen, status, metrics
        self._tokens = dict(tokens)
        self._routes: list[web.AbstractRouteDef] = []
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    def add_routes(self, routes: Iterable[web.AbstractRouteDef]) -> None:
        """Handlers under `/api/` are reached with a token only."""
        self._routes += routes

    def add_token(self, name: str, secret: str) -> None:
        """One more that may use the control API; before `start`."""
        self._tokens[name] = secret

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; only after `start`."""
        if self._server is None:
            raise RuntimeError("the HTTP server is not up")
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def start(self) -> None:
        app = web.Application(
            middlewares=[problems, BearerTokens(self._tokens).middleware],
            client_max_size=MAX_BODY,
            logger=log,
        )
        app.on_response_prepare.append(_sign)
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics.handler),
                *self._routes,
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_HANDLER_GRACE)
        await runner.setup()
        inner = runner.server
        assert inner is not None
        loop = asyncio.get_running_loop()
        silent = logging.Logger("tandem.api.access", logging.CRITICAL)
        host, port = split_address(self._listen)
        try:
            self._server = await loop.create_server(
                lambda: _Connection(inner, loop=loop, access_log=silent, logger=log), host, port
            )
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        log.info("event=http_up address=%s:%d", *self.address)

    async def stop(self) -> None:
        """Take no new connection, let running handlers end, close the rest."""
        server, self._server = self._server, None
        runner, self._runner = self._runner, None
        if server is not None:
            server.close()
        if runner is not None:
            await runner.shutdown()
            await runner.cleanup()
        if server is not None:
            await server.wait_closed()

    def health(self) -> Health:
        return Health(self._server is not None and self._server.is_serving(), "")

    async def _healthz(self, _: web.Request) -> web.Response:
        """The process is alive and its loop runs; what its parts think is for /readyz."""
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        """200 while calls may be sent here, 503 otherwise, with what each part says."""
        status = self._status()
        ready = status.ready
        document: dict[str, Any] = {
            "ready": ready,
            "state": str(status.state),
            "calls": status.calls,
            "parts": {name: asdict(health) for name, health in status.health().items()},
        }
        return web.Response(
            status=200 if ready else 503, text=json.dumps(document), content_type="application/json"
        )


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = _SERVER
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
