"""A supervisor of a consultation goes where the conversation goes, and remains what he was."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.audibility import SupervisorMode
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import House
from tests.calls.matrix import AGENT, TONES, Stage, control, everybody, kinds, leg_of, only_call
from tests.calls.test_consult import consulting
from tests.calls.test_supervise import AGENTS, SUPERVISOR
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

ALL = everybody("agent", "expert", "third")
THREE = {"agent", "expert", "third"}


async def supervised(
    h: House, mode: SupervisorMode, of: str = "agent"
) -> tuple[Stage, CenterCall, TeamsCall, TeamsCall, CenterCall, str]:
    """A consultation with a supervisor of the agent (or of another party); and its id."""
    stage, agent, expert, third, aside = await consulting(h)
    await control(h).supervise(aside.id, leg_of(control(h).show(aside.id), of).id, SUPERVISOR, mode)
    boss = await h.center.expect_call(tone=TONES["fourth"])
    await boss.answer()
    stage.add("fourth", boss)
    await stage.hear({"fourth": {"agent", "third"}, "expert": {"music"}})
    return stage, agent, expert, third, boss, aside.id


@pytest.mark.parametrize("mode", [SupervisorMode.LISTEN, SupervisorMode.WHISPER])
async def test_a_merge_made_the_hidden_supervisor_an_audible_party(
    house: OpenHouse, rooms: RoomPool, mode: SupervisorMode
) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, third, boss, aside = await supervised(h, mode)
        view = await control(h).merge(aside)
        assert leg_of(view, SUPERVISOR).supervision is mode
        whispered = {"fourth"} if mode is SupervisorMode.WHISPER else set()
        await stage.hear(ALL | {"agent": ALL["agent"] | whispered, "fourth": THREE})
        await control(h).supervise_mode(view.id, leg_of(view, SUPERVISOR).id, SupervisorMode.BARGE)
        await stage.hear(everybody("agent", "expert", "third", "fourth"))
        await control(h).supervise_mode(view.id, leg_of(view, SUPERVISOR).id, mode)
        await stage.hear({"expert": ALL["expert"], "third": ALL["third"]})
        await third.hang_up()
        await expert.hang_up()
        # he keeps no call alive
        await asyncio.gather(agent.expect_end(), boss.expect_end())
        await h.quiet()
        held, consultation = h.rows()
        sizes = [len(segment["members"]) for segment in held.detail["segments"]]
        assert sizes.count(4) == 1, "he is a member for the time of his barging in, and no longer"
        assert max(len(segment["members"]) for segment in consultation.detail["segments"]) == 2


async def test_one_who_had_barged_in_is_still_a_supervisor_after_the_merge(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, third, boss, aside = await supervised(h, SupervisorMode.BARGE)
        view = await control(h).merge(aside)
        await stage.hear(everybody("agent", "expert", "third", "fourth"))
        await control(h).supervise_mode(view.id, leg_of(view, SUPERVISOR).id, SupervisorMode.LISTEN)
        await stage.hear(ALL | {"fourth": THREE})
        # and he goes with the one he listens to
        await agent.bye()
        await boss.expect_end()
        await stage.hear(everybody("expert", "third"))
        await third.hang_up()
        await expert.expect_end()


async def test_who_listens_to_the_one_consulted_goes_with_him_when_he_is_transferred(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, third, boss, aside = await supervised(
            h, SupervisorMode.WHISPER, of="+15551230003"
        )
        await control(h).complete_transfer(aside)
        await agent.expect_end()
        await stage.hear({"expert": {"third"}, "third": {"expert", "fourth"}, "fourth": {"expert", "third"}})
        await third.hang_up()
        await asyncio.gather(expert.expect_end(), boss.expect_end())
        await h.quiet()
        held, _ = h.rows()
        assert max(len(segment["members"]) for segment in held.detail["segments"]) == 2
        assert held.transferred_to_phone == "+15551230003"


async def test_supervisors_of_an_agent_who_transfers_go_with_him(house: OpenHouse, rooms: RoomPool) -> None:
    """The one who listens to his consultation, and the one who has listened to the held call all along."""
    other = "+49301119998"
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, third, boss, aside = await supervised(h, SupervisorMode.LISTEN)
        held = control(h).show(aside).consultation_of
        assert held is not None
        await control(h).supervise(
            held, leg_of(control(h).show(held), "teams_expert").id, other, SupervisorMode.LISTEN
        )
        second = await h.center.expect_call()
        await second.answer()
        await control(h).complete_transfer(aside)
        await asyncio.gather(agent.expect_end(), boss.expect_end())
        await stage.hear(everybody("expert", "third"))
        assert leg_of(only_call(h), other).supervision is SupervisorMode.LISTEN
        assert kinds(h, "leg_held") == ["leg_held"]
        await expert.hang_up()
        await asyncio.gather(third.expect_end(), second.expect_end())
