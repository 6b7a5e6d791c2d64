"""Consultation by command: aside with one leg, then back, merged, or transferred; and the rows of it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.control import ControlError
from gateway.calls.control_views import CallView
from gateway.cdr.call_detail import CallDetail
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import House, until
from tests.calls.matrix import (
    AGENT,
    FOURTH,
    THIRD,
    TONES,
    Stage,
    agent_leg,
    control,
    everybody,
    leg_of,
    only_call,
    three,
    two,
)
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

ALL = everybody("agent", "expert", "third")
ASIDE = {"agent": {"third"}, "third": {"agent"}, "expert": {"music"}}


async def consulting(h: House) -> tuple[Stage, CenterCall, TeamsCall, TeamsCall, CallView]:
    """The agent holds the call with the expert and talks to a third aside; the view of that."""
    stage, agent, expert = await two(h)
    aside = await control(h).consult(only_call(h).id, agent_leg(h), THIRD)
    third = await h.teams.expect_invite(tone=TONES["third"])
    third.ring()
    await third.answer()
    stage.add("third", third)
    await stage.hear(ASIDE)
    return stage, agent, expert, third, aside


def primary_and_aside(h: House) -> tuple[CallDetail, CallDetail]:
    """The two rows of one interaction, the held call's first."""
    rows = h.rows()
    assert len(rows) == 2
    assert rows[0].global_interaction_id == rows[1].global_interaction_id
    assert rows[1].detail["consultation_of"] == rows[0].id
    for row in rows:
        answered = row.detail["answer_ms"]
        assert row.detail["talk_ms"] + row.detail["hold_ms"] == row.detail["end_ms"] - answered
    return rows[0], rows[1]


async def test_consult_merge_leave(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third, aside = await consulting(h)
        assert aside.consultation_of is not None
        assert control(h).show(aside.consultation_of).consultation == aside.id
        view = await control(h).merge(aside.id)
        assert view.id == aside.consultation_of
        assert len(view.legs) == 3
        assert leg_of(view, "agent").host
        await stage.hear(ALL)
        await agent.bye()
        await stage.hear(everybody("expert", "third"))
        assert not expert.inbox
        assert not third.inbox
        await expert.hang_up()
        await third.expect_end()
        await h.quiet()
        primary, consultation = primary_and_aside(h)
        assert primary.disposition == "conferenced"
        assert primary.hold_count == 1
        [held] = primary.detail["holds"]
        ended = consultation.detail["end_ms"]
        assert abs(held["end_ms"] - ended) < 1000, "the hold ends at the moment of the merge"
        assert (consultation.reason, consultation.type) == ("merged", "Outbound")
        assert consultation.connected_to_phone == THIRD
        assert consultation.hold_count == 0


async def test_consult_and_back(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third, aside = await consulting(h)
        view = await control(h).back(aside.id)
        await third.expect_end()
        assert view.consultation is None
        await stage.hear(everybody("agent", "expert"))
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        primary, consultation = primary_and_aside(h)
        assert (primary.hold_count, consultation.reason) == (1, "consultation_ended")
        assert primary.detail["holds"][0]["end_ms"] < primary.detail["end_ms"]


async def test_complete_the_transfer(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third, aside = await consulting(h)
        await control(h).complete_transfer(aside.id)
        await agent.expect_end()
        await stage.hear(everybody("expert", "third"))
        assert not only_call(h).in_room
        await third.hang_up()
        await expert.expect_end()
        await h.quiet()
        primary, consultation = primary_and_aside(h)
        assert primary.disposition == "transferred"
        assert primary.transferred_to_phone == THIRD
        assert consultation.reason == "transferred"


async def test_the_consulted_party_refuses_and_the_agent_retrieves(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        await control(h).consult(view.id, agent_leg(h), THIRD)
        third = await h.teams.expect_invite()
        third.ring()
        await agent.rtp.hears(425.0)
        with pytest.raises(ControlError) as raised:
            await control(h).merge(view.id)
        assert (raised.value.status, raised.value.reason) == (409, "not_answered")
        await third.decline(486)
        await until(lambda: len(h.gateway.calls.calls) == 1, "consultation to end")
        await stage.hear({"agent": set(), "expert": {"music"}})
        await control(h).resume(view.id, agent_leg(h))
        await stage.hear(everybody("agent", "expert"))
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        primary, consultation = h.rows()
        assert (primary.hold_count, consultation.disposition) == (1, "busy")


@pytest.mark.parametrize("held", ["before the consultation", "while it rings"])
async def test_one_whose_telephone_held_consulted_into_dead_air(
    house: OpenHouse, rooms: RoomPool, held: str
) -> None:
    """His hold was in his telephone's description and not counted: who answered heard no music."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        if held == "before the consultation":
            await agent.hold()
            await stage.hear({"expert": {"music"}})
        await control(h).consult(only_call(h).id, agent_leg(h), THIRD)
        third = await h.teams.expect_invite(tone=TONES["third"])
        third.ring()
        if held != "before the consultation":
            await agent.hold()
        await third.answer()
        stage.add("third", third)
        await stage.hear({"third": {"music"}, "expert": {"music"}, "agent": set()})
        await agent.resume()
        await stage.hear(ASIDE)
        await control(h).merge(control(h).calls()[0].id)
        await stage.hear(ALL)
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third)))


async def test_the_held_party_hangs_up_during_the_consultation(house: OpenHouse, rooms: RoomPool) -> None:
    """The primary ends; the agent talks on with the consulted one, on a leg that is now nobody else's."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third, aside = await consulting(h)
        await expert.hang_up()
        await until(lambda: len(h.gateway.calls.calls) == 1, "primary to end")
        assert only_call(h).id == aside.id
        for late in (control(h).merge, control(h).complete_transfer, control(h).back):
            with pytest.raises(ControlError) as raised:
                await late(aside.id)
            assert (raised.value.status, raised.value.reason) == (409, "no_consultation")
        await stage.hear(everybody("agent", "third"))
        await third.hang_up()
        await agent.expect_end()
        await h.quiet()
        primary, _ = primary_and_aside(h)
        assert primary.detail["holds"][0]["end_ms"] <= primary.detail["end_ms"]


async def test_the_agent_hangs_up_during_the_consultation(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        _, agent, expert, third, _ = await consulting(h)
        await agent.bye()
        await asyncio.gather(expert.expect_end(), third.expect_end())
        await h.quiet()
        primary, consultation = primary_and_aside(h)
        assert primary.reason == consultation.reason == "hangup"


async def test_all_hang_up_at_once_during_a_merge(house: OpenHouse, rooms: RoomPool) -> None:
    """Whatever the order in which it is noticed: nothing is left, and both rows are made."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        _, agent, expert, third, aside = await consulting(h)
        merging = asyncio.create_task(control(h).merge(aside.id))
        await asyncio.gather(expert.hang_up(), third.hang_up())
        await asyncio.gather(merging, return_exceptions=True)
        await agent.expect_end()
        await h.quiet()
        assert len(h.rows()) == 2


async def test_a_consultation_within_a_consultation(house: OpenHouse, rooms: RoomPool) -> None:
    """Two are held now; going back leads to the one who was held last."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third, aside = await consulting(h)
        inner = await control(h).consult(aside.id, leg_of(aside, "agent").id, FOURTH)
        assert inner.interaction == aside.interaction
        fourth = await h.teams.expect_invite()
        await fourth.answer()
        stage.add("fourth", fourth)
        waiting = {"expert": {"music"}, "third": {"music"}}
        await stage.hear({"agent": {"fourth"}, "fourth": {"agent"}} | waiting)
        await control(h).back(inner.id)
        await fourth.expect_end()
        await stage.hear(ASIDE)
        await control(h).merge(aside.id)
        await stage.hear(ALL)
        await agent.bye()
        await third.hang_up()
        await expert.expect_end()


async def test_consult_out_of_a_conference(house: OpenHouse, rooms: RoomPool) -> None:
    """Those in the conference go on, with music; then four are in it."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        view = only_call(h)
        await control(h).consult(view.id, agent_leg(h), FOURTH)
        fourth = await h.teams.expect_invite()
        await fourth.answer()
        stage.add("fourth", fourth)
        await stage.hear(
            {
                "agent": {"fourth"},
                "fourth": {"agent"},
                "expert": {"third", "music"},
                "third": {"expert", "music"},
            }
        )
        await control(h).merge(view.id)
        await stage.hear(everybody("agent", "expert", "third", "fourth"))
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third, fourth)))


async def test_the_held_party_changes_telephones_during_the_consultation(
    house: OpenHouse, rooms: RoomPool
) -> None:
    """INVITE with Replaces: the agent's leg is lent and was looked for in the call, which broke with 500."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third, aside = await consulting(h)
        taker = await h.teams.replaces(expert, tone=TONES["fourth"])
        await taker.answered()
        stage.add("fourth", taker)
        await expert.expect_end()
        await stage.hear({"agent": {"third"}, "third": {"agent"}, "fourth": {"music"}})
        await control(h).merge(aside.id)
        await stage.hear(everybody("agent", "third", "fourth"))
        await agent.bye()
        await taker.hang_up()
        await third.expect_end()
        await h.quiet()
        primary, _ = primary_and_aside(h)
        assert primary.reason == "hangup"
