"""The main job: contact center to Teams and back, heard both ways, ended cleanly, with its row."""

from __future__ import annotations

import asyncio

from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT


async def test_contact_center_calls_a_teams_user_and_both_hear_each_other(house: OpenHouse) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        await expert.answer()
        await agent.answered()
        answered = agent.rtp.now
        await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
        first = agent.rtp.first_heard(700, since=answered)
        assert first is not None
        assert first - answered < 0.2 + h.stalls.lost(answered, first)
        await agent.bye()
        ended = expert.rtp.now
        await expert.expect_end()
        await h.quiet()
        await asyncio.sleep(0.1)
        assert not expert.rtp.heard(since=ended + 0.05)
        [row] = h.rows()
        assert row.from_phone == CUSTOMER
        assert row.original_destination_phone == EXPERT
        assert (row.caller_trunk, row.callee_trunk) == ("center", "teams")
        assert row.disposition == "caller_terminated"


async def test_a_teams_user_calls_the_contact_center(house: OpenHouse) -> None:
    async with house() as h:
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        agent.ring()
        await expert.ringing()
        await agent.answer()
        await expert.answered()
        await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
        await expert.hang_up()
        await agent.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.caller_party_type == "teams_expert"


async def test_trusted_headers_say_how_long_the_caller_has_waited(house: OpenHouse) -> None:
    extra = 'ivr_time_header = "X-Ivr"\nqueue_time_header = "X-Queue"'
    async with house(center_extra=extra) as h:
        agent = await h.center.call(EXPERT, headers=[("X-Ivr", "12.5"), ("X-Queue", "240")])
        expert = await h.teams.expect_invite()
        assert expert.invited is not None
        assert not expert.invited.request.get("X-Queue")
        await expert.answer()
        await agent.answered()
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.ivr_time + row.queue_time in (252, 253)
        assert row.duration >= 252
        assert row.detail["waited_before"] == {"ivr_ms": 12_500, "queue_ms": 240_000}


async def test_a_trusted_header_says_whose_leg_it_is(house: OpenHouse) -> None:
    agents = '[[agent]]\nlogin = "anna"\nname = "Anna"\nteam = "service"\n'
    async with house(center_extra='agent_header = "X-Agent-Login"', extra=agents) as h:
        agent = await h.center.call(EXPERT, headers=[("X-Agent-Login", "anna")])
        expert = await h.teams.expect_invite()
        assert expert.invited is not None
        assert not expert.invited.request.get("X-Agent-Login")
        await expert.answer()
        await agent.answered()
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert (row.caller_party_type, row.caller_login_id) == ("agent", "anna")
