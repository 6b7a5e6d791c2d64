"""Calls that are up: the beginning of most tests, in both directions."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.calls.house import CUSTOMER, EXPERT, House
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

AGENT_HZ = 440.0
EXPERT_HZ = 700.0


async def to_teams(h: House, **options: Any) -> tuple[CenterCall, TeamsCall]:
    """The contact center has called Teams; both hear each other."""
    agent = await h.center.call(EXPERT, **options)
    expert = await h.teams.expect_invite()
    expert.ring()
    await expert.answer()
    await agent.answered()
    await both_hear(agent, expert)
    return agent, expert


async def from_teams(h: House, **options: Any) -> tuple[CenterCall, TeamsCall]:
    """Teams has called the contact center; both hear each other. `options` of `Teams.invite`."""
    expert = await h.teams.invite(CUSTOMER, **options)
    agent = await h.center.expect_call()
    agent.ring()
    await agent.answer()
    await expert.answered()
    await both_hear(agent, expert)
    return agent, expert


async def talking(h: House, way: str) -> tuple[CenterCall, TeamsCall]:
    """`way`: "to Teams" or "from Teams"."""
    return await (to_teams(h) if way == "to Teams" else from_teams(h))


async def both_hear(agent: CenterCall, expert: TeamsCall) -> None:
    """Each the other's tone, from now on, and Teams can decode all of it."""
    before = expert.rtp.undecodable
    await asyncio.gather(agent.rtp.hears(EXPERT_HZ), expert.rtp.hears(AGENT_HZ))
    assert expert.rtp.undecodable == before


async def silent(peer: CenterCall | TeamsCall, hz: float, seconds: float = 0.3) -> None:
    """The tone `hz` is not heard there for that long (after what was on its way)."""
    await asyncio.sleep(0.1)
    begun = peer.rtp.now
    await asyncio.sleep(seconds)
    assert peer.rtp.first_heard(hz, since=begun) is None, f"{hz} Hz is still heard"


async def over(agent: CenterCall, expert: TeamsCall) -> None:
    """The contact center hangs up; Teams notices."""
    await agent.bye()
    await expert.expect_end()
