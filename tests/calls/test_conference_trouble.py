"""Rooms that cannot be had, calls that end in the middle of a move: nobody who talks is cut off."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.calls.audibility import Edges
from gateway.calls.control import ControlError
from gateway.calls.wiring import plan
from gateway.errors import MediaUnavailable
from gateway.model import LegId
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.matrix import (
    AGENT,
    FOURTH,
    THIRD,
    TONES,
    agent_leg,
    control,
    everybody,
    leg_of,
    only_call,
    three,
    two,
)

PAIR = everybody("agent", "expert")
A, B, C = LegId("a"), LegId("b"), LegId("c")


def no_rooms(rooms: RoomPool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def acquire(*_: object) -> None:
        raise MediaUnavailable("no room process could be started")

    monkeypatch.setattr(rooms, "acquire", acquire)


async def test_the_third_is_hung_up_when_no_room_can_be_had(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        no_rooms(rooms, monkeypatch)
        await control(h).add(only_call(h).id, THIRD)
        third = await h.teams.expect_invite()
        third.ring()
        await stage.hear(PAIR)
        await third.answer()
        await third.expect_end()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.detail["legs"][2]["termination"]["reason"] == "no_media"


async def test_a_merge_without_a_room_says_so_and_the_held_party_is_there(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        await control(h).consult(view.id, agent_leg(h), THIRD)
        third = await h.teams.expect_invite(tone=TONES["third"])
        await third.answer()
        stage.add("third", third)
        await stage.hear({"agent": {"third"}, "third": {"agent"}, "expert": {"music"}})
        no_rooms(rooms, monkeypatch)
        with pytest.raises(ControlError) as raised:
            await control(h).merge(view.id)
        assert (raised.value.status, raised.value.reason) == (409, "not_joined")
        await third.expect_end()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_a_room_that_dies_while_somebody_is_on_hold(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        await expert.hold()
        await stage.hear({"agent": {"third", "music"}, "third": {"agent", "music"}})
        [room] = rooms.rooms
        os.kill(room.processes[0].pid, signal.SIGKILL)
        await third.hang_up()
        await stage.hear({"agent": {"music"}, "expert": set()})
        await expert.resume()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_the_gateway_stops_during_a_consultation(house: OpenHouse, rooms: RoomPool) -> None:
    """A lent leg is nobody's but the consultation's: all are hung up, both rows are made."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        _, agent, expert, third = await three(h)
        await control(h).consult(only_call(h).id, agent_leg(h), FOURTH)
        fourth = await h.teams.expect_invite()
        await fourth.answer()
        await h.gateway.calls.end_all()
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third, fourth)))
        await h.quiet()
        assert [row.reason for row in h.rows()] == ["shutdown", "shutdown"]


async def test_the_same_party_twice_is_refused_while_it_rings(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        _, agent, expert = await two(h)
        view = only_call(h)
        await control(h).add(view.id, THIRD)
        with pytest.raises(ControlError) as raised:
            await control(h).add(view.id, THIRD)
        assert (raised.value.status, raised.value.reason) == (409, "already_there")
        third = await h.teams.expect_invite()
        third.ring()
        await control(h).remove(view.id, leg_of(only_call(h), THIRD).id)
        await third.expect_end()
        await agent.bye()
        await expert.expect_end()


async def test_two_are_added_at_once(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        await asyncio.gather(control(h).add(view.id, THIRD), control(h).add(view.id, FOURTH))
        parties = [await h.teams.expect_invite() for _ in range(2)]
        for party in parties:
            party.ring()
        for name, party in zip(("third", "fourth"), parties, strict=True):
            await party.answer()
            stage.add(name, party)
        await stage.hear(everybody("agent", "expert", "third", "fourth"))
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, *parties)))


def test_the_cheapest_connection_is_planned() -> None:
    talk = Edges(speech=frozenset({(A, B), (B, A)}))
    assert plan([A, B], talk).bridged == {(A, B)}
    assert plan([A, B], talk, mixed=True).room == {A, B}
    assert plan([A, B, C], talk).room == {A, B, C}
    assert plan([A, B], Edges(music=frozenset({A}))).music == {A}
    assert plan([A, B], Edges(music=frozenset({A}))).parked == {B}
    assert plan([A, B], Edges(talk.speech, frozenset({A}))).room == {A, B}
    assert plan([A, B], Edges(speech=frozenset({(A, B)}))).room == {A, B}
    assert plan([A, B], Edges(speech=frozenset({(A, B)})), ringing=[A]).bridged == {(A, B)}
