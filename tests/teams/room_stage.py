"""The whole room with an HTTP server that the Graph stand-in reaches, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from gateway.api.problems import problems
from gateway.teams.account_model import Account
from gateway.teams.clouds import Cloud
from gateway.teams.directory import Attendant
from gateway.teams.notifications import PATH
from gateway.teams.room import SIGNED_IN, Settings, TeamsRoom
from gateway.teams.routes import outside_routes, teams_operations
from tests.peers.graph import CLIENT, SECRET, TENANT, GraphSim, settled
from tests.support.clock import FakeClock
from tests.support.waiting import until
from tests.teams.acting import browse
from tests.teams.conftest import ANN
from tests.teams.desks import TableDesks

LOGIN = "ann"


class RoomStage:
    """Use as `async with`. Nobody has enabled Teams yet."""

    def __init__(self, sim: GraphSim, clock: FakeClock, folder: Path, account: Account | None) -> None:
        self.sim, self.clock, self.folder = sim, clock, folder
        self.account = account
        self.desks = TableDesks(LOGIN, "bob")
        self.desks.ready(LOGIN)
        self.mapped = {LOGIN: ANN}
        self.database = f"sqlite:///{folder / 'room.db'}"
        self._runner: web.AppRunner | None = None
        self.room: TeamsRoom = None  # type: ignore[assignment]  # made in __aenter__

    async def __aenter__(self) -> RoomStage:
        app = web.Application(middlewares=[problems])
        app.router.add_post(PATH, self._serve)
        app.router.add_post(SIGNED_IN, self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.sim.registration.redirect_uris.add(self.url + SIGNED_IN)
        await self.open()
        return self

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        handler: Any = self._outside[request.path]
        response: web.StreamResponse = await handler(request)
        return response

    async def open(self) -> None:
        settings = Settings(
            Cloud(self.sim.authority, self.sim.root, self.sim.roots),
            self.account,
            self.url,
            lambda: self.mapped,
            self.folder,
            self.database,
            Attendant("+15550100", "1{user}#"),
        )
        self.room = self.make(settings)
        self._outside = {route.path: route.handler for route in outside_routes(self.room)}
        await self.room.start()
        await self.quiet()

    def make(self, settings: Settings) -> TeamsRoom:
        return TeamsRoom(settings, self.desks, self.clock)

    async def __aexit__(self, *_: object) -> None:
        await self.room.stop()
        assert self._runner is not None
        await self._runner.cleanup()

    async def quiet(self) -> None:
        """Until what is under way is done: connecting, notifications, busy sync."""
        await until(lambda: self.room.idle)
        await settled(self.sim)
        connection = self.room.connection
        if connection is not None:
            await until(lambda: connection.subscriptions.idle)
            await settled(self.sim)
            await connection.receiver.drained()
            await until(lambda: connection.sync.idle)

    async def enable(self, login: str = LOGIN, hint: str = ANN) -> aiohttp.ClientResponse:
        self.sim.entra.impostor = hint
        answer = await browse(self.sim, await self.room.begin_sign_in(login))
        async with aiohttp.ClientSession() as http:
            response = await http.post(self.url + SIGNED_IN, data=answer)
            await response.read()
        await self.quiet()
        return response


def good_account() -> Account:
    return Account(TENANT, CLIENT, SECRET, "object-1")


__all__ = ["LOGIN", "RoomStage", "good_account", "teams_operations"]
