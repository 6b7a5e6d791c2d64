"""What the desktop shows: who I am and my calls, or everybody's for a supervisor; as it is and as it changes.

The streams send whole pictures, one whenever it differs from the last: a page that lost its connection has
missed nothing once it has the next one, and two changes at one moment are one picture.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import WSCloseCode, web
from pydantic import Field

from gateway.agents.agents import Agents, AgentView
from gateway.agents.people import Source, UserRole
from gateway.api.operation import (
    Answer,
    Asked,
    Operation,
    Parameters,
    adapter,
    json_answer,
    json_response,
)
from gateway.api.problems import Problem
from gateway.api.sessions import session_of
from gateway.calls.control_views import CallView
from gateway.cdr.journal import Journal

_PAUSE = 0.1
"""Seconds from an event to its picture: the journal tells of an event before the call acts on it."""
_LOOK = 2.0
"""Seconds after which a new picture is taken even if no event told of a change."""
_CLOSING = 3.0
_MOST = 500
_MY_EVENTS = """\
Each message is a picture: `{"agent": …, "calls": […]}`. With `teams` there are also `{"teams": …}`, a picture
or null, and `{"teams_event": {"id": …, "kind": …}}`.
"""


@dataclass(frozen=True, slots=True)
class Me:
    """csrf: goes into X-CSRF-Token with every change.

    expires_at: milliseconds since the epoch, if the session does not end before
    agent:      null for somebody who is no agent
    """

    login: str
    name: str
    role: UserRole
    source: Source
    csrf: str
    expires_at: int
    agent: AgentView | None
    not_ready_reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MyPicture:
    """My state, and the calls in which I have a leg."""

    agent: AgentView | None
    calls: list[CallView]


@dataclass(frozen=True, slots=True)
class DeskPicture:
    """All agents and all calls."""

    agents: list[AgentView]
    calls: list[CallView]


class CallSource(Protocol):
    """`gateway.calls.control.CallControl`."""

    def calls(self) -> Sequence[CallView]: ...


class PageReader(Protocol):
    """One page's part of a further source; `texts` are the messages it has not been sent yet."""

    def texts(self) -> list[str]: ...

    def close(self) -> None: ...


class PageSource(Protocol):
    """`gateway.teams.feed.Feeds`. `wake` is called when there may be something to send."""

    def open(self, login: str, after: str, wake: Callable[[], None]) -> PageReader: ...


class MyEvents(Parameters):
    teams: str | None = Field(
        default=None,
        max_length=64,
        description="tell of Teams too: empty, or the `id` of the last `teams_event` that was received",
    )


class Desk:
    """`close` ends the streams when the gateway stops. teams: None without `[graph]`."""

    def __init__(
        self,
        agents: Agents,
        calls: CallSource,
        journal: Journal,
        *,
        teams: PageSource | None = None,
        heartbeat: float = 20.0,
    ) -> None:
        self._agents, self._calls, self._journal, self._teams = agents, calls, journal, teams
        self._heartbeat = heartbeat
        self._open: set[asyncio.Event] = set()
        self._closing = False
        self._left = asyncio.Event()

    def operations(self) -> list[Operation]:
        stream = (Answer(101, "A WebSocket; any word to the gateway is answered with `{}`"),)
        busy = frozenset({426, 503})
        people = frozenset({403})
        return [
            Operation(
                method="GET", path="/api/v1/me", name="me", tag="desk", summary="Who has signed in",
                handler=self._me, errors=people, answers=(json_answer(200, "That is you", Me),),
            ),
            Operation(
                method="GET", path="/api/v1/me/events", name="myEvents", tag="desk",
                summary="My state and my calls, now and whenever they change (WebSocket)",
                description=_MY_EVENTS,
                query=MyEvents, handler=self._my_events, head=False, errors=busy | people, answers=stream,
            ),
            Operation(
                method="GET", path="/api/v1/desk", name="desk", tag="desk", summary="All agents, all calls",
                handler=self._desk, answers=(json_answer(200, "As they are now", DeskPicture),),
            ),
            Operation(
                method="GET", path="/api/v1/desk/events", name="deskEvents", tag="desk",
                summary="All agents and all calls, now and whenever they change (WebSocket)",
                description="Each message is a picture as from /api/v1/desk.",
                handler=self._desk_events, head=False, errors=busy, answers=stream,
            ),
        ]  # fmt: skip

    async def close(self) -> None:
        self._closing = True
        for wake in self._open:
            wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                while self._open:
                    self._left.clear()
                    await self._left.wait()

    async def _me(self, asked: Asked[None, None]) -> web.Response:
        session = session_of(asked.request)
        person = session.person
        found = Me(
            login=person.login,
            name=person.name,
            role=person.role,
            source=person.source,
            csrf=session.csrf,
            expires_at=int(session.expires_at.timestamp() * 1000),
            agent=self._agent(person.login),
            not_ready_reasons=self._agents.rules.not_ready_reasons,
        )
        return json_response(Me, found)

    async def _desk(self, _: Asked[None, None]) -> web.Response:
        return json_response(DeskPicture, self._everything())

    async def _my_events(self, asked: Asked[None, MyEvents]) -> web.StreamResponse:
        login, after = session_of(asked.request).person.login, asked.query.teams

        def picture() -> bytes:
            mine = [call for call in self._calls.calls() if any(leg.login == login for leg in call.legs)]
            return adapter(MyPicture).dump_json(MyPicture(self._agent(login), mine))

        if after is None:
            return await self._stream(asked.request, picture)
        source = self._teams or _Nothing()
        return await self._stream(asked.request, picture, lambda wake: source.open(login, after, wake))

    async def _desk_events(self, asked: Asked[None, None]) -> web.StreamResponse:
        return await self._stream(asked.request, lambda: adapter(DeskPicture).dump_json(self._everything()))

    def _agent(self, login: str) -> AgentView | None:
        return self._agents.view(login) if self._agents.roster.get(login) is not None else None

    def _everything(self) -> DeskPicture:
        return DeskPicture(self._agents.views(), list(self._calls.calls()))

    async def _stream(
        self,
        request: web.Request,
        picture: Callable[[], bytes],
        more: Callable[[Callable[[], None]], PageReader] | None = None,
    ) -> web.StreamResponse:
        if self._closing or len(self._open) >= _MOST:
            raise Problem(503, "no further reader can be served now: try again later", reason="too_many")
        socket = web.WebSocketResponse(
            heartbeat=self._heartbeat, timeout=_CLOSING, max_msg_size=4096, compress=False
        )
        if not socket.can_prepare(request):
            raise Problem(426, "this is a WebSocket: send an upgrade", headers={"Upgrade": "websocket"})
        await socket.prepare(request)
        wake = asyncio.Event()
        stop = [
            self._agents.subscribe(lambda _: wake.set()),
            self._journal.subscribe(lambda _: wake.set()),
        ]
        self._open.add(wake)
        reader = more(wake.set) if more is not None else None
        sending = asyncio.create_task(self._send(socket, picture, reader, wake), name="desk-send")
        try:
            listening = asyncio.create_task(_listen(socket), name="desk-listen")
            await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            for task in (sending, listening):
                task.cancel()
            await asyncio.wait({sending, listening})
        finally:
            for end in stop:
                end()
            if reader is not None:
                reader.close()
            self._open.discard(wake)
            self._left.set()
        if self._closing and not socket.closed:
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the gateway stops")
        return socket

    async def _send(
        self,
        socket: web.WebSocketResponse,
        picture: Callable[[], bytes],
        reader: PageReader | None,
        wake: asyncio.Event,
    ) -> None:
        last = b""
        while not self._closing:
            wake.clear()
            now = picture()
            texts = [now.decode()] if now != last else []
            last = now
            if reader is not None:
                texts += reader.texts()
            try:
                for text in texts:
                    await socket.send_str(text)
            except ConnectionError:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await wake.wait()
            await asyncio.sleep(_PAUSE)


class _Nothing:
    """A gateway without Teams: the page is told so once."""

    def __init__(self) -> None:
        self._told = False

    def open(self, _login: str, _after: str, _wake: Callable[[], None]) -> PageReader:
        return self

    def texts(self) -> list[str]:
        texts = [] if self._told else ['{"teams":null}']
        self._told = True
        return texts

    def close(self) -> None:
        return


async def _listen(socket: web.WebSocketResponse) -> None:
    """Until the reader closes. Whatever he says is answered: so he knows that the connection lives."""
    async for _ in socket:
        try:
            await socket.send_str("{}")
        except ConnectionError:
            return
