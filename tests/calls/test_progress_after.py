"""A called side that says 100 and nothing else: Teams wants an 18x within ten seconds (T24)."""

from __future__ import annotations

import asyncio

import pytest

from tests.calls.conftest import OpenHouse
from tests.calls.conversation import both_hear, over
from tests.calls.house import CUSTOMER, until
from tests.calls.matrix import kinds
from tests.peers.contact_center import ContactCenter
from tests.peers.contact_center_call import CenterCall
from tests.peers.sipwire import new_tag
from tests.peers.sipwire_ua import ServerTx
from tests.peers.teams_call import TeamsCall

SOON = "progress_after = 0.4"


def codes(call: TeamsCall | CenterCall) -> list[int]:
    assert call.inviting is not None
    return [response.code for response in call.inviting.seen]


async def test_t24_teams_is_told_180_before_it_gives_up(house: OpenHouse) -> None:
    """No telephone has rung, so the records know of none; early media that comes later is heard."""
    async with house(teams_extra=SOON) as h:
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        assert (await expert.ringing()).body == b""
        assert kinds(h, "leg_ringing") == []
        agent.progress(183)
        await expert.rtp.hears(440)
        assert kinds(h, "leg_ringing") == ["leg_ringing"]
        await agent.answer()
        await expert.answered()
        await both_hear(agent, expert)
        assert codes(expert).count(180) == 1
        await over(agent, expert)


class Slow(ContactCenter):
    """Not even 100 until it is told to say so."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[ServerTx] = []

    def _on_request(self, transaction: ServerTx) -> None:
        if transaction.request.method == "INVITE":
            self.kept.append(transaction)
        else:
            super()._on_request(transaction)


async def test_t24_a_peer_that_says_nothing_at_all_is_not_taken_for_one_that_works(
    house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teams may still try another gateway then; once the peer has said 100, Teams is told."""
    monkeypatch.setattr("gateway.calls.first_callee.LOOK_AGAIN", 0.1)
    center = Slow()
    async with house(center=center, teams_extra=SOON) as h:
        expert = await h.teams.invite(CUSTOMER)
        await until(lambda: center.kept, "INVITE")
        await asyncio.sleep(0.7)
        assert 180 not in codes(expert)
        center.kept[0].respond(100)
        await expert.ringing()
        center.kept[0].respond(486, to_tag=new_tag())
        assert (await expert.outcome()).code == 486


async def test_t24_who_rings_already_is_not_told_twice(house: OpenHouse) -> None:
    async with house(teams_extra="progress_after = 1.5") as h:
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        agent.ring()
        await expert.ringing()
        await asyncio.sleep(1.7)
        assert codes(expert).count(180) == 1
        await agent.answer()
        await expert.answered()
        await over(agent, expert)
