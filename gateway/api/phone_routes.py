"""`GET /api/v1/phone`: the agent's page as his telephone, over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Collection
from typing import Annotated, Final, Literal

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import Field, TypeAdapter, ValidationError

from gateway.api.auth import WHO
from gateway.api.metrics import Reading
from gateway.api.operation import Answer, Asked, Operation, Parameters, Strict
from gateway.api.problems import Problem
from gateway.api.sessions import SESSION
from gateway.phone.phones import Phones
from gateway.phone.session import Message

log = logging.getLogger("tandem.api")

REPLACED: Final = 4001
"""Close code for a page whose login has opened another one."""
_WAITING = 200
_LARGEST = 64 * 1024
_CLOSING = 3.0

DESCRIPTION = f"""\
JSON text messages. The gateway says `welcome` (login, ice_servers, calls), `ring`, `offer` (its WebRTC
offer), `answer` (take the call that rings: it was said so elsewhere), `answered`, `ended` (reason, code),
`error` (leg, reason, text) and `replaced`. The page says `accept` (leg, sdp: its complete answer), `reject`
(leg, code 486 or 603), `hangup`, `again` (a new connection, as after a reload: an `offer` for a new
RTCPeerConnection follows), `digits` and `stats`.

There is one page for each login: a second one sends the first away with {REPLACED}. A page that is gone has
`page_grace` seconds to come back before its calls end.
"""

Leg = Annotated[str, Field(min_length=1, max_length=64)]
Figure = Annotated[float, Field(strict=False, ge=-1e6, le=1e6)]


class Accept(Strict):
    type: Literal["accept"]
    leg: Leg
    sdp: Annotated[str, Field(min_length=1, max_length=_LARGEST)]


class Reject(Strict):
    type: Literal["reject"]
    leg: Leg
    code: Literal[486, 603] = 603


class Plain(Strict):
    type: Literal["hangup", "again"]
    leg: Leg


class Digits(Strict):
    type: Literal["digits"]
    leg: Leg
    digits: Annotated[str, Field(pattern=r"^[0-9*#A-D]{1,32}$")]


class Stats(Strict):
    """loss: percent; jitter_ms, rtt_ms: milliseconds; level: 0..1 of what the microphone hears."""

    type: Literal["stats"]
    leg: Leg
    loss: Figure | None = None
    jitter_ms: Figure | None = None
    rtt_ms: Figure | None = None
    level: Figure | None = None


_SAYS: Final = TypeAdapter[Accept | Reject | Plain | Digits | Stats](
    Annotated[Accept | Reject | Plain | Digits | Stats, Field(discriminator="type")]
)


class WhosePhone(Parameters):
    login: str = Field(
        default="", max_length=254, description="whose telephone, for tokens; a person's is his own"
    )


class _Page:
    """A connected page; what does not fit into its queue ends it, for it reads too slowly."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.close_code = int(WSCloseCode.OK)

    def send(self, message: Message) -> None:
        if self.queue.qsize() < _WAITING:
            self.queue.put_nowait(json.dumps(message))
        else:
            self.end(WSCloseCode.TRY_AGAIN_LATER)

    def replaced(self) -> None:
        self.send({"type": "replaced"})
        self.end(REPLACED)

    def end(self, code: int) -> None:
        if self.close_code == WSCloseCode.OK:
            self.close_code = int(code)
            self.queue.put_nowait(None)


class PhoneRoutes:
    """readers: tokens that may only look; a telephone is more than that."""

    def __init__(
        self, phones: Phones, *, readers: Collection[str] = (), most: int = 500, heartbeat: float = 10.0
    ) -> None:
        self._phones, self._readers, self._most, self._heartbeat = phones, frozenset(readers), most, heartbeat
        self._open: set[_Page] = set()
        self._left = asyncio.Event()
        self._closing = False

    def operation(self) -> Operation:
        return Operation(
            method="GET",
            path="/api/v1/phone",
            name="phone",
            tag="desk",
            summary="The agent's page as his telephone (WebSocket)",
            description=DESCRIPTION,
            query=WhosePhone,
            handler=self.serve,
            head=False,
            errors=frozenset({403, 426, 503}),
            answers=(Answer(101, "A WebSocket"),),
        )

    async def close(self) -> None:
        """Send the pages away: the gateway stops."""
        self._closing = True
        for page in self._open:
            page.end(WSCloseCode.GOING_AWAY)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                while self._open:
                    self._left.clear()
                    await self._left.wait()

    def readings(self) -> list[Reading]:
        """For `/metrics`."""
        legs = len(self._phones.sessions)
        troubled = sum(one.trouble for one in self._phones.sessions.values())
        found = [
            Reading("tandem_phone_pages", len(self._phones.pages), "Desktop pages that are connected."),
            Reading("tandem_phone_legs", legs, "Legs that ring or talk at a page."),
            Reading("tandem_phone_trouble", troubled, "Legs at pages whose network is bad."),
        ]
        count = self._phones.counters
        return found + [
            Reading(
                "tandem_phone_page_events",
                count[what],
                "Pages that came and went.",
                "counter",
                {"event": what},
            )
            for what in ("opened", "closed", "replaced")
        ]

    def _login(self, asked: Asked[None, WhosePhone]) -> str:
        session, wanted = asked.request.get(SESSION), asked.query.login
        if session is not None:
            own: str = session.person.login
            if wanted and wanted != own:
                raise Problem(403, "this is another agent's telephone", reason="role")
            return own
        if asked.request.get(WHO, "") in self._readers:
            raise Problem(403, "this token may only look", reason="read_only_token")
        if not wanted:
            raise Problem(422, "a token has no telephone: say whose with `login`", reason="invalid")
        return wanted

    async def serve(self, asked: Asked[None, WhosePhone]) -> web.StreamResponse:
        login = self._login(asked)
        if self._closing or len(self._open) >= self._most:
            raise Problem(503, "no further page can be served now: try again later", reason="too_many")
        socket = web.WebSocketResponse(
            heartbeat=self._heartbeat, timeout=_CLOSING, max_msg_size=_LARGEST + 4096, compress=False
        )
        if not socket.can_prepare(asked.request):
            raise Problem(426, "this is a WebSocket: send an upgrade", headers={"Upgrade": "websocket"})
        await socket.prepare(asked.request)
        page = _Page()
        self._open.add(page)
        self._phones.opened(login, page)
        tasks = {
            asyncio.create_task(_send(socket, page), name="phone-send"),
            asyncio.create_task(self._listen(socket, page, login), name="phone-listen"),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._phones.closed(login, page)
            self._open.discard(page)
            self._left.set()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_CLOSING):
                await socket.close(code=page.close_code)
        return socket

    async def _listen(self, socket: web.WebSocketResponse, page: _Page, login: str) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                page.send(_error(None, "invalid", "messages are JSON text"))
                continue
            try:
                said = _SAYS.validate_json(message.data)
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False, include_input=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                page.send(_error(None, "invalid", f"{where}: {first['msg']}" if where else first["msg"]))
                continue
            session = self._phones.session(login, said.leg)
            if session is None:
                page.send(_error(said.leg, "unknown_leg", "there is no such call here (any more)"))
                continue
            match said:
                case Accept():
                    session.accepted(said.sdp)
                case Reject():
                    session.rejected(said.code)
                case Digits():
                    session.digits(said.digits)
                case Stats():
                    session.measured(said.loss, said.jitter_ms, said.rtt_ms)
                case Plain(type="hangup"):
                    session.hung_up()
                case Plain():
                    session.again()


def _error(leg: str | None, reason: str, text: str) -> Message:
    return {"type": "error", "leg": leg, "reason": reason, "text": text}


async def _send(socket: web.WebSocketResponse, page: _Page) -> None:
    while (text := await page.queue.get()) is not None:
        try:
            await socket.send_str(text)
        except ConnectionError:
            return
