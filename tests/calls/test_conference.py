"""Three and more: in, out, on hold, muted; and the way from the bridge to the room and back."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.calls.control import ControlError
from gateway.events import LegHeld
from gateway.model import PartyType
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.matrix import (
    AGENT,
    THIRD,
    TONES,
    agent_leg,
    control,
    everybody,
    kinds,
    leg_of,
    only_call,
    three,
    two,
)

PAIR = everybody("agent", "expert")
ALL = everybody("agent", "expert", "third")


async def test_the_third_moves_the_call_to_a_room_and_the_second_last_back(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        assert only_call(h).in_room
        assert leg_of(only_call(h), "agent").host
        await third.hang_up()
        await stage.hear(PAIR)
        assert not only_call(h).in_room
        assert not agent.inbox
        assert not expert.inbox, "somebody was re-invited because another one came or went"
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "conferenced"
        assert [len(s["members"]) for s in row.detail["segments"]][:3] == [2, 3, 2]
        moves = [move["to"] == "bridge" for move in row.detail["media_moves"]]
        assert moves == [False, True]


async def test_moving_is_not_heard(house: OpenHouse, rooms: RoomPool) -> None:
    """The gap at those who stay is below 60 ms, both ways (measured: 20 to 40 in, 20 to 30 back).

    The machine is shared: what it delays without any move is taken off, and the best of three counts.
    """
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        gaps: list[float] = []
        for turn in range(3):
            quiet = agent.rtp.now
            await asyncio.sleep(0.3)
            begun = agent.rtp.now
            await control(h).add(view.id, f"+1555123010{turn}")
            third = await h.teams.expect_invite(tone=0.0)
            await third.answer()
            await asyncio.sleep(0.3)
            await third.hang_up()
            await stage.hear(PAIR)
            await asyncio.sleep(0.1)
            until = agent.rtp.now
            for listener, speaker in (("agent", "expert"), ("expert", "agent")):
                late = stage.silence(listener, speaker, quiet, begun) - 0.02
                gaps.append(stage.silence(listener, speaker, begun, until) - max(late, 0.0))
        worst = [max(gaps[turn : turn + 2]) for turn in (0, 2, 4)]
        assert min(worst) < 0.06, gaps
        await agent.bye()
        await expert.expect_end()


async def test_a_teams_user_holds_a_conference_then_the_agent_too(house: OpenHouse, rooms: RoomPool) -> None:
    """The remaining participants hear the music; Teams' hold is not hold time, the agent's is."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        await expert.hold()
        await stage.hear({"agent": {"third", "music"}, "expert": set(), "third": {"agent", "music"}})
        assert [event.by for event in h.events if isinstance(event, LegHeld)] == [PartyType.TEAMS_EXPERT]
        await agent.hold("sendonly")
        await stage.hear({"agent": set(), "expert": set(), "third": {"music"}})
        await expert.resume()
        await stage.hear({"agent": set(), "expert": {"third", "music"}, "third": {"expert", "music"}})
        await agent.resume()
        await stage.hear(ALL)
        await agent.bye()
        await third.hang_up()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.hold_count == 1
        held = next(hold for hold in row.detail["holds"] if hold["by"] == "agent")
        assert row.detail["hold_ms"] == held["end_ms"] - held["start_ms"]
        assert row.detail["talk_ms"] + row.detail["hold_ms"] == row.detail["end_ms"] - row.detail["answer_ms"]


async def test_the_holder_of_a_conference_hangs_up(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        await expert.hold()
        await stage.hear({"agent": {"third", "music"}, "third": {"agent", "music"}})
        await expert.hang_up()
        await stage.hear(everybody("agent", "third"))
        await agent.bye()
        await third.expect_end()


async def test_those_present_hear_it_ring_and_the_third_refuses(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        stage.tones["ringing"] = 425.0
        expert.rtp.say(760.0)
        stage.tones["expert"] = 760.0
        agent.rtp.say(1000.0)
        stage.tones["agent"] = 1000.0
        await control(h).add(only_call(h).id, THIRD)
        third = await h.teams.expect_invite()
        third.ring()
        await stage.hear({"agent": {"expert", "ringing"}, "expert": {"agent", "ringing"}})
        await third.decline(603)
        await stage.hear(PAIR)
        assert not only_call(h).in_room
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.detail["legs"][2]["termination"]["sip_code"] == 603
        assert row.disposition == "caller_terminated"


async def test_early_media_of_the_third_is_heard_by_those_present(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, teams_extra='early_media = "relay"', rooms=rooms) as h:
        stage, agent, expert = await two(h)
        await control(h).add(only_call(h).id, THIRD)
        third = await h.teams.expect_invite(tone=TONES["third"])
        stage.tones["third"] = TONES["third"]
        third.progress183(silent=False)
        await stage.hear({"agent": {"expert", "third"}, "expert": {"agent", "third"}})
        await third.answer()
        stage.add("third", third)
        await stage.hear(ALL)
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(agent.expect_end(), expert.expect_end(), third.expect_end())


async def test_hold_while_the_third_rings(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        await control(h).add(only_call(h).id, THIRD)
        third = await h.teams.expect_invite(tone=TONES["third"])
        third.ring()
        await expert.hold()
        await stage.hear({"expert": set()})
        await third.answer()
        stage.add("third", third)
        await stage.hear({"agent": {"third", "music"}, "third": {"agent", "music"}, "expert": set()})
        await expert.resume()
        await stage.hear(ALL)
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(agent.expect_end(), expert.expect_end(), third.expect_end())


async def test_the_one_who_waits_leaves_while_the_third_rings(house: OpenHouse, rooms: RoomPool) -> None:
    """The agent goes on with the third; when that one refuses, nobody is left to talk to."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        _, agent, expert = await two(h)
        await control(h).add(only_call(h).id, THIRD)
        third = await h.teams.expect_invite()
        third.ring()
        await expert.hang_up()
        assert not agent.ended
        await third.decline(486)
        await agent.expect_end()


async def test_mute_remove_and_end_for_all(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        view = only_call(h)
        leg = leg_of(view, THIRD).id
        await control(h).mute(view.id, leg, True)
        await stage.hear({"agent": {"expert"}, "expert": {"agent"}, "third": {"agent", "expert"}})
        await control(h).mute(view.id, leg, False)
        await stage.hear(ALL)
        await control(h).remove(view.id, leg)
        await third.expect_end()
        await stage.hear(PAIR)
        assert kinds(h, "leg_muted") == ["leg_muted"] * 2
        await control(h).hang_up(view.id)
        await asyncio.gather(agent.expect_end(), expert.expect_end())
        await h.quiet()
        [row] = h.rows()
        assert row.reason == "ended_by_command"


async def test_keys_reach_those_who_hear_the_party(house: OpenHouse, rooms: RoomPool) -> None:
    """As in a call of two: RFC 4733 or INFO, also of a muted party; once, and not to one who holds."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        _, agent, expert, third = await three(h)
        await agent.digits("5#")
        await asyncio.gather(expert.rtp.hears_digits("5#"), third.rtp.hears_digits("5#"))
        await expert.hold()
        await control(h).mute(only_call(h).id, leg_of(only_call(h), "agent").id, True)
        info = agent.send("INFO", body=b"Signal=7\r\nDuration=120\r\n", content_type="application/dtmf-relay")
        assert (await info.final()).code == 200
        await third.rtp.hears_digits("5#7")
        await third.hang_up()
        await expert.resume()
        await control(h).mute(only_call(h).id, leg_of(only_call(h), "agent").id, False)
        await expert.rtp.hears(TONES["agent"])
        await agent.digits("8")
        await expert.rtp.hears_digits("5#8")
        assert not agent.rtp.digits
        await agent.bye()
        await expert.expect_end()


async def test_a_killed_room_is_replaced_within_two_seconds(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        [room] = rooms.rooms
        killed = agent.rtp.now
        os.kill(room.processes[0].pid, signal.SIGKILL)
        await stage.hear(ALL)
        deaf, who = stage.deafest(ALL, killed)
        assert 0.02 < deaf < 2.0, who
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(agent.expect_end(), expert.expect_end(), third.expect_end())
        await h.quiet()
        [row] = h.rows()
        assert [move["cause"] for move in row.detail["media_moves"]] == ["conference", "signal_9"]


async def test_without_rooms_an_add_is_refused_and_nothing_changes(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        with pytest.raises(ControlError) as raised:
            await control(h).add(only_call(h).id, THIRD)
        assert (raised.value.status, raised.value.reason) == (409, "no_rooms")
        await h.teams.expect_no_invite(0.1)
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_a_conference_of_ten_over_cascaded_rooms(house: OpenHouse, rooms: RoomPool) -> None:
    rooms.capacity, rooms.leaves = 4, 3
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        tones = [925.0, 1075.0, 1400.0, 1550.0, 1700.0, 1850.0, 2000.0, 2150.0]
        names = ["agent", "expert"]
        parties = [agent, expert]
        for number, hz in enumerate(tones):
            await control(h).add(view.id, f"+155512301{number:02}")
            party = await h.teams.expect_invite(tone=hz)
            await party.answer()
            stage.add(f"p{number}", party, hz)
            names.append(f"p{number}")
        await stage.hear(everybody(*names), within=8)
        [room] = rooms.rooms
        for number in (0, 1):
            killed = agent.rtp.now
            os.kill(room.processes[number].pid, signal.SIGKILL)
            await stage.hear(everybody(*names), within=8)
            deaf, who = stage.deafest(everybody(*names), killed)
            assert 0.02 < deaf < 2.0, (number, who)
        await expert.hold()
        remaining = everybody(*(name for name in names if name != "expert"))
        await stage.hear(
            {name: heard | {"music"} for name, heard in remaining.items()} | {"expert": set()}, 8
        )
        assert len(next(iter(rooms.rooms)).processes) == 4
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in parties))


async def test_join_tone_where_the_configuration_wants_it(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        media = h.config.media.model_copy(update={"join_tone": True})
        h.gateway.context.config = h.config.model_copy(update={"media": media})
        _, agent, expert, third = await three(h)
        assert agent.rtp.first_heard(880.0) is not None
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(agent.expect_end(), expert.expect_end(), third.expect_end())


async def test_the_hold_of_one_party_ends_when_that_party_hangs_up(house: OpenHouse, rooms: RoomPool) -> None:
    """Nothing had ended it: the rest of the call counted as hold time."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        view = only_call(h)
        await control(h).hold_party(view.id, leg_of(view, THIRD).id, agent_leg(h))
        await third.hang_up()
        await stage.hear(everybody("agent", "expert"))
        assert kinds(h, "leg_held", "leg_resumed") == ["leg_held", "leg_resumed"]
        await agent.bye()
        await expert.expect_end()
