"""`GET /api/v1/events`: the journal's events over a WebSocket, from any id on; what such streams share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Container
from contextlib import aclosing
from typing import Any

from aiohttp import WSCloseCode, web
from pydantic import Field

from gateway.api.event_stream import Feed, Source, Wanted, call_message
from gateway.api.operation import Answer, Asked, Operation, Parameters
from gateway.api.problems import Problem
from gateway.events import KINDS

log = logging.getLogger("tandem.api")

CLOSING = f"""\
The gateway closes with {int(WSCloseCode.GOING_AWAY)} when it stops, and with \
{int(WSCloseCode.TRY_AGAIN_LATER)} on a reader that is too slow; the reason names the id to resume with.
"""
DESCRIPTION = f"""\
Each message is `{{"id": …, "kind": …, "call": …, "at": …, …}}`: one event of the journal, told once it is
durable, in order. To miss nothing, connect first and then ask for the calls; after a break come back with
`after`. Events of calls that ended and are reported may have left the journal by then: their story is in call
detail.

{CLOSING}"""


class After(Parameters):
    after: int | None = Field(
        default=None,
        ge=0,
        description="the `id` of the last message that was received; without it the stream begins now",
    )


class EventFilter(After):
    call: tuple[str, ...] = Field(default=(), description="ids of calls; none = all calls")
    kind: tuple[str, ...] = Field(default=(), description=f"none = all. One of: {', '.join(KINDS)}")


class Streams:
    """All readers of one journal. `close` sends them away, each with the id to come back with.

    message:   an entry as its readers get it
    room:      messages that may wait for one reader
    most:      readers at a time
    heartbeat: seconds between pings; a reader that does not answer within half of it is cut off
    patience:  seconds that a reader has to answer our close
    """

    def __init__(
        self,
        journal: Source[Any],
        *,
        message: Callable[[Any], str] = call_message,
        room: int = 1000,
        most: int = 200,
        heartbeat: float = 20.0,
        patience: float = 3.0,
    ) -> None:
        self._journal, self._message = journal, message
        self._room, self._most = room, most
        self._heartbeat, self._patience = heartbeat, patience
        self._open: set[Feed] = set()
        self._left = asyncio.Event()
        self._closing = False

    @property
    def readers(self) -> int:
        return len(self._open)

    async def close(self) -> None:
        self._closing = True
        for feed in self._open:
            feed.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                while self._open:
                    self._left.clear()
                    await self._left.wait()

    async def stream(
        self, request: web.Request, wanted: Container[Any], after: int | None
    ) -> web.StreamResponse:
        """Serve one reader until he leaves. Problem: he is none, or asks for what is not there."""
        if after is not None and after > self._journal.last_seq:
            raise Problem(
                422,
                f"there is no event {after} yet, so it is the id of another journal: begin without `after`",
                reason="unknown_event",
            )
        if self._closing or len(self._open) >= self._most:
            raise Problem(503, "no further reader can be served now: try again later", reason="too_many")
        socket = web.WebSocketResponse(
            heartbeat=self._heartbeat, timeout=self._patience, max_msg_size=4096, compress=False
        )
        if not socket.can_prepare(request):
            raise Problem(426, "this is a WebSocket: send an upgrade", headers={"Upgrade": "websocket"})
        await socket.prepare(request)
        async with Feed(self._journal, wanted, after, self._message, room=self._room) as feed:
            self._open.add(feed)
            try:
                await _converse(request, socket, feed, self._patience)
            finally:
                self._open.discard(feed)
                self._left.set()
        return socket


class EventStreams(Streams):
    """Readers of the calls' events."""

    async def serve(self, asked: Asked[None, EventFilter]) -> web.StreamResponse:
        query = asked.query
        unknown = set(query.kind) - set(KINDS)
        if unknown:
            raise Problem(422, f"no such kind of event: {', '.join(sorted(unknown))}", reason="invalid")
        wanted = Wanted(frozenset(query.call), frozenset(query.kind))
        return await self.stream(asked.request, wanted, query.after)

    def operation(self) -> Operation:
        return Operation(
            method="GET",
            path="/api/v1/events",
            name="events",
            tag="events",
            summary="What happens to calls, as it happens (WebSocket)",
            description=DESCRIPTION,
            query=EventFilter,
            handler=self.serve,
            head=False,
            errors=frozenset({426, 503}),
            answers=(Answer(101, "A WebSocket, on which only the gateway has something to say"),),
        )


async def _converse(request: web.Request, socket: web.WebSocketResponse, feed: Feed, patience: float) -> None:
    """Until the reader leaves, is too slow, or the gateway stops."""
    sending = asyncio.create_task(_send(socket, feed), name="events-send")
    listening = asyncio.create_task(_listen(socket), name="events-listen")
    watching = asyncio.create_task(feed.overrun.wait(), name="events-watch")
    tasks: set[asyncio.Task[object]] = {sending, listening, watching}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await asyncio.wait({sending, listening}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        gone = listening.done() or (sending.done() and not sending.result())
        stuck = not sending.done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if gone:
        return
    slow = feed.overrun.is_set()
    why = "too slow" if slow else "the gateway stops"
    log.info("event=reader_sent_away remote=%s last=%s cause=%s", request.remote, feed.last, why)
    transport = request.transport
    if not stuck:
        code = WSCloseCode.TRY_AGAIN_LATER if slow else WSCloseCode.GOING_AWAY
        comeback = f": resume with after={feed.last}" if feed.last is not None else ""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(patience):
                await socket.close(code=code, message=(why + comeback).encode())
    if transport is not None and (stuck or socket.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE)):
        # What no socket takes would wait in memory for as long as the other side pleases.
        transport.abort()


async def _send(socket: web.WebSocketResponse, feed: Feed) -> bool:
    """False when the reader has gone; True when the feed ended or ran over."""
    async with aclosing(feed.messages()) as messages:
        try:
            async for text in messages:
                await socket.send_str(text)
        except ConnectionError:
            return False
    return True


async def _listen(socket: web.WebSocketResponse) -> None:
    """Until the reader closes; nothing he says means anything here, pings are answered by aiohttp."""
    async for _ in socket:
        continue
