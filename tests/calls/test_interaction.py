"""The global interaction id goes from the call an agent holds to the one he makes meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.control_views import CallView
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House, until
from tests.calls.matrix import AGENT, ANN, THIRD, TONES, Stage, control, everybody, leg_of, only_call
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

AGENTS = ANN
Dialled = tuple[CallView, CenterCall, TeamsCall]


async def taken(h: House) -> tuple[CenterCall, TeamsCall, str]:
    """A Teams user calls the agent; the id of that."""
    known = {view.id for view in control(h).calls()}
    user = await h.teams.invite(CUSTOMER)
    agent = await h.center.expect_call()
    await agent.answer()
    await user.answered()
    [view] = [view for view in control(h).calls() if view.id not in known]
    return agent, user, view.id


async def by_telephone(h: House, number: str) -> Dialled:
    agent = await h.center.call(number)
    other = await h.teams.expect_invite(tone=TONES["third"])
    await other.answer()
    await agent.answered()
    return next(view for view in control(h).calls() if view.to_number == number), agent, other


async def by_command(h: House, number: str) -> Dialled:
    view = await control(h).place(agent="ann", number=number)
    agent = await h.center.expect_call()
    await agent.answer()
    other = await h.teams.expect_invite(tone=TONES["third"])
    await other.answer()
    await until(lambda: control(h).show(view.id).state == "up", "call to be up")
    return control(h).show(view.id), agent, other


async def over(h: House, dialled: Dialled) -> None:
    view, agent, other = dialled
    await other.hang_up()
    await agent.expect_end()
    await until(lambda: all(call.id != view.id for call in control(h).calls()), "call to end")


@pytest.mark.parametrize("dial", [by_telephone, by_command])
async def test_a_call_placed_by_command_had_an_id_of_its_own(house: OpenHouse, dial: object) -> None:
    """And of two that are held, the one held last counts."""
    dials = by_telephone if dial is by_telephone else by_command
    async with house(center_extra=AGENT, extra=AGENTS) as h:
        (one, first, a), (two, second, b) = await taken(h), await taken(h)
        ids = {call: control(h).show(call).interaction for call in (a, b)}
        assert len(set(ids.values())) == 2
        free = await dials(h, EXPERT)
        assert free[0].interaction not in ids.values()
        assert free[0].consultation_of is None
        await over(h, free)
        await one.hold()
        await two.hold()
        dialled = await dials(h, EXPERT)
        assert (dialled[0].consultation_of, dialled[0].interaction) == (b, ids[b])
        await over(h, dialled)
        await one.resume()
        await one.hold()
        dialled = await dials(h, EXPERT)
        assert (dialled[0].consultation_of, dialled[0].interaction) == (a, ids[a])
        await over(h, dialled)
        await asyncio.gather(one.bye(), two.bye())
        await asyncio.gather(first.expect_end(), second.expect_end())


@pytest.mark.parametrize("end", ["merge", "transfer", "back", "back while his telephone rings"])
async def test_a_call_placed_while_another_is_held_is_its_consultation(
    house: OpenHouse, rooms: RoomPool, end: str
) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        agent, user, held = await taken(h)
        stage = Stage(h)
        stage.add("agent", agent)
        stage.add("expert", user)
        await stage.hear(everybody("agent", "expert"))
        await control(h).hold(held, leg_of(only_call(h), "agent").id)
        await stage.hear({"expert": {"music"}})
        if end == "back while his telephone rings":
            placed = await control(h).place(agent="ann", number=THIRD)
            second = await h.center.expect_call()
            second.ring()
            assert control(h).show(held).consultation == placed.id
            await control(h).back(held)
            await second.expect_end()
            await stage.hear(everybody("agent", "expert"))
            await agent.bye()
            await user.expect_end()
            return
        _, second, third = await by_command(h, THIRD)
        second.rtp.say(TONES["fourth"])
        stage.add("third", third)
        if end == "merge":
            await control(h).merge(held)
            await agent.expect_end()
            stage.add("fourth", second)
            await stage.hear({"expert": {"third", "fourth"}, "third": {"expert", "fourth"}})
            await asyncio.gather(second.bye(), third.hang_up())
        elif end == "transfer":
            await control(h).complete_transfer(held)
            await asyncio.gather(agent.expect_end(), second.expect_end())
            await stage.hear(everybody("expert", "third"))
            await third.hang_up()
        else:
            await control(h).back(held)
            await asyncio.gather(second.expect_end(), third.expect_end())
            await stage.hear(everybody("agent", "expert"))
            await agent.bye()
        await user.expect_end()
