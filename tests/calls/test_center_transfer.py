"""Transfers that the contact center asks for by REFER (RFC 3515, 5589): blind and attended, ended by us."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.audibility import SupervisorMode
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import House, until
from tests.calls.matrix import (
    AGENT,
    ANN,
    THIRD,
    TONES,
    Stage,
    agent_leg,
    control,
    everybody,
    only_call,
    three,
    two,
)
from tests.calls.test_supervise import AGENTS, SUPERVISOR
from tests.peers.contact_center import ContactCenter
from tests.peers.contact_center_call import CenterCall
from tests.peers.sipwire_ua import Dialog
from tests.peers.teams_call import TeamsCall

PAIR = everybody("agent", "expert")


async def test_blind(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        assert (await agent.refer(THIRD)).code == 202
        third = await h.teams.expect_invite(tone=TONES["third"])
        assert third.invited is not None
        assert "Replaces" not in third.invited.request.raw.decode()
        third.ring()
        await third.answer()
        assert await agent.transferred() == "SIP/2.0 200 OK"
        assert [m.body.decode().split()[1] for m in agent.notifies] == ["100", "180", "200"]
        stage.add("third", third)
        await stage.hear({"expert": {"third"}, "third": {"expert"}, "agent": set()})
        await agent.bye()
        await stage.hear(everybody("expert", "third"))
        await expert.hang_up()
        await third.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert (row.disposition, row.transferred_to_phone) == ("transferred", THIRD)


async def test_blind_refused_gives_the_original_back(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        await agent.refer(THIRD)
        third = await h.teams.expect_invite()
        await third.decline(486)
        assert (await agent.transferred()).startswith("SIP/2.0 486")
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def second_call(h: House, stage: Stage) -> tuple[CenterCall, TeamsCall]:
    """The agent's telephone holds the first call and calls a third."""
    second = await h.center.call(THIRD, tone=TONES["fourth"])
    third = await h.teams.expect_invite(tone=TONES["third"])
    await third.answer()
    await second.answered()
    stage.add("third", third)
    stage.add("fourth", second)
    await stage.hear({"third": {"fourth"}, "fourth": {"third"}, "expert": {"music"}})
    return second, third


@pytest.mark.parametrize("on", ["held call", "consultation"])
async def test_attended(house: OpenHouse, on: str) -> None:
    """REFER on either of the two legs, naming the other: expert and third remain, in the held call."""
    async with house(center_extra=AGENT, extra=ANN) as h:
        stage, agent, expert = await two(h)
        await agent.hold("sendonly")
        second, third = await second_call(h, stage)
        first, other = (agent, second) if on == "held call" else (second, agent)
        assert (await first.refer("", replaces=other)).code == 202
        assert await first.transferred() == "SIP/2.0 200 OK"
        await other.expect_end()
        await stage.hear(everybody("expert", "third"))
        if not first.ended:
            await first.bye()
        await stage.hear(everybody("expert", "third"))
        assert not expert.inbox
        assert not third.inbox
        await third.hang_up()
        await expert.expect_end()
        await h.quiet()
        primary, consultation = h.rows()
        assert (primary.disposition, primary.transferred_to_phone) == ("transferred", THIRD)
        assert primary.detail["transfers"][0]["mode"] == "attended"
        assert primary.hold_count == 1
        assert consultation.reason == "transferred"
        assert consultation.global_interaction_id == primary.global_interaction_id


async def test_attended_into_a_conference(house: OpenHouse, rooms: RoomPool) -> None:
    """The third of a second call takes the agent's place among two others; who listened to the agent goes."""
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        await control(h).supervise(only_call(h).id, agent_leg(h), SUPERVISOR, SupervisorMode.LISTEN)
        boss = await h.center.expect_call(tone=0.0)
        await boss.answer()
        await agent.hold("inactive")
        second = await h.center.call("+15551230009")
        ninth = await h.teams.expect_invite()
        await ninth.answer()
        await second.answered()
        stage.add("fourth", ninth)
        await agent.refer("", replaces=second)
        assert await agent.transferred() == "SIP/2.0 200 OK"
        await second.expect_end()
        await boss.expect_end()
        await stage.hear(everybody("expert", "third", "fourth"))
        await agent.bye()
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(*(party.expect_end() for party in (expert, third, ninth)))


async def test_attended_to_one_who_has_just_gone(house: OpenHouse) -> None:
    """The consultation ends before the REFER: refused with 481, and the held call is as it was."""
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        await agent.hold("sendonly")
        second, third = await second_call(h, stage)
        await third.hang_up()
        await second.expect_end()
        await until(lambda: len(h.gateway.calls.calls) == 1, "consultation to end")
        assert (await agent.refer("", replaces=second)).code in (481, 603)
        await agent.resume()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_a_replaces_within_the_same_call_is_refused(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        assert (await agent.refer("", replaces=agent)).code == 403
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


def of_somebody_else(agent: CenterCall, there: ContactCenter) -> CenterCall:
    """A dialog of the agent's with `there` that never came by the gateway."""
    dialog = Dialog("abc@elsewhere", "<sip:a@x>", "<sip:b@x>", "tag-l", "tag-r")
    dialog.target = f"sip:+493099912@{there.host}:{there.port}"
    return CenterCall(agent.center, dialog, agent.connection, agent.rtp)


async def test_attended_to_a_foreign_dialog_is_an_invite_with_replaces(house: OpenHouse) -> None:
    async with ContactCenter(tone=TONES["third"]) as there:
        beside = f"""{AGENT}
[[trunk]]
name = "beside"
peers = ["{there.peer}"]
[[route]]
from = "center"
number = '\\+493099.*'
to = "beside"
"""
        async with house(center_extra=beside) as h:
            stage, agent, expert = await two(h)
            assert (await agent.refer("", replaces=of_somebody_else(agent, there))).code == 202
            third = await there.expect_call()
            assert third.invited is not None
            assert third.invited.request.get("Replaces") == "abc@elsewhere;to-tag=tag-r;from-tag=tag-l"
            await third.answer()
            assert await agent.transferred() == "SIP/2.0 200 OK"
            stage.peers["third"], stage.tones["third"] = third.rtp, TONES["third"]
            await stage.hear({"expert": {"third"}, "third": {"expert"}})
            await agent.bye()
            await expert.hang_up()
            await third.expect_end()


async def test_a_foreign_dialog_is_never_rung_at_teams(house: OpenHouse) -> None:
    """Teams would be rung as if it were a blind transfer."""
    async with house(center_extra=AGENT) as h, ContactCenter() as there:
        stage, agent, expert = await two(h)
        assert (await agent.refer("", replaces=of_somebody_else(agent, there))).code == 403
        await h.teams.expect_no_invite(0.1)
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_refer_without_a_usable_target(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        assert (await agent.send("REFER", [("Refer-To", "<http://example.test>")]).final()).code == 400
        assert (await agent.send("REFER").final()).code == 400
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_blind_by_command(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        leg = next(leg for leg in view.legs if leg.party == "agent").id
        await control(h).transfer(view.id, leg, THIRD)
        third = await h.teams.expect_invite(tone=TONES["third"])
        third.ring()
        await expert.rtp.hears(425.0)
        await third.answer()
        await agent.expect_end()
        stage.add("third", third)
        await stage.hear(everybody("expert", "third"))
        await expert.hang_up()
        await third.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "transferred"


async def test_blind_by_command_refused_gives_the_original_back(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        leg = next(leg for leg in view.legs if leg.party == "agent").id
        await control(h).transfer(view.id, leg, THIRD)
        third = await h.teams.expect_invite()
        await third.decline(603)
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()
