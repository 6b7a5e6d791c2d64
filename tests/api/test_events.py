"""The event stream over a real socket, from a real journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType

from gateway.api.event_routes import EventStreams
from gateway.cdr.journal import Journal
from gateway.events import Event, LegHeld, Noted
from gateway.model import CallId, LegId, PartyType
from tests.api.site import READER, TOKEN, Site, open_site
from tests.cdr.events import START, simple_call
from tests.support.waiting import until

A, B = "a" * 32, "b" * 32


@dataclass
class Station:
    site: Site
    journal: Journal
    streams: EventStreams

    def reader(self, query: str = "", **more: Any) -> Any:
        return self.site.session.ws_connect(
            self.site.url("/api/v1/events" + query), headers=more.pop("headers", TOKEN), **more
        )

    async def note(self, call: str, *numbers: int, padding: int = 0) -> None:
        await self.journal.append(*(note(call, number, padding) for number in numbers))


def note(call: str, number: int, padding: int = 0) -> Noted:
    detail = {"n": number, "x": "x" * padding}
    return Noted(call=CallId(call), at=START + number, what="test", detail=detail)


async def take(reader: ClientWebSocketResponse, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        return [json.loads(await reader.receive_str()) for _ in range(count)]


async def to_the_end(reader: ClientWebSocketResponse) -> tuple[list[dict[str, Any]], int, str]:
    """What still comes, then the code and reason it was closed with."""
    found = []
    async with asyncio.timeout(10):
        while True:
            got = await reader.receive()
            if got.type is WSMsgType.TEXT:
                found.append(json.loads(got.data))
            elif got.type is WSMsgType.CLOSE:
                return found, got.data, got.extra or ""
            else:
                return found, 0, str(got.type)


Open = Callable[..., contextlib.AbstractAsyncContextManager[Station]]


@pytest.fixture
def station(tmp_path: Path) -> Open:
    @contextlib.asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Station]:
        journal = Journal(reserve_bytes=0, ballast_bytes=0)
        await journal.open(tmp_path / "journal")
        streams = EventStreams(journal, **options)
        try:
            async with open_site(streams.operation(), stopping=[streams.close]) as site:
                yield Station(site, journal, streams)
        finally:
            await journal.close()

    return opened


async def test_a_reader_gets_the_journals_events_as_they_happen(station: Open) -> None:
    async with station() as s:
        await s.note(A, 1)
        async with s.reader(headers=READER) as reader:
            events: list[Event] = simple_call(A)
            await s.journal.append(*events)
            got = await take(reader, len(events))
            first = got[0]["id"]
            assert first == 2, "what was before is not told without `after`"
            expected = [{"id": first + place, **event.to_dict()} for place, event in enumerate(events)]
            assert got == json.loads(json.dumps(expected))


async def test_after_tells_what_was_missed_and_goes_on(station: Open) -> None:
    async with station() as s:
        await s.note(A, *range(1, 6))
        async with s.reader("?after=2") as reader:
            assert [one["id"] for one in await take(reader, 3)] == [3, 4, 5]
            await s.note(A, 6)
            assert [one["id"] for one in await take(reader, 1)] == [6]
        async with s.reader("?after=0") as reader:
            assert [one["detail"]["n"] for one in await take(reader, 6)] == [1, 2, 3, 4, 5, 6]


async def test_race_replay_meets_events_that_happen_meanwhile(station: Open) -> None:
    """No gap and no repetition, however the end of the replay falls among new events."""
    async with station() as s:
        for number in range(0, 3000, 100):
            await s.note(A, *range(number, number + 100))

        async def go_on() -> None:
            for number in range(3000, 3600):
                await s.note(B, number)

        async with s.reader("?after=0") as early, s.reader("?after=1500") as late:
            writing = asyncio.create_task(go_on())
            first, second = await asyncio.gather(take(early, 3600), take(late, 2100))
            await writing
        assert [one["id"] for one in first] == list(range(1, 3601))
        assert [one["id"] for one in second] == list(range(1501, 3601))


async def test_filters_by_call_and_kind(station: Open) -> None:
    async with station() as s:
        held = [
            LegHeld(call=CallId(call), at=START, leg=LegId("l"), by=PartyType.AGENT) for call in (A, B, "c")
        ]
        await s.note(B, 1)
        await s.journal.append(*held)
        async with (
            s.reader(f"?after=0&kind=leg_held&call={A}&call=c") as narrow,
            s.reader(f"?call={B}&kind=noted&kind=leg_held") as live,
        ):
            assert [(one["kind"], one["call"]) for one in await take(narrow, 2)] == [
                ("leg_held", A),
                ("leg_held", "c"),
            ]
            await s.journal.append(note(A, 2), note("c", 3), *simple_call(B), held[1], note(B, 4))
            assert [(one["kind"], one["call"]) for one in await take(live, 2)] == [
                ("leg_held", B),
                ("noted", B),
            ]


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("?kind=leg_held&kind=tea", 422, "no such kind of event: tea"),
        ("?after=7", 422, "there is no event 7 yet"),
        ("?after=-1", 422, "query.after"),
        ("?after=soon", 422, "query.after"),
        ("?after=1&after=2", 422, "given 2 times"),
        ("?calls=1", 422, "query.calls"),
        ("", 426, "WebSocket"),
    ],
)
async def test_what_cannot_be_served_is_said_before_the_upgrade(
    station: Open, query: str, status: int, text: str
) -> None:
    async with station() as s:
        reply = await s.site.get("/api/v1/events" + query)
        assert (reply.status, reply.body["status"]) == (status, status)
        assert text in reply.body["detail"]
        assert s.streams.readers == 0


async def test_a_slow_reader_is_sent_away_with_the_id_to_come_back_with(station: Open) -> None:
    async with station(room=20) as s:
        async with s.reader() as reader:
            for number in range(1, 151):
                await s.note(A, number, padding=200_000)
            got, code, reason = await to_the_end(reader)
        assert code == 1013
        assert 0 < len(got) < 150
        assert reason == f"too slow: resume with after={got[-1]['id']}"
        async with s.reader(f"?after={got[-1]['id']}", max_msg_size=0) as reader:
            rest = await take(reader, 150 - len(got))
        assert [one["id"] for one in got + rest] == list(range(1, 151))


async def test_a_reader_that_reads_nothing_at_all_is_cut_off(station: Open) -> None:
    async with station(room=5, patience=0.2) as s:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, s.site.api.address)
        reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
        writer.write(
            b"GET /api/v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        await s.note(A, 1, padding=30_000_000)
        await s.note(A, *range(2, 10))
        await until(lambda: s.streams.readers == 0)
        async with asyncio.timeout(10):
            length = len(await reader.read(-1))
        assert length < 30_000_000, "what no socket took was thrown away"
        writer.close()
        await writer.wait_closed()


async def test_a_reader_that_does_not_answer_pings_is_cut_off(station: Open) -> None:
    async with station(heartbeat=1.0) as s, s.reader(autoping=False), s.reader() as lively:
        taking = asyncio.create_task(take(lively, 1))
        await until(lambda: s.streams.readers == 1)
        await s.note(A, 1)
        assert [one["id"] for one in await taking] == [1]


async def test_a_reader_that_leaves_is_forgotten(station: Open) -> None:
    async with station() as s:
        async with s.reader() as reader:
            await reader.send_str("what is this")
            await s.note(A, 1)
            await take(reader, 1)
            assert s.streams.readers == 1
        await until(lambda: s.streams.readers == 0)
        await s.note(A, 2)


async def test_when_the_gateway_stops_readers_hear_the_last_event_and_where_to_resume(station: Open) -> None:
    async with station() as s, s.reader() as busy, s.reader(f"?call={B}") as idle, s.reader() as new:
        await s.note(A, 1)
        await take(new, 1)
        closing = asyncio.create_task(s.streams.close())
        got, code, reason = await to_the_end(busy)
        assert ([one["id"] for one in got], code) == ([1], 1001)
        assert reason == "the gateway stops: resume with after=1"
        assert await to_the_end(idle) == ([], 1001, reason)
        assert await to_the_end(new) == ([], 1001, reason)
        await closing
        reply = await s.site.get("/api/v1/events", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        assert (reply.status, reply.body["reason"]) == (503, "too_many")


async def test_only_so_many_readers(station: Open) -> None:
    async with station(most=1) as s, s.reader():
        reply = await s.site.get("/api/v1/events")
        assert (reply.status, reply.body["reason"]) == (503, "too_many")
