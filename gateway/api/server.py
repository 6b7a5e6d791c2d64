"""The HTTP side of the gateway: health, metrics, and the control API behind bearer tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.api.auth import BearerTokens
from gateway.api.house_routes import Status, house_operations
from gateway.api.metrics import Metrics
from gateway.api.openapi import openapi_operation
from gateway.api.problems import problem_response, problems
from gateway.app import Health
from gateway.config_types import split_address

log = logging.getLogger("tandem.api")

MAX_BODY = 256 * 1024
_SERVER = "Tandem"
_HANDLER_GRACE = 3.0

Guard = Callable[[Middleware, Iterable[web.AbstractRouteDef]], Middleware]


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

    listen:  `address:port`; port 0 takes a free one, `address` tells which
    readers: names of the tokens that may look and not touch
    """

    name = "http"

    def __init__(
        self,
        listen: str,
        *,
        status: Callable[[], Status],
        metrics: Metrics,
        tokens: Mapping[str, str],
        readers: Iterable[str] = (),
    ) -> None:
        self._listen = listen
        self._tokens, self._readers = dict(tokens), frozenset(readers)
        self._routes: list[web.AbstractRouteDef] = [
            *house_operations(status, metrics),
            openapi_operation(lambda: self._routes),
        ]
        self._guard: Guard | None = None
        self._stopping: list[Callable[[], Awaitable[None]]] = []
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    def add_routes(self, routes: Iterable[web.AbstractRouteDef]) -> None:
        """Handlers under `/api/` are reached with a token only."""
        self._routes += routes

    @property
    def routes(self) -> tuple[web.AbstractRouteDef, ...]:
        """Everything that is served."""
        return tuple(self._routes)

    def add_token(self, name: str, secret: str) -> None:
        """One more that may use the control API; before `start`."""
        self._tokens[name] = secret

    def admit_people(self, guard: Guard) -> None:
        """`guard` stands before all routes, and hands those who come with a token to the one for tokens."""
        self._guard = guard

    def on_stopping(self, close: Callable[[], Awaitable[None]]) -> None:
        """`close` is called when the server stops, to end what would not end by itself."""
        self._stopping.append(close)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; only after `start`."""
        if self._server is None:
            raise RuntimeError("the HTTP server is not up")
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def start(self) -> None:
        guard: Middleware = BearerTokens(self._tokens, self._readers).middleware
        if self._guard is not None:
            guard = self._guard(guard, self._routes)
        app = web.Application(
            middlewares=[problems, guard],
            client_max_size=MAX_BODY,
            logger=log,
        )
        app.on_response_prepare.append(_sign)
        app.add_routes(self._routes)
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
        for close in self._stopping:
            try:
                await close()
            except Exception:
                log.exception("event=http_stop_failed")
        if runner is not None:
            await runner.shutdown()
            await runner.cleanup()
        if server is not None:
            await server.wait_closed()

    def health(self) -> Health:
        return Health(self._server is not None and self._server.is_serving(), "")


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = _SERVER
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
