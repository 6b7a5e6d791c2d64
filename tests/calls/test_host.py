"""The host of a conference: one at a time, always an agent who is there, and only he disconnects others."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.control import ControlError
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House, until
from tests.calls.matrix import (
    AGENT,
    ANN,
    THIRD,
    Stage,
    agent_leg,
    control,
    leg_of,
    only_call,
    two,
)
from tests.calls.test_misuse import settled
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

BEN, CY = "+49301112223", "+49301112224"
AGENTS = f"""{ANN}
[[agent]]
login = "ben"
numbers = ["{BEN}"]
[[agent]]
login = "cy"
numbers = ["{CY}"]
"""


def hosts(h: House) -> list[str]:
    """Logins."""
    return [leg.login for leg in only_call(h).legs if leg.host]


async def joins(h: House, number: str, *, by: str = CUSTOMER) -> CenterCall:
    """An agent is added by another one."""
    view = only_call(h)
    await control(h).add(view.id, number, by=leg_of(view, by).id)
    agent = await h.center.expect_call(tone=0.0)
    await agent.answer()
    await until(lambda: leg_of(only_call(h), number).answered_at, "agent to be in")
    await settled(h)
    return agent


async def hosted(h: House) -> tuple[Stage, CenterCall, TeamsCall, CenterCall]:
    """Ann, an expert, and Ben whom Ann has brought in."""
    stage, ann, expert = await two(h)
    assert hosts(h) == []
    ben = await joins(h, BEN)
    assert hosts(h) == ["ann"]
    return stage, ann, expert, ben


async def test_any_agent_could_disconnect_others_and_end_a_conference_for_all(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        _, ann, expert, ben = await hosted(h)
        c, view = control(h), only_call(h)
        theirs = leg_of(view, EXPERT).id
        for attempt in (
            c.hang_up(view.id, person="ben"),
            c.hang_up(view.id, theirs, person="ben"),
            c.remove(view.id, theirs, person="ben"),
            c.remove(view.id, leg_of(view, CUSTOMER).id, person="ben"),
        ):
            before, events = c.calls(), list(h.events)
            with pytest.raises(ControlError, match="403 not_host"):
                await attempt
            assert (c.calls(), h.events) == (before, events)
        # he may leave; of two nobody is the host of anything
        await c.hang_up(view.id, leg_of(view, BEN).id, person="ben")
        await ben.expect_end()
        ben = await joins(h, BEN)
        await c.remove(view.id, theirs, person="ann")
        await expert.expect_end()
        await c.hang_up(view.id, person="ben")
        await asyncio.gather(ann.expect_end(), ben.expect_end())


async def test_the_role_goes_on_to_the_agent_who_has_been_there_longest(
    house: OpenHouse, rooms: RoomPool
) -> None:
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        _, ann, expert, ben = await hosted(h)
        cy = await joins(h, CY, by=BEN)
        # whoever brings in a further one does not take the role from the host
        assert hosts(h) == ["ann"]
        await ann.bye()
        await until(lambda: hosts(h) == ["ben"], "Ben to be the host")
        with pytest.raises(ControlError, match="403 not_host: ben"):
            await control(h).hang_up(only_call(h).id, person="cy")
        await ben.bye()
        await until(lambda: hosts(h) == ["cy"], "Cy to be the host")
        await control(h).hang_up(only_call(h).id, person="cy")
        await asyncio.gather(expert.expect_end(), cy.expect_end())
        await h.quiet()


async def test_of_two_agents_who_have_brought_others_in_one_is_the_host(
    house: OpenHouse, rooms: RoomPool
) -> None:
    """The second consults out of the conference, and merges."""
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        _, ann, expert, ben = await hosted(h)
        view = only_call(h)
        aside = await control(h).consult(view.id, leg_of(view, BEN).id, THIRD, trunk="teams")
        third = await h.teams.expect_invite(tone=0.0)
        await third.answer()
        await until(lambda: control(h).show(aside.id).state == "up", "the third to be there")
        await control(h).merge(aside.id)
        assert hosts(h) == ["ann"]
        # who hands his place to somebody else hands on the role
        await control(h).transfer(view.id, agent_leg(h), CY)
        cy = await h.center.expect_call(tone=0.0)
        await cy.answer()
        await ann.expect_end()
        await until(lambda: hosts(h) == ["ben"], "Ben to be the host")
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in (expert, ben, third, cy)))
