"""Setting a call up, and every way in which that fails."""

from __future__ import annotations

import asyncio

import pytest

from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, until
from tests.peers.contact_center import ContactCenter


@pytest.mark.parametrize(
    ("code", "told", "disposition"),
    [(486, 486, "busy"), (603, 603, "declined"), (404, 404, "not_found"), (480, 480, "no_answer")],
)
async def test_a_definite_refusal_reaches_the_caller_and_ends_the_hunt(
    house: OpenHouse, code: int, told: int, disposition: str
) -> None:
    """T23: one declined call is one call."""
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        await expert.decline(code)
        answer = await agent.outcome()
        assert answer.code == told
        assert "Q.850;cause=" in answer.get("Reason")
        await h.quiet()
        await h.teams.expect_no_invite()
        [row] = h.rows()
        assert row.disposition == disposition
        assert row.sip_code == code
        assert row.teams_correlation_id


async def test_503_and_a_dead_proxy_hunt_on_and_nothing_rings_twice(house: OpenHouse) -> None:
    async with house() as h:
        await h.teams.kill(0)
        h.teams.overload(1)
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        await expert.answer()
        await agent.answered()
        await agent.rtp.hears(700)
        await agent.bye()
        await h.quiet()
        attempts = [event for event in h.events if event.kind == "leg_dialled"]
        assert len(attempts) == 3


async def test_503_after_ringing_is_the_answer(house: OpenHouse) -> None:
    """T24: nothing rings twice."""
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        await expert.reject(503)
        assert (await agent.outcome()).code == 503
        await h.teams.expect_no_invite()


async def test_all_proxies_down_is_503(house: OpenHouse) -> None:
    async with house() as h:
        for index in range(3):
            await h.teams.kill(index)
        agent = await h.center.call(EXPERT)
        assert (await agent.outcome()).code == 503
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "unreachable"


async def test_the_caller_gives_up_while_it_rings(house: OpenHouse) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        assert (await agent.cancel()).code == 487
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "abandoned_ringing"
        assert row.talk_time == 0


async def test_a_call_that_teams_cancels_keeps_microsofts_id_of_it(house: OpenHouse) -> None:
    """It stands in the Reason of the CANCEL, the last message of such a call."""
    async with house() as h:
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        agent.ring()
        await expert.ringing()
        reason = expert.identity.reason(16, "Normal call clearing")
        assert (await expert.cancel([("REASON", reason)])).code == 487
        await agent.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.teams_correlation_id == expert.identity.guid


async def test_cancel_before_any_answer_of_the_callee(house: OpenHouse) -> None:
    """The CANCEL waits for a provisional (RFC 3261 9.1); the callee never rings on."""
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        assert (await agent.cancel()).code == 487
        await expert.expect_end()


async def test_the_caller_gives_up_after_the_connection_of_the_ringing_call_broke(house: OpenHouse) -> None:
    """The CANCEL takes a new one; without it the Teams user's telephone rang on for nobody."""
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        expert.connection.abort()
        await until(lambda: not h.gateway.transports.connections, "the connection to be gone")
        assert (await agent.cancel()).code == 487
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "abandoned_ringing"


async def test_answer_crossing_the_cancel_is_hung_up(house: OpenHouse) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        assert expert.invited is not None
        expert.invited.on_cancel = lambda transaction: None
        assert (await agent.cancel()).code == 487
        await expert.answer()
        await expert.expect_end()


async def test_ring_timeout_cancels_and_tells_480(house: OpenHouse) -> None:
    async with house(teams_extra="ring_timeout = 1.0") as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        assert (await agent.outcome()).code == 480
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "no_answer"


async def test_max_duration_ends_both_sides(house: OpenHouse) -> None:
    async with house(teams_extra="max_duration = 1.0") as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        await asyncio.gather(agent.expect_end(), expert.expect_end())
        await h.quiet()
        [row] = h.rows()
        assert row.reason == "max_duration"


async def test_rtp_lost_ends_the_call(house: OpenHouse) -> None:
    async with house(media_extra="rtp_timeout = 1.0") as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        await agent.rtp.hears(700)
        expert.rtp.pause()
        bye = await agent.expect("BYE")
        assert "media_lost" in bye.request.get("Reason")
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.reason == "media_lost"


async def test_early_media_of_a_plain_trunk_is_heard_before_the_answer(house: OpenHouse) -> None:
    async with house() as h:
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        agent.progress(183)
        await expert.ringing(183)
        await expert.rtp.hears(440)
        await agent.answer()
        await expert.answered()
        await asyncio.gather(expert.rtp.hears(440), agent.rtp.hears(700))
        await agent.bye()
        await expert.expect_end()


async def test_t12_silent_183_of_teams_keeps_the_callers_own_ringback(house: OpenHouse) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring(tags=["a", "b", "c"])
        expert.progress183(tag="d")
        response = await agent.ringing()
        assert not response.body
        assert agent.inviting is not None
        await expert.answer(tag="e")
        await agent.answered()
        assert [r.code for r in agent.inviting.seen if r.body] == [200]
        expert.rtp.say(700)
        await agent.rtp.hears(700)
        await agent.bye()
        await expert.expect_end()


async def test_late_offer_from_a_plain_trunk(house: OpenHouse) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT, late=True)
        expert = await h.teams.expect_invite()
        expert.ring()
        await expert.answer()
        await agent.answered()
        await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
        await expert.hang_up()
        await agent.expect_end()


@pytest.mark.parametrize(
    ("body", "kind", "code", "says"),
    [
        (b"garbage", "application/sdp", 400, "session description"),
        (b"hello", "text/plain", 415, ""),
        (
            b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            b"m=audio 4000 RTP/AVP 18\r\n",
            "application/sdp",
            488,
            "codec",
        ),
    ],
)
async def test_an_unusable_offer_is_refused_with_the_cause(
    house: OpenHouse, body: bytes, kind: str, code: int, says: str
) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT, body=body, content_type=kind)
        answer = await agent.outcome()
        assert answer.code == code
        assert says.lower() in answer.get("Warning").lower()
        await h.teams.expect_no_invite(0.2)


async def test_plain_rtp_from_teams_is_refused(house: OpenHouse) -> None:
    from tests.peers.teams_shapes import Shape

    async with house() as h:
        expert = await h.teams.invite(CUSTOMER, shape=Shape(crypto="none", profile="RTP/AVP"))
        answer = await expert.outcome()
        assert answer.code == 488
        assert "SRTP" in answer.get("WARNING")
        await h.center.expect_no_call(0.2)


async def test_a_stranger_gets_no_answer(house: OpenHouse) -> None:
    async with house() as h:
        async with ContactCenter(gateway=h.center.gateway, host="127.0.0.9") as stranger:
            await stranger.call(EXPERT)
            await h.teams.expect_no_invite(0.7)
            records = stranger.ua.log.records
            assert [record for record in records if record.received] == []
        await until(lambda: h.gateway.transports.counters["strangers"] >= 1, "stranger counted")


async def test_unknown_number_is_404(house: OpenHouse) -> None:
    async with house(extra="") as h:
        object.__setattr__(h.gateway.context.directory, "routes", ())
        agent = await h.center.call(EXPERT)
        assert (await agent.outcome()).code == 404


async def test_draining_refuses_new_calls_with_503_and_keeps_the_old(house: OpenHouse) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        h.gateway.drain()
        second = await h.center.call(EXPERT)
        answer = await second.outcome()
        assert answer.code == 503
        assert answer.get("Retry-After")
        await agent.rtp.hears(700)
        await agent.bye()
        await expert.expect_end()


async def test_dtmf_reaches_the_other_side(house: OpenHouse) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
        await agent.digits("12#")
        await expert.rtp.hears_digits("12#")
        await agent.bye()
        await expert.expect_end()
