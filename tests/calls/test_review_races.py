"""Two things at once: the end of a call, and what somebody still wants of it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.leg import Leg
from gateway.events import CallEnded
from tests.calls.conftest import OpenHouse
from tests.calls.conversation import both_hear, over, to_teams
from tests.calls.house import EXPERT, until
from tests.calls.matrix import only_call


class Gate:
    """Holds up an async method of a class at its beginning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        method = getattr(owner, name)

        async def held(*arguments: object) -> object:
            self.reached.set()
            await self.open.wait()
            return await method(*arguments)

        monkeypatch.setattr(owner, name, held)


async def test_replaces_of_a_call_that_ends_meanwhile_is_481(
    house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 3891 3: the INVITE came while the dialog was there, and its call is gone when it is read."""
    async with house() as h:
        agent, expert = await to_teams(h)
        ending = Gate(monkeypatch, Leg, "release")
        await agent.bye()
        await asyncio.wait_for(ending.reached.wait(), 5)
        picked_up = await h.teams.replaces(expert)
        await until(lambda: len(h.gateway.agent.sessions) == 2, "the INVITE to arrive")
        ending.open.set()
        assert (await picked_up.outcome()).code == 481
        await expert.expect_end()


async def test_replaces_that_is_cancelled_leaves_the_call_as_it_was(
    house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house() as h:
        agent, expert = await to_teams(h)
        taking = Gate(monkeypatch, Leg, "take_call")
        picked_up = await h.teams.replaces(expert)
        await asyncio.wait_for(taking.reached.wait(), 5)
        assert (await picked_up.cancel()).code == 487
        taking.open.set()
        await until(lambda: len(only_call(h).legs) == 2, "the new leg to go")
        await both_hear(agent, expert)
        await over(agent, expert)
        await h.quiet()
        [row] = h.rows()
        assert row.reason == "hangup"


async def test_replaces_is_taken_while_draining_and_over_the_limits(house: OpenHouse) -> None:
    """It is no new call: a user who picks up a held call during maintenance keeps it."""
    async with house(teams_extra="max_calls = 1") as h:
        agent, expert = await to_teams(h)
        h.gateway.drain()
        picked_up = await h.teams.replaces(expert)
        await picked_up.answered()
        await expert.expect_end()
        await both_hear(agent, picked_up)
        await over(agent, picked_up)


async def test_cancel_while_the_callee_answers_is_an_abandoned_call(
    house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 200 of the callee and the CANCEL of the caller cross inside of us."""
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        taking = Gate(monkeypatch, Leg, "take_description")
        await expert.answer()
        await asyncio.wait_for(taking.reached.wait(), 5)
        assert (await agent.cancel()).code == 487
        taking.open.set()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert (row.reason, row.talk_time, row.answer_time) == ("cancelled", 0, None)


async def test_cancel_before_we_have_dialled_rings_nobody(
    house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house() as h:
        taking = Gate(monkeypatch, Leg, "take_call")
        agent = await h.center.call(EXPERT)
        await asyncio.wait_for(taking.reached.wait(), 5)
        assert (await agent.cancel()).code == 487
        taking.open.set()
        await h.quiet()
        await h.teams.expect_no_invite(0.1)
        [ended] = [event for event in h.events if isinstance(event, CallEnded)]
        assert ended.termination.reason == "cancelled"


async def test_both_hang_up_at_once(house: OpenHouse) -> None:
    async with house() as h:
        agent, expert = await to_teams(h)
        codes = await asyncio.gather(agent.bye(), expert.bye())
        assert {answer.code for answer in codes} <= {200, 481}
        await h.quiet()
        [row] = h.rows()
        assert row.reason == "hangup"


async def test_attended_transfer_into_a_call_that_ends_meanwhile_is_told(
    house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The REFER got its 202; without a last NOTIFY the transferor would wait for ever."""
    async with house() as h:
        first, expert = await to_teams(h)
        second = await h.center.call(EXPERT)
        other = await h.teams.expect_invite()
        await other.answer()
        await second.answered()
        changing = Gate(monkeypatch, Leg, "take_offer")
        held = asyncio.create_task(second.hold())
        await asyncio.wait_for(changing.reached.wait(), 5)
        await other.hang_up()
        assert (await first.refer("", replaces=second)).code == 202
        changing.open.set()
        assert "481" in await first.transferred()
        await held
        await second.expect_end()
        await both_hear(first, expert)
        await over(first, expert)
