"""The desk with its real parts: calls' journal, SQLite file, HTTP server on loopback, and calls by hand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from argon2 import PasswordHasher
from yarl import URL

from gateway.agents.accounts import Accounts
from gateway.agents.part import AgentsPart
from gateway.agents.people import UserRole
from gateway.api.metrics import Metrics
from gateway.api.server import HttpApi
from gateway.api.sessions import Door
from gateway.app import Health
from gateway.calls.control_views import CallView
from gateway.cdr.journal import Journal
from gateway.cdr.recorder import Recorder
from gateway.clock import Clock, LoopClock
from gateway.config_models import Config
from gateway.desk import open_desk
from gateway.events import CallEnded, CallStarted, LegAnswered, LegCreated, LegEnded, LegJoined
from gateway.model import (
    CallId,
    InteractionId,
    LegId,
    PartyType,
    ReleasedBy,
    Result,
    Role,
    Termination,
    new_call_id,
)
from tests.cdr.sinks import MemorySink

PASSWORD = "correct horse battery"
OVER = Termination(Result.COMPLETED, "hangup", 200, 16, ReleasedBy.CALLER)
TOKEN = {"Authorization": "Bearer t0ken"}


@dataclass
class Up:
    """What the health pages ask."""

    ready: bool = True
    state: str = "running"
    calls: int = 0

    def health(self) -> dict[str, Health]:
        return {}


@dataclass
class Calls:
    """In the place of CallControl: what calls there are to see."""

    views: list[CallView] = field(default_factory=list)

    def calls(self) -> Sequence[CallView]:
        return self.views


@dataclass
class Answered:
    status: int
    body: Any
    headers: Any
    cookies: Any


@dataclass
class Browser:
    """A person: cookies, and the token against cross-site requests once signed in."""

    session: aiohttp.ClientSession
    base: str
    csrf: str = ""

    async def ask(self, method: str, path: str, **more: Any) -> Answered:
        headers = {"X-CSRF-Token": self.csrf} if self.csrf else {}
        headers |= more.pop("headers", {})
        request = self.session.request(
            method, self.base + path, headers=headers, allow_redirects=False, **more
        )
        async with request as response:
            kind = response.content_type
            body = await (response.json(content_type=kind) if "json" in kind else response.text())
            return Answered(response.status, body, response.headers, response.cookies)

    async def sign_in(self, login: str, password: str = PASSWORD, **more: Any) -> Answered:
        found = await self.ask("POST", "/sign-in", json={"login": login, "password": password}, **more)
        if found.status == 200:
            me = await self.ask("GET", "/api/v1/me", **more)
            self.csrf = me.body["csrf"]
        return found


@dataclass
class House:
    config: Config
    part: AgentsPart
    journal: Journal
    recorder: Recorder
    http: HttpApi
    door: Door | None
    calls: Calls
    sink: MemorySink = field(default_factory=MemorySink)

    @property
    def base(self) -> str:
        return "http://{}:{}".format(*self.http.address)

    @contextlib.asynccontextmanager
    async def browser(self, login: str = "") -> AsyncIterator[Browser]:
        """Signed in when `login` names an account."""
        jar = aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=URL(self.base))
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            browser = Browser(session, self.base)
            if login:
                assert (await browser.sign_in(login)).status == 200
            yield browser

    @contextlib.asynccontextmanager
    async def program(self) -> AsyncIterator[Browser]:
        """Comes with a bearer token."""
        async with aiohttp.ClientSession(headers=TOKEN) as session:
            yield Browser(session, self.base)

    def now(self) -> int:
        return int(LoopClock().wall().timestamp() * 1000)

    async def call(
        self, login: str, *, call: CallId | None = None, at: int | None = None, answered: bool = True
    ) -> CallId:
        """A call that +49301 makes to the agent, up or ringing."""
        call, at = call or new_call_id(), self.now() if at is None else at
        caller, callee = LegId(f"{call}-a"), LegId(f"{call}-b")
        await self.journal.append(
            CallStarted(
                call=call, at=at, interaction=InteractionId("i"), from_number="+49301", to_number="601"
            ),
            LegCreated(
                call=call, at=at, leg=caller, trunk="cc", party=PartyType.EXTERNAL, role=Role.CALLER,
                number="+49301",
            ),
            LegCreated(
                call=call, at=at, leg=callee, trunk="cc", party=PartyType.AGENT, role=Role.CALLEE,
                number="601", login=login,
            ),
        )  # fmt: skip
        if answered:
            for leg in (callee, caller):
                await self.journal.append(
                    LegAnswered(call=call, at=at, leg=leg, codec="PCMA"),
                    LegJoined(call=call, at=at, leg=leg),
                )
        return call

    async def hang_up(self, call: CallId, at: int | None = None) -> None:
        at = self.now() if at is None else at
        await self.journal.append(
            LegEnded(call=call, at=at, leg=LegId(f"{call}-a"), termination=OVER),
            LegEnded(call=call, at=at, leg=LegId(f"{call}-b"), termination=OVER),
            CallEnded(call=call, at=at, termination=OVER),
        )


def configuration(folder: Path, **more: Any) -> Config:
    return Config.model_validate(
        {
            "gateway": {"state_dir": folder},
            "agent": [
                {"login": "anna", "name": "Anna Example", "team": "Sales", "numbers": ["601"]},
                {"login": "bert", "name": "Bert Example", "team": "Sales", "teams_user": "bert@example.com"},
            ],
            **more,
        }
    )


@contextlib.asynccontextmanager
async def open_house(folder: Path, *, clock: Clock | None = None, **more: Any) -> AsyncIterator[House]:
    """`more` goes into the configuration. Stopped as the gateway stops."""
    config = configuration(folder, **more)
    journal = Journal(ballast_bytes=0, reserve_bytes=0)
    sink = MemorySink()
    recorder = Recorder(journal, folder / "outbox", [sink])
    part = AgentsPart(
        config, journal, lambda: recorder.states.values(), clock, worked_on=lambda: recorder.worked_on
    )
    part.accounts = Accounts(part.database, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    http = HttpApi("127.0.0.1:0", status=Up, metrics=Metrics(), tokens={"crm": "t0ken"})
    calls = Calls()
    door = open_desk(config, part, calls, journal, http, clock=clock)
    async with running(House(config, part, journal, recorder, http, door, calls, sink)) as house:
        yield house


@contextlib.asynccontextmanager
async def running(house: House) -> AsyncIterator[House]:
    """Its parts, in the gateway's order."""
    await house.journal.open(house.config.journal_dir)
    await house.recorder.start()
    await house.part.start()
    await house.http.start()
    try:
        yield house
    finally:
        await house.http.stop()
        await house.part.stop()
        await house.recorder.stop()
        await house.journal.close()


async def people(house: House) -> None:
    """anna, an agent; sue, a supervisor; ada, an administrator."""
    for login, role in (
        ("anna", UserRole.AGENT), ("sue", UserRole.SUPERVISOR), ("ada", UserRole.ADMINISTRATOR)
    ):  # fmt: skip
        await house.part.accounts.add(login, role, PASSWORD)
