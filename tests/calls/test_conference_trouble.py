"""Rooms that cannot be had, calls that end in the middle of a move: nobody who talks is cut off."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from gateway.calls.audibility import Edges, SupervisorMode
from gateway.calls.control import ControlError
from gateway.calls.wiring import plan
from gateway.errors import MediaUnavailable
from gateway.model import CallId, LegId
from media.pool import Room, RoomFull, RoomPool
from media.room_process import RoomProcess
from media.room_protocol import Command, Place
from tests.calls.conftest import OpenHouse
from tests.calls.house import House, until
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
from tests.support import ports

PAIR = everybody("agent", "expert")
ALL = everybody("agent", "expert", "third")
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


async def test_a_leg_that_rtpengine_did_not_move_with_its_room_is_moved_later(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command to rtpengine without an answer left that party in silence for good."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        anchor = h.gateway.context.bay.anchors[agent_leg(h)]
        tried: list[int] = []

        async def silent(port: int) -> None:
            tried.append(port)
            if len(tried) <= 2:
                raise MediaUnavailable("rtpengine does not answer")
            await type(anchor).patch(anchor, port)

        monkeypatch.setattr(anchor, "patch", silent)
        [room] = rooms.rooms
        os.kill(room.processes[0].pid, signal.SIGKILL)
        await stage.hear(everybody("expert", "third"))
        await stage.hear(ALL)
        assert len(tried) == 3, "the first, the one at once, the one after half a second"
        await agent.bye()
        await third.hang_up()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert [move["cause"] for move in row.detail["media_moves"]][:2] == ["conference", "signal_9"]


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


async def test_a_transfer_target_that_cannot_be_seated_ends_nobodys_call(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        assert (await agent.refer(FOURTH)).code == 202
        fourth = await h.teams.expect_invite()
        fourth.ring()

        async def full(*_: object, **__: object) -> int:
            raise RoomFull("the room is full")

        with monkeypatch.context() as patch:
            patch.setattr(Room, "add", full)
            await fourth.answer()
            assert (await agent.transferred()).startswith("SIP/2.0 503")
            await fourth.expect_end()
        await stage.hear(ALL)
        await agent.hold("inactive")
        await stage.hear({"agent": set(), "expert": {"third", "music"}, "third": {"expert", "music"}})
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third)))
        await h.quiet()
        [row] = h.rows()
        assert [transfer["outcome"] for transfer in row.detail["transfers"]] == ["failed"]
        assert row.disposition == "conferenced"


async def test_who_takes_over_and_cannot_be_seated_leaves_the_old_leg_in_its_place(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INVITE with Replaces into a conference."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)

        async def full(*_: object, **__: object) -> int:
            raise RoomFull("the room is full")

        with monkeypatch.context() as patch:
            patch.setattr(Room, "add", full)
            taker = await h.teams.replaces(expert)
            await taker.answered()
            await taker.expect_end()
        await stage.hear(ALL)
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third)))


async def test_a_hold_while_no_room_can_be_had_is_heard_once_there_is_one(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The telephone's hold is answered and stays; nobody is hung up for want of a process."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)

        async def none(*_: object) -> RoomProcess:
            raise MediaUnavailable("no room process could be started")

        with monkeypatch.context() as patch:
            patch.setattr(rooms, "take", none)
            [room] = rooms.rooms
            os.kill(room.processes[0].pid, signal.SIGKILL)
            assert (await expert.hold()).code == 200
            await asyncio.sleep(0.3)
        await stage.hear({"agent": {"third", "music"}, "third": {"agent", "music"}, "expert": set()}, 8)
        await expert.resume()
        await stage.hear(ALL)
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third)))


async def test_a_room_that_dies_while_somebody_is_being_seated(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        view = only_call(h)
        await control(h).add(view.id, FOURTH)
        fourth = await h.teams.expect_invite()
        [room] = rooms.rooms
        victim, command = room.processes[0], RoomProcess.command

        async def killed(process: RoomProcess, told: Command) -> dict[str, Any]:
            if process is victim and isinstance(told, Place) and not victim.ended.is_set():
                os.kill(victim.pid, signal.SIGKILL)
            return await command(process, told)

        monkeypatch.setattr(RoomProcess, "command", killed)
        await fourth.answer()
        stage.add("fourth", fourth)
        await stage.hear(everybody("agent", "expert", "third", "fourth"), 8)
        assert victim.ended.is_set()
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third, fourth)))


async def test_a_third_that_cannot_be_reached_or_does_not_answer(house: OpenHouse, rooms: RoomPool) -> None:
    """Its trunk is down, or it rings too long: those present talk on, and a next one can be added."""
    dead = f'{AGENT}\n[[trunk]]\nname = "dead"\npeers = ["tcp:127.0.0.1:{ports.free_port()}"]'
    async with house(center_extra=dead, teams_extra="ring_timeout = 0.6", rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        await control(h).add(view.id, THIRD, trunk="dead")
        await until(lambda: len(only_call(h).legs) == 2, "the unreachable one to go")
        await stage.hear(PAIR)
        await control(h).add(view.id, THIRD)
        third = await h.teams.expect_invite()
        third.ring()
        await third.expect_end()
        await until(lambda: len(only_call(h).legs) == 2, "the one who does not answer to go")
        await stage.hear(PAIR)
        assert not only_call(h).in_room
        await control(h).add(view.id, FOURTH)
        fourth = await h.teams.expect_invite()
        await fourth.answer()
        stage.add("fourth", fourth)
        await stage.hear(everybody("agent", "expert", "fourth"))
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, fourth)))


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


def fails_once(h: House, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next time its sound is to be connected."""
    sound = h.gateway.calls.calls[CallId(call)].sound
    rewire = sound.rewire

    async def failing() -> None:
        monkeypatch.setattr(sound, "rewire", rewire)
        raise MediaUnavailable("no answer")

    monkeypatch.setattr(sound, "rewire", failing)


async def test_a_supervisor_who_cannot_be_connected_goes_and_not_the_call(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        await control(h).supervise(view.id, agent_leg(h), THIRD, SupervisorMode.LISTEN)
        boss = await h.teams.expect_invite()
        fails_once(h, view.id, monkeypatch)
        await boss.answer()
        await boss.expect_end()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_who_comes_back_from_a_consultation_is_connected_a_moment_later_if_need_be(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His hold had ended and the command had failed: nothing connected him again."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        aside = await control(h).consult(view.id, agent_leg(h), THIRD)
        third = await h.teams.expect_invite()
        await third.answer()
        primary = h.gateway.calls.calls[CallId(view.id)]
        ended, settle = primary.settle, asyncio.Event()

        async def settled() -> None:
            await ended()
            settle.set()

        monkeypatch.setattr(primary, "settle", settled)
        going = asyncio.create_task(control(h).back(aside.id))
        await settle.wait()
        monkeypatch.setattr(primary, "settle", ended)
        fails_once(h, view.id, monkeypatch)
        await going
        await third.expect_end()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()
