"""Calls placed and steered by command (`CallControl`)."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.control import ControlError
from gateway.model import Role
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT
from tests.calls.matrix import AGENT, ANN, Stage, agent_leg, control, everybody, leg_of, only_call, two


@pytest.mark.parametrize("who", ["ann", CUSTOMER])
async def test_a_call_placed_rings_the_agent_first(house: OpenHouse, who: str) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        view = await control(h).place(agent=who, number=EXPERT)
        assert (view.state, view.to_number) == ("setup", EXPERT)
        agent = await h.center.expect_call()
        agent.ring()
        await h.teams.expect_no_invite(0.1)
        await agent.answer()
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.rtp.hears(425.0)
        await expert.answer()
        stage = Stage(h)
        stage.add("agent", agent)
        stage.add("expert", expert)
        await stage.hear(everybody("agent", "expert"))
        legs = only_call(h).legs
        assert [(leg.login, leg.role) for leg in legs] == [("ann", Role.CALLER), ("", Role.CALLEE)]
        await expert.hang_up()
        await agent.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert (row.type, row.caller_login_id, row.connected_to_phone) == ("Outbound", "ann", EXPERT)
        assert row.disposition == "callee_terminated"


async def test_the_agent_does_not_answer_a_call_placed(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        await control(h).place(agent="ann", number=EXPERT)
        agent = await h.center.expect_call()
        await agent.reject(486)
        await h.quiet()
        await h.teams.expect_no_invite(0.1)
        [row] = h.rows()
        assert row.disposition == "busy"


async def test_the_number_of_a_call_placed_refuses(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        await control(h).place(agent="ann", number=EXPERT)
        agent = await h.center.expect_call()
        await agent.answer()
        expert = await h.teams.expect_invite()
        await expert.decline(603)
        await agent.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "declined"


async def test_a_call_placed_is_taken_back_while_the_agent_rings(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        view = await control(h).place(agent="ann", number=EXPERT)
        agent = await h.center.expect_call()
        agent.ring()
        await control(h).hang_up(view.id)
        await agent.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "abandoned_ringing"


async def test_a_call_that_cannot_be_placed_leaves_nothing(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        for agent, number, trunk, status, reason in (
            ("nobody", EXPERT, "", 404, "unknown_agent"),
            ("ann", "a b", "", 422, "bad_number"),
            ("ann", EXPERT, "none", 422, "no_way"),
        ):
            with pytest.raises(ControlError) as raised:
                await control(h).place(agent=agent, number=number, trunk=trunk)
            assert (raised.value.status, raised.value.reason) == (status, reason)
        h.gateway.drain()
        with pytest.raises(ControlError) as raised:
            await control(h).place(agent="ann", number=EXPERT)
        assert (raised.value.status, raised.value.reason) == (409, "draining")
        await h.center.expect_no_call(0.1)
        assert not h.gateway.calls.calls
        assert not h.events


async def test_digits_are_sent_to_one_party(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        await control(h).digits(view.id, leg_of(view, "teams_expert").id, "12#")
        await expert.rtp.hears_digits("12#")
        assert not agent.rtp.digits
        await stage.hear(everybody("agent", "expert"))
        await agent.bye()
        await expert.expect_end()


async def test_one_leg_is_hung_up(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        _, agent, expert = await two(h)
        await control(h).hang_up(only_call(h).id, agent_leg(h))
        await asyncio.gather(agent.expect_end(), expert.expect_end())
        await h.quiet()
        [row] = h.rows()
        assert (row.reason, row.disposition) == ("hung_up", "caller_terminated")


async def test_what_a_call_looks_like(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        _, agent, expert = await two(h)
        view = control(h).show(only_call(h).id)
        assert (view.state, view.in_room, view.from_number, view.to_number) == ("up", False, CUSTOMER, EXPERT)
        caller, callee = view.legs
        assert (caller.login, caller.trunk, caller.codec, caller.state) == ("ann", "center", "PCMA", "up")
        assert (callee.party, callee.trunk, callee.muted, callee.away) == (
            "teams_expert",
            "teams",
            False,
            False,
        )
        assert caller.answered_at is not None
        assert view.started_at <= caller.answered_at
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        assert control(h).calls() == []
