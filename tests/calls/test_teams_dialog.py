"""What Teams does inside a call, through the whole gateway: holds, refreshes, new keys, new connections."""

from __future__ import annotations

import asyncio

import pytest

from tests.calls.conftest import OpenHouse
from tests.calls.conversation import (
    AGENT_HZ,
    EXPERT_HZ,
    both_hear,
    from_teams,
    over,
    silent,
    talking,
    to_teams,
)
from tests.calls.house import EXPERT, MUSIC_HZ, until
from tests.peers.sipwire_sdp import audio
from tests.peers.teams_shapes import Shape

both_ways = pytest.mark.parametrize("way", ["to Teams", "from Teams"])


# ---- hold and resume -----------------------------------------------------------------------------------


@both_ways
async def test_teams_holds_and_resumes_by_inactive(house: OpenHouse, way: str) -> None:
    async with house() as h:
        agent, expert = await talking(h, way)
        answer = await expert.hold()
        assert answer.code == 200
        held = audio(answer.body)
        assert held.direction == "inactive"
        await agent.rtp.hears(MUSIC_HZ)
        await silent(expert, AGENT_HZ)
        again = await expert.resume()
        assert again.code == 200
        resumed = audio(again.body)
        assert resumed.direction == "sendrecv"
        assert (resumed.port, resumed.crypto[0].key) == (held.port, held.crypto[0].key)
        await both_hear(agent, expert)
        assert not [tx for tx in agent.inbox if tx.request.method == "INVITE"], "a hold never leaks"
        await over(agent, expert)


@both_ways
async def test_t15_25_minutes_then_hold_and_resume_with_a_new_key(house: OpenHouse, way: str) -> None:
    """Sequence numbers have wrapped on both sides; Teams resumes with a new key and its counter at 0."""
    async with house() as h:
        agent, expert = await talking(h, way)
        for rtp in (agent.rtp, expert.rtp):
            await rtp.wrap_sequence()
        await both_hear(agent, expert)
        assert expert.remote is not None
        ours = expert.remote.crypto[0].key
        assert (await expert.hold()).code == 200
        await agent.rtp.hears(MUSIC_HZ)
        answer = await expert.resume(new_key=True)
        assert answer.code == 200
        assert audio(answer.body).crypto[0].key == ours
        await both_hear(agent, expert)
        await expert.rtp.wrap_sequence()
        await both_hear(agent, expert)
        await over(agent, expert)


@both_ways
async def test_t15_t16_a_refresh_is_answered_with_our_very_last_description(
    house: OpenHouse, way: str
) -> None:
    """Byte-identical SDP changes nothing: not our o= version, not our key, not the other party."""
    async with house() as h:
        agent, expert = await talking(h, way)
        for rtp in (agent.rtp, expert.rtp):
            await rtp.wrap_sequence()
        await both_hear(agent, expert)
        assert expert.remote is not None
        before = expert.remote.text
        for _ in range(2):
            answer = await expert.refresh()
            assert answer.code == 200
            assert audio(answer.body).text == before
            await both_hear(agent, expert)
        assert not agent.inbox
        await over(agent, expert)


@pytest.mark.parametrize("way", ["to Teams", "from Teams"])
async def test_a_refused_change_is_488_and_the_call_goes_on(house: OpenHouse, way: str) -> None:
    async with house() as h:
        agent, expert = await talking(h, way)
        kept = expert.rtp.version
        for broken in (Shape(crypto="32-only"), Shape(crypto="none", profile="RTP/AVP")):
            good, expert.shape = expert.shape, broken
            expert.rtp.version += 1
            answer = await expert.reoffer(expert.offer())
            expert.shape = good
            assert answer.code == 488
            assert "SRTP" in answer.get("Warning") or "AES_CM" in answer.get("Warning")
            await both_hear(agent, expert)
        expert.rtp.version = kept
        assert (await expert.hold()).code == 200
        assert (await expert.resume()).code == 200
        await both_hear(agent, expert)
        await over(agent, expert)


async def test_media_that_fails_in_a_change_is_488_and_the_call_goes_on(house: OpenHouse) -> None:
    """Whatever rtpengine refuses, the party keeps what it had."""
    async with house() as h:
        agent, expert = await to_teams(h)
        leg = next(iter(h.gateway.calls.calls.values())).legs.values()
        anchor = next(leg for leg in leg if leg.trunk.name == "teams").anchor
        party = anchor._engine
        whole = party.outside
        assert whole is not None
        party.outside = type(whole)("127.0.0.1", 9, whole.key, whole.tag, 10, rtcp_mux=False)
        expert.rtp.version += 1
        expert.rtp.use_key(bytes(range(30)))
        assert (await expert.reoffer(expert.offer())).code == 488
        party.outside = whole
        assert h.gateway.calls.calls
        expert.rtp.version += 1
        assert (await expert.reoffer(expert.offer())).code == 200
        await both_hear(agent, expert)
        await over(agent, expert)


# ---- connections ---------------------------------------------------------------------------------------


@both_ways
async def test_t11_requests_come_on_new_connections_from_other_addresses(house: OpenHouse, way: str) -> None:
    """The whole range of Microsoft may speak for a dialog: only Call-ID and tags tell whose it is."""
    async with house() as h:
        agent, expert = await talking(h, way)
        await expert.change_connection("127.0.0.2")
        assert (await expert.hold()).code == 200
        await agent.rtp.hears(MUSIC_HZ)
        await expert.change_connection("127.0.0.3")
        assert (await expert.resume()).code == 200
        await both_hear(agent, expert)
        await expert.change_connection("127.0.0.4")
        referral = await expert.refer()
        await expert.change_connection("127.0.0.5")
        colleague = await h.teams.expect_invite(tone=900.0)
        await colleague.answer()
        await referral.finished()
        await expert.hang_up()
        await asyncio.gather(agent.rtp.hears(900), colleague.rtp.hears(AGENT_HZ))
        await over(agent, colleague)


@both_ways
async def test_t11_a_contact_on_port_443_with_odd_parameters_is_called_verbatim(
    house: OpenHouse, way: str
) -> None:
    """The route set leads there; rules of the stand-in compare Request-URI and Route byte for byte."""
    async with house() as h:
        agent, expert = await talking(h, way)
        assert ":443;x-i=" in expert.contact[1]
        await agent.bye()
        bye = (await expert.expect("BYE")).request
        assert f"<{bye.uri}>" == expert.contact[1]
        assert "/s/1/" in bye.uri
        [route] = bye.all("Route")
        assert "sip-du-a-euwe.pstnhub.microsoft.com" in route


@both_ways
async def test_t11_a_lost_connection_is_dialled_anew_at_the_contact(house: OpenHouse, way: str) -> None:
    """Without Record-Route: Contact host and port, with its name as SNI."""
    async with house() as h:
        h.teams.shape = Shape(record_route=False)
        agent, expert = await talking(h, way)
        known = list(h.teams.ua.wire.connections)
        for connection in known:
            connection.abort()
        await until(lambda: all(connection.closed for connection in known), "connections lost")
        await agent.bye()
        bye = await expert.expect("BYE")
        assert bye.connection not in known
        assert f"<{bye.request.uri}>" == expert.contact[1]
        assert not bye.request.all("Route")


# ---- provisional responses -----------------------------------------------------------------------------


@pytest.mark.parametrize("winner", ["b", "d", "e"])
async def test_t12_forks_with_several_180_one_183_and_any_of_them_or_a_new_one_answers(
    house: OpenHouse, winner: str
) -> None:
    """The 200 confirms its own tag, whether that rang (b), had the early media (d) or is new (e)."""
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring(tags=["a", "b", "c"])
        expert.progress183(tag="d")
        await agent.ringing()
        expert.ring(tags=["c"])
        await expert.answer(tag=winner)
        await agent.answered()
        expert.rtp.say(EXPERT_HZ)
        await both_hear(agent, expert)
        assert (await expert.hold()).code == 200
        assert (await expert.resume()).code == 200
        await both_hear(agent, expert)
        assert agent.inviting is not None
        assert {response.to_tag for response in agent.inviting.seen if response.code > 100} == {
            agent.dialog.remote_tag
        }, "the caller sees one dialog"
        await over(agent, expert)


async def test_183_without_any_180_rings_at_the_caller(house: OpenHouse) -> None:
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.progress183()
        assert not (await agent.ringing()).body
        await expert.answer()
        await agent.answered()
        expert.rtp.say(EXPERT_HZ)
        await both_hear(agent, expert)
        await over(agent, expert)


async def test_200_without_anything_before_it(house: OpenHouse) -> None:
    """Voice apps answer directly (facts 3.4)."""
    async with house() as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        await both_hear(agent, expert)
        await over(agent, expert)


@both_ways
async def test_every_method_that_teams_does_not_list_stays_here(house: OpenHouse, way: str) -> None:
    """INFO, MESSAGE and UPDATE of the contact center end at us; the stand-in's rules watch the other side."""
    async with house() as h:
        agent, expert = await (to_teams(h) if way == "to Teams" else from_teams(h))
        before = len(expert.inbox)
        await agent.send("INFO", body=b"hello", content_type="text/plain").final()
        await agent.send("MESSAGE", body=b"hello", content_type="text/plain").final()
        assert (await agent.refresh("UPDATE")).code == 200
        assert (await agent.refresh()).code == 200
        await both_hear(agent, expert)
        assert len(expert.inbox) == before
        await over(agent, expert)
