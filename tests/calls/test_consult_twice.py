"""A consultation within a consultation: whatever ends in whatever order, nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.control import ControlError
from gateway.calls.control_views import CallView
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import House, until
from tests.calls.matrix import AGENT, FOURTH, THIRD, TONES, Stage, control, everybody, leg_of, only_call
from tests.calls.test_consult import consulting
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

Cast = tuple[Stage, CenterCall, TeamsCall, TeamsCall, TeamsCall]
INNERMOST = {"agent": {"fourth"}, "fourth": {"agent"}}
PAIR = everybody("agent", "expert")


async def ringing(h: House) -> tuple[Cast, str, CallView, CallView]:
    """The expert is held, the third too, the fourth rings: the held call, its consultation, that one's."""
    stage, agent, expert, third, aside = await consulting(h)
    inner = await control(h).consult(aside.id, leg_of(aside, "agent").id, FOURTH)
    fourth = await h.teams.expect_invite(tone=TONES["fourth"])
    fourth.ring()
    assert aside.consultation_of is not None
    return (stage, agent, expert, third, fourth), aside.consultation_of, aside, inner


async def nested(h: House) -> tuple[Cast, str, CallView, CallView]:
    """As `ringing`, and the fourth has answered."""
    cast, held, aside, inner = await ringing(h)
    stage, *_, fourth = cast
    await fourth.answer()
    stage.add("fourth", fourth)
    await stage.hear(INNERMOST | {"expert": {"music"}, "third": {"music"}})
    return cast, held, aside, inner


async def calls_left(h: House, count: int) -> None:
    await until(lambda: len(h.gateway.calls.calls) == count, f"{count} calls")


async def retrieved(h: House, stage: Stage, held: str) -> None:
    """The agent goes back to the expert who has waited all the time."""
    view = control(h).show(held)
    assert not leg_of(view, "agent").away
    await control(h).resume(held, leg_of(view, "agent").id)
    await stage.hear(PAIR)


async def test_the_agent_hung_up_and_the_first_one_held_heard_music_for_ever(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        (_, agent, expert, third, fourth), *_ = await nested(h)
        await agent.bye()
        await asyncio.gather(*(party.expect_end() for party in (expert, third, fourth)))
        await h.quiet()
        assert {row.reason for row in h.rows()} == {"hangup"}
        assert all(row.detail["hold_ms"] < 60_000 for row in h.rows())


async def test_the_one_held_in_between_hung_up_and_the_first_could_never_be_retrieved(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        (stage, agent, expert, third, fourth), held, _, inner = await nested(h)
        await third.hang_up()
        await calls_left(h, 2)
        assert control(h).show(inner.id).consultation_of == held
        assert control(h).show(held).consultation == inner.id
        await stage.hear(INNERMOST | {"expert": {"music"}})
        await control(h).back(held)
        await fourth.expect_end()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_with_the_one_in_between_gone_the_other_two_can_be_merged(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        (stage, agent, expert, third, fourth), held, _, _ = await nested(h)
        await third.hang_up()
        await calls_left(h, 2)
        await control(h).merge(held)
        await stage.hear(everybody("agent", "expert", "fourth"))
        await fourth.hang_up()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_the_first_one_held_hangs_up(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        (stage, agent, expert, third, fourth), _, aside, inner = await nested(h)
        await expert.hang_up()
        await calls_left(h, 2)
        assert control(h).show(aside.id).consultation_of is None
        await control(h).back(inner.id)
        await fourth.expect_end()
        await stage.hear(everybody("agent", "third"))
        await agent.bye()
        await third.expect_end()


async def test_both_who_are_held_hang_up(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        (stage, agent, expert, third, fourth), *_ = await nested(h)
        await asyncio.gather(expert.hang_up(), third.hang_up())
        await calls_left(h, 1)
        await stage.hear(INNERMOST)
        await agent.bye()
        await fourth.expect_end()


async def test_those_two_he_consulted_hang_up_together(house: OpenHouse, rooms: RoomPool) -> None:
    """His leg is on its way back to a call that ends at that moment."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        (stage, agent, expert, third, fourth), held, _, _ = await nested(h)
        await asyncio.gather(fourth.hang_up(), third.hang_up())
        await calls_left(h, 1)
        await until(lambda: not leg_of(control(h).show(held), "agent").away, "agent to come back")
        await retrieved(h, stage, held)
        await agent.bye()
        await expert.expect_end()


@pytest.mark.parametrize("when", ["answered", "ringing"])
async def test_transferring_the_two_he_consulted_to_each_other_leaves_him_the_one_he_held_first(
    house: OpenHouse, rooms: RoomPool, when: str
) -> None:
    """He was hung up, and the first one heard music until he gave up."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        made = await (nested(h) if when == "answered" else ringing(h))
        (stage, agent, expert, third, fourth), held, aside, inner = made
        await control(h).complete_transfer(inner.id)
        if when == "ringing":
            await fourth.answer()
            stage.add("fourth", fourth)
        await until(lambda: not leg_of(control(h).show(held), "agent").away, "agent to come back")
        await stage.hear(everybody("third", "fourth") | {"expert": {"music"}, "agent": set()})
        await retrieved(h, stage, held)
        assert {leg.number for leg in control(h).show(aside.id).legs if leg.login} == set()
        await fourth.hang_up()
        await third.expect_end()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        transferred = next(row for row in h.rows() if row.id == aside.id)
        assert (transferred.disposition, transferred.transferred_to_phone) == ("transferred", FOURTH)


async def test_one_who_is_away_himself_would_have_been_left_behind_by_a_merge(
    house: OpenHouse, rooms: RoomPool
) -> None:
    """The third consults a fourth while the agent consults him."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third, aside = await consulting(h)
        view = control(h).show(aside.id)
        await control(h).consult(view.id, leg_of(view, THIRD).id, FOURTH, trunk="teams")
        fourth = await h.teams.expect_invite(tone=TONES["fourth"])
        await fourth.answer()
        stage.add("fourth", fourth)
        apart = everybody("third", "fourth")
        await stage.hear(apart | {"agent": {"music"}, "expert": {"music"}})
        held = aside.consultation_of
        assert held is not None
        for early in (control(h).merge, control(h).complete_transfer):
            with pytest.raises(ControlError) as raised:
                await early(held)
            assert (raised.value.status, raised.value.reason) == (409, "consultation_open")
        # but the agent may go back at any time, and the third talks on
        await control(h).back(held)
        await stage.hear(apart | PAIR)
        await fourth.hang_up()
        await third.expect_end()
        await agent.bye()
        await expert.expect_end()


async def test_merged_from_the_inside_out(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        (stage, agent, expert, third, fourth), held, aside, inner = await nested(h)
        # as long as he is away from it, the consultation in between can go nowhere
        for early in (control(h).merge, control(h).complete_transfer, control(h).back):
            with pytest.raises(ControlError) as raised:
                await early(held)
            assert (raised.value.status, raised.value.reason) == (409, "consultation_open")
        assert len(control(h).calls()) == 3
        view = await control(h).merge(inner.id)
        assert view.id == aside.id
        await stage.hear(everybody("agent", "third", "fourth") | {"expert": {"music"}})
        view = await control(h).merge(aside.id)
        assert view.id == held
        await stage.hear(everybody("agent", "expert", "third", "fourth"))
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third, fourth)))
