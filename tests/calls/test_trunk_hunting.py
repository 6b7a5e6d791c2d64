"""Hunting over the three proxies with real calls: who is tried, who rings, and never twice."""

from __future__ import annotations

import pytest

from gateway.events import LegAttemptFailed, LegDialled
from gateway.trunks.health import PeerState
from tests.calls.conftest import OpenHouse
from tests.calls.house import EXPERT, House
from tests.peers.sipwire_ua import ServerTx


def dialled(h: House) -> list[str]:
    """The proxies that were sent an INVITE, in order."""
    return [event.peer.split(":")[1].split(".")[0] for event in h.events if isinstance(event, LegDialled)]


def failures(h: House) -> list[int]:
    return [event.sip_code for event in h.events if isinstance(event, LegAttemptFailed)]


async def answered_by(h: House, proxy: str) -> None:
    """Place a call, let it be answered by `proxy`, end it."""
    agent = await h.center.call(EXPERT)
    expert = await h.teams.expect_invite()
    assert expert.connection.listener.owner == f"Teams {proxy}"
    expert.ring()
    await agent.ringing()
    await expert.answer()
    await agent.answered()
    await agent.bye()
    await expert.expect_end()


async def test_a_dead_proxy_is_passed_over(house: OpenHouse) -> None:
    async with house() as h:
        await h.teams.kill(0)
        await answered_by(h, "sip2")
        assert dialled(h) == ["sip", "sip2"]
        assert failures(h) == [503]


async def test_503_with_retry_after_moves_on_and_holds_the_proxy_down(house: OpenHouse) -> None:
    async with house() as h:
        h.teams.overload(0, retry_after=60)
        await answered_by(h, "sip2")
        trunk = h.gateway.trunks["teams"]
        assert trunk.health[h.teams.peers[0]].state is PeerState.HOLD_DOWN
        await answered_by(h, "sip2")
        assert dialled(h) == ["sip", "sip2", "sip2"], "the second call does not ask sip again"


async def test_a_silent_proxy_is_passed_over(house: OpenHouse) -> None:
    async with house(teams_extra="answer_timeout = 0.5") as h:
        h.teams.silence(0)
        await answered_by(h, "sip2")
        assert dialled(h) == ["sip", "sip2"]
        await h.teams.kill(0)  # or the unanswered INVITE would keep its transaction for 32 s


async def test_all_proxies_dead_is_503_for_the_caller(house: OpenHouse) -> None:
    async with house() as h:
        for index in range(3):
            await h.teams.kill(index)
        agent = await h.center.call(EXPERT)
        assert (await agent.outcome()).code == 503
        await h.quiet()
        assert dialled(h) == ["sip", "sip2", "sip3"]


@pytest.mark.parametrize("code", [486, 603, 404, 403, 488, 600])
async def test_t23_a_definite_answer_rings_nobody_else(house: OpenHouse, code: int) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        await expert.decline(code)
        assert (await agent.outcome()).code == code
        await h.teams.expect_no_invite(0.3)
        await h.quiet()
        assert dialled(h) == ["sip"]


@pytest.mark.parametrize("code", [408, 503])
async def test_t24_after_ringing_nobody_else_is_rung(house: OpenHouse, code: int) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        await expert.decline(code)
        assert (await agent.outcome()).code >= 400
        await h.teams.expect_no_invite(0.3)
        await h.quiet()
        assert dialled(h) == ["sip"]


async def test_408_before_ringing_moves_on(house: OpenHouse) -> None:
    async with house() as h:
        owner = h.teams.proxies[0].owner

        def time_out(transaction: ServerTx) -> bool:
            if transaction.request.method != "INVITE" or transaction.connection.listener.owner != owner:
                return False
            transaction.respond(408, "Request Timeout", to_tag="t")
            return True

        h.teams.hook = time_out
        await answered_by(h, "sip2")
        assert failures(h) == [408]
