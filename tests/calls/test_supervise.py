"""A supervisor listens, whispers, barges in: heard by exactly those who should."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.audibility import SupervisorMode
from gateway.calls.control import ControlError
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import House
from tests.calls.matrix import (
    AGENT,
    TONES,
    Stage,
    agent_leg,
    control,
    everybody,
    kinds,
    leg_of,
    only_call,
    three,
    two,
)
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

SUPERVISOR = "+49301119999"
AGENTS = f'[[agent]]\nlogin = "boss"\nnumbers = ["{SUPERVISOR}"]'
PAIR = everybody("agent", "expert")


async def supervised(h: House, mode: SupervisorMode) -> tuple[Stage, CenterCall, TeamsCall, CenterCall]:
    """A call of two and a supervisor of the agent."""
    stage, agent, expert = await two(h)
    await control(h).supervise(only_call(h).id, agent_leg(h), SUPERVISOR, mode)
    boss = await h.center.expect_call(tone=TONES["fourth"])
    boss.ring()
    await boss.answer()
    stage.add("fourth", boss)
    return stage, agent, expert, boss


async def test_listen_whisper_barge_and_leave(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, boss = await supervised(h, SupervisorMode.LISTEN)
        view = only_call(h)
        leg = leg_of(view, SUPERVISOR)
        assert (leg.login, leg.supervision) == ("boss", SupervisorMode.LISTEN)
        both = {"agent", "expert"}
        await stage.hear(PAIR | {"fourth": both})
        await control(h).supervise_mode(view.id, leg.id, SupervisorMode.WHISPER)
        await stage.hear({"agent": {"expert", "fourth"}, "expert": {"agent"}, "fourth": both})
        await control(h).supervise_mode(view.id, leg.id, SupervisorMode.BARGE)
        await stage.hear(everybody("agent", "expert", "fourth"))
        await control(h).supervise_mode(view.id, leg.id, SupervisorMode.LISTEN)
        await stage.hear(PAIR | {"fourth": both})
        await boss.bye()
        await stage.hear(PAIR)
        assert not only_call(h).in_room
        assert not expert.inbox
        await agent.bye()
        await expert.expect_end()


async def test_whom_nobody_knows_of_keeps_no_call_alive_and_is_in_no_segment(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, boss = await supervised(h, SupervisorMode.WHISPER)
        await stage.hear({"agent": {"expert", "fourth"}, "expert": {"agent"}, "fourth": {"agent", "expert"}})
        await expert.hang_up()
        await asyncio.gather(agent.expect_end(), boss.expect_end())
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "callee_terminated"
        assert max(len(segment["members"]) for segment in row.detail["segments"]) == 2


async def test_nobody_hears_the_supervisor_ring_or_music_for_his_hold(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        stage.tones["ringing"] = 425.0
        agent.rtp.say(560.0)
        stage.tones["agent"] = 560.0
        await control(h).supervise(only_call(h).id, agent_leg(h), SUPERVISOR, SupervisorMode.LISTEN)
        boss = await h.center.expect_call(tone=0.0)
        boss.ring()
        await stage.hear(PAIR)
        await boss.answer()
        await boss.hold("sendonly")
        await stage.hear(PAIR)
        assert kinds(h, "leg_held") == []
        await agent.bye()
        await asyncio.gather(expert.expect_end(), boss.expect_end())


async def test_a_supervisor_twice_is_refused(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        _, agent, expert, boss = await supervised(h, SupervisorMode.LISTEN)
        with pytest.raises(ControlError) as raised:
            await control(h).supervise(only_call(h).id, agent_leg(h), SUPERVISOR, SupervisorMode.BARGE)
        assert (raised.value.status, raised.value.reason) == (409, "already_there")
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(agent.expect_end(), expert.expect_end(), boss.expect_end())


async def test_who_only_listens_goes_with_the_one_he_listens_to(house: OpenHouse, rooms: RoomPool) -> None:
    """The agent leaves or is replaced: nobody of those who go on would know that there is a listener."""
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        view, mine = only_call(h), agent_leg(h)
        await control(h).supervise(view.id, mine, SUPERVISOR, SupervisorMode.WHISPER)
        boss = await h.center.expect_call(tone=TONES["fourth"])
        await boss.answer()
        stage.add("fourth", boss)
        await stage.hear({"agent": {"expert", "third", "fourth"}, "third": {"agent", "expert"}})
        await agent.bye()
        await boss.expect_end()
        await stage.hear(everybody("expert", "third"))
        await third.hang_up()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert [leg["termination"]["reason"] for leg in row.detail["legs"]][3] == "supervised_left"


async def test_who_listens_stays_with_an_agent_who_changes_telephones(
    house: OpenHouse, rooms: RoomPool
) -> None:
    """INVITE with Replaces: another leg of the same party."""
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        leg = leg_of(only_call(h), "teams_expert").id
        await control(h).supervise(only_call(h).id, leg, SUPERVISOR, SupervisorMode.WHISPER)
        boss = await h.center.expect_call(tone=TONES["fourth"])
        await boss.answer()
        stage.add("fourth", boss)
        await stage.hear({"expert": {"agent", "fourth"}, "agent": {"expert"}})
        taker = await h.teams.replaces(expert, tone=TONES["third"])
        await taker.answered()
        stage.add("third", taker)
        await stage.hear({"third": {"agent", "fourth"}, "agent": {"third"}, "fourth": {"agent", "third"}})
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(*(party.expect_end() for party in (agent, taker, boss)))


async def test_a_supervisor_in_another_room_of_a_cascade(house: OpenHouse, rooms: RoomPool) -> None:
    """He listens from wherever he sits; to whisper he is brought to the agent; to barge in he may stay."""
    rooms.capacity, rooms.leaves = 4, 3
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        view, mine = only_call(h), agent_leg(h)
        parties = [agent, expert, third]
        for name, hz in (("p4", 1900.0), ("p5", 2200.0)):
            await control(h).add(view.id, f"+1555123020{name[1]}")
            party = await h.teams.expect_invite(tone=hz)
            await party.answer()
            stage.add(name, party, hz)
            parties.append(party)
        names = {"agent", "expert", "third", "p4", "p5"}
        await control(h).supervise(view.id, mine, SUPERVISOR, SupervisorMode.LISTEN)
        boss = await h.center.expect_call(tone=TONES["fourth"])
        await boss.answer()
        stage.add("fourth", boss)
        await stage.hear(everybody(*names) | {"fourth": names})
        leg = leg_of(only_call(h), SUPERVISOR).id
        await control(h).supervise_mode(view.id, leg, SupervisorMode.WHISPER)
        everyone = everybody(*names)
        await stage.hear(everyone | {"agent": everyone["agent"] | {"fourth"}, "fourth": names})
        await expert.hold()
        left = everybody(*(names - {"expert"}))
        music = {name: heard | {"music"} for name, heard in left.items()}
        await stage.hear(
            music | {"agent": music["agent"] | {"fourth"}, "fourth": names - {"expert"}, "expert": set()}
        )
        await expert.resume()
        await control(h).supervise_mode(view.id, leg, SupervisorMode.BARGE)
        await stage.hear(everybody(*names, "fourth"))
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in parties), boss.expect_end())
