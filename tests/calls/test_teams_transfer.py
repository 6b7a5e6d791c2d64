"""Transfers that Teams asks for (facts/direct-routing.md 6.3; T17, T18)."""

from __future__ import annotations

import asyncio
import re

from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House
from tests.calls.matrix import AGENT, TONES, everybody, only_call, three
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall
from tests.peers.teams_shapes import Shape


async def talking(h: House) -> tuple[CenterCall, TeamsCall]:
    agent = await h.center.call(EXPERT)
    expert = await h.teams.expect_invite()
    await expert.answer()
    await agent.answered()
    await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
    return agent, expert


async def test_t18_blind_transfer_survives_the_transferors_bye_280_ms_after_the_202(house: OpenHouse) -> None:
    async with house() as h:
        agent, expert = await talking(h)
        referral = await expert.refer(length=500, bye_after=0.28)
        colleague = await h.teams.expect_invite(tone=900.0)
        assert colleague.invited is not None
        assert colleague.invited.request.uri == referral.uri
        assert len(referral.uri) == 500
        assert colleague.invited.request.get("Referred-By").startswith("<sip:")
        assert b"a=sendrecv" in colleague.invited.request.body
        colleague.ring()
        await colleague.answer()
        await asyncio.gather(agent.rtp.hears(900), colleague.rtp.hears(440))
        assert not agent.ended
        await agent.bye()
        await colleague.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert (row.disposition, row.transferred_from_phone) == ("transferred", EXPERT)
        assert row.transferred_to_phone == "", "the name of Teams' proxy is no number"


async def test_the_transferor_hangs_up_after_the_final_notify(house: OpenHouse) -> None:
    async with house() as h:
        agent, expert = await talking(h)
        referral = await expert.refer()
        colleague = await h.teams.expect_invite(tone=900.0)
        colleague.ring()
        await colleague.answer()
        assert await referral.finished() == "SIP/2.0 200 OK"
        await asyncio.gather(agent.rtp.hears(900), colleague.rtp.hears(440))
        await expert.hang_up()
        await asyncio.sleep(0.1)
        await agent.rtp.hears(900)
        await colleague.hang_up()
        await agent.expect_end()


async def test_a_refused_transfer_gives_the_original_party_back(house: OpenHouse) -> None:
    async with house() as h:
        agent, expert = await talking(h)
        referral = await expert.refer()
        colleague = await h.teams.expect_invite(tone=900.0)
        await colleague.decline(603)
        assert (await referral.finished()).startswith("SIP/2.0 603")
        await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
        await agent.bye()
        await expert.expect_end()


async def test_the_waiting_party_hangs_up_during_the_transfer(house: OpenHouse) -> None:
    async with house() as h:
        agent, expert = await talking(h)
        await expert.refer(bye_after=0.05)
        colleague = await h.teams.expect_invite()
        colleague.ring()
        await agent.bye()
        await colleague.expect_end()


async def test_invite_with_replaces_swaps_the_bridge(house: OpenHouse) -> None:
    async with house() as h:
        agent, expert = await talking(h)
        taker = await h.teams.replaces(expert, tone=900.0)
        await taker.answered()
        await expert.expect_end()
        await asyncio.gather(agent.rtp.hears(900), taker.rtp.hears(440))
        await taker.hang_up()
        await agent.expect_end()


async def test_hold_by_refer_to_music_and_retrieval_by_replaces(house: OpenHouse) -> None:
    """Facts 5: hold is transfer plumbing on some trunks."""
    async with house() as h:
        agent, expert = await talking(h)
        music = await expert.hold_by_refer(tone=350.0)
        await agent.rtp.hears(350)
        back = await music.retrieve(tone=700.0)
        await back.answered()
        await asyncio.gather(agent.rtp.hears(700), back.rtp.hears(440))
        await agent.bye()
        await back.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "caller_terminated"
        assert (row.transferred_from_phone, row.transferred_to_phone, row.hold_time) == ("", "", 0)
        assert row.detail["external_hold"]["ms"] > 0


async def test_hold_by_refer_in_a_conference(house: OpenHouse, rooms: RoomPool) -> None:
    """Those who remain hear each other and the music of Teams, which counts as nobody's hold time."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        music = await expert.hold_by_refer(tone=1600.0)
        stage.add("fourth", music, 1600.0)
        await stage.hear({"agent": {"third", "fourth"}, "third": {"agent", "fourth"}})
        assert len(only_call(h).legs) == 3
        await agent.hold("sendonly")
        await stage.hear({"agent": set(), "third": {"fourth", "music"}})
        await agent.resume()
        back = await music.retrieve(tone=TONES["expert"])
        await back.answered()
        stage.add("expert", back)
        await stage.hear(everybody("agent", "expert", "third"))
        assert not third.inbox
        assert only_call(h).in_room
        await agent.bye()
        await stage.hear(everybody("expert", "third"))
        await back.hang_up()
        await third.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.hold_count == 1
        assert row.disposition == "conferenced"
        assert {hold["by"] for hold in row.detail["holds"]} == {"agent", "teams_expert"}
        assert row.detail["external_hold"]["ms"] > row.detail["hold_ms"] > 0
        assert row.detail["talk_ms"] + row.detail["hold_ms"] == row.detail["end_ms"] - row.detail["answer_ms"]


async def test_hold_by_refer_in_a_conference_that_is_refused_or_left(
    house: OpenHouse, rooms: RoomPool
) -> None:
    """The player refuses: the holder is there again. The others leave: nobody stays with the music."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        referral = await expert.refer("music")
        player = await h.teams.expect_invite()
        await stage.hear({"agent": {"third"}, "third": {"agent"}, "expert": set()})
        await player.decline(480)
        assert (await referral.finished()).startswith("SIP/2.0 480")
        await stage.hear(everybody("agent", "expert", "third"))
        music = await expert.hold_by_refer(tone=1600.0)
        stage.add("fourth", music, 1600.0)
        await stage.hear({"agent": {"third", "fourth"}, "third": {"agent", "fourth"}})
        await third.hang_up()
        await stage.hear({"agent": {"fourth"}})
        await agent.bye()
        await music.expect_end()


ELSEWHERE = "+4989555000"
FOREIGN = Shape(from_user=CUSTOMER)
ONLY_OWN = f"caller = '{re.escape(EXPERT)}'"


async def test_a_transfer_to_a_number_comes_back_although_the_caller_is_no_number_of_the_tenant(
    house: OpenHouse,
) -> None:
    """Facts 6.3, 8: a second call, From the original caller. Without ForwardCallHistory nothing vouches for
    it but the call that is being transferred (issue 3.3); before and after that it is toll fraud (T22).
    """
    async with house(teams_extra=ONLY_OWN) as h:
        early = await h.teams.invite(ELSEWHERE, shape=FOREIGN)
        assert (await early.outcome()).code == 403
        agent, expert = await talking(h)
        stranger = await h.teams.invite(ELSEWHERE, shape=Shape(from_user="+33140000000"))
        assert (await stranger.outcome()).code == 403, "nobody's number in this call"
        referral = await expert.refer("number", number=ELSEWHERE)
        proxy = await h.teams.expect_invite(tone=900.0)
        proxy.ring()
        again = await h.teams.invite(ELSEWHERE, shape=FOREIGN)
        outside = await h.center.expect_call()
        await outside.answer()
        await again.answered()
        await proxy.answer()
        assert await referral.finished() == "SIP/2.0 200 OK"
        await expert.hang_up()
        await asyncio.gather(agent.rtp.hears(900), proxy.rtp.hears(440))
        await agent.bye()
        await proxy.expect_end()
        await again.hang_up()
        await outside.expect_end()
        await h.quiet()
        late = await h.teams.invite(ELSEWHERE, shape=FOREIGN)
        assert (await late.outcome()).code == 403
        assert h.gateway.trunks["teams"].refused["caller"] >= 3


async def test_a_forwarded_call_comes_back_while_the_first_one_still_rings(house: OpenHouse) -> None:
    async with house(teams_extra=ONLY_OWN) as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        forwarded = await h.teams.invite(ELSEWHERE, shape=FOREIGN)
        outside = await h.center.expect_call()
        await outside.answer()
        await forwarded.answered()
        await expert.answer()
        await agent.answered()
        await agent.bye()
        await expert.expect_end()
        await forwarded.hang_up()
        await outside.expect_end()


async def test_a_held_call_is_retrieved_by_replaces_whatever_number_it_shows(house: OpenHouse) -> None:
    """It joins no new party: the dialog that it names vouches for it. A wrong one is 481, never a call."""
    async with house(teams_extra=ONLY_OWN) as h:
        agent, expert = await talking(h)
        anew = await h.teams.replaces(expert, tone=900.0, shape=Shape(from_user="", display=""))
        await anew.answered()
        await expert.expect_end()
        await asyncio.gather(agent.rtp.hears(900), anew.rtp.hears(440))
        await agent.bye()
        await anew.expect_end()
        await h.quiet()
        forged = ("REPLACES", "nobody@example.test;to-tag=1;from-tag=2")
        wrong = await h.teams.invite(ELSEWHERE, shape=FOREIGN, headers=[forged])
        assert (await wrong.outcome()).code == 481
        await h.center.expect_no_call(0.2)


async def test_t22_a_refer_to_a_foreign_host_is_refused(house: OpenHouse) -> None:
    async with house() as h:
        agent, expert = await talking(h)
        await expert.ready()
        answer = await expert.send(
            "REFER", [("REFER-TO", "<sip:+4912345@evil.example.net>"), ("REFERRED-BY", "<sip:x@y>")]
        ).final()
        assert answer.code == 403
        await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
        await agent.bye()
        await expert.expect_end()
