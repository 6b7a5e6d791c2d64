"""Every form in which Teams describes a call is answered and heard, through the whole gateway (T13, T14)."""

from __future__ import annotations

import pytest

from tests.calls.conftest import OpenHouse
from tests.calls.conversation import from_teams, over, to_teams
from tests.peers.sipwire_sdp import audio
from tests.peers.teams import Teams
from tests.peers.teams_shapes import Shape

SHAPES = {
    "6 KB": Shape(filler=5200),
    "30 candidates": Shape(candidates=30),
    "6 KB with 30 candidates": Shape(filler=4000, candidates=30),
    "UDP/TLS/RTP/SAVP": Shape(profile="UDP/TLS/RTP/SAVP"),
    "_32 with tag 0 first": Shape(crypto="32-first"),
    "MKI in SDP": Shape(crypto="mki"),
    "MKI in SDP and packets": Shape(crypto="mki", mki_packets=True),
    "MKI in packets only": Shape(mki_packets=True),
    "no lifetime": Shape(crypto="bare"),
    "multipart with PIDF-LO": Shape(pidf=True),
    "G.711 mu-law first": Shape(codecs=("PCMU", "PCMA")),
    "telephone-event 96": Shape(telephone_event=96),
    "no telephone-event": Shape(telephone_event=None),
    "everything at once": Shape(
        filler=5200, candidates=30, profile="UDP/TLS/RTP/SAVP", crypto="32-first", pidf=True
    ),
}


@pytest.mark.parametrize("name", SHAPES)
async def test_t13_t14_every_form_of_invite_is_answered_and_heard(house: OpenHouse, name: str) -> None:
    """T13: the answer takes `_80`. T14: what goes on fits into a UDP packet (the description is ours), or,
    with a long history (which is kept), by TCP (RFC 3261 18.1.1)."""
    shape = SHAPES[name]
    async with house() as h:
        agent, expert = await from_teams(h, shape=shape)
        assert expert.inviting is not None
        size = len(expert.inviting.request.raw)
        assert size > (6000 if shape.filler >= 4000 else 1000)
        assert agent.invited is not None
        sent = agent.invited.request
        assert agent.invited.connection.kind == ("TCP" if shape.filler else "UDP")
        assert len(sent.body) < 600
        assert len(sent.raw) < (7000 if shape.filler else 1300)
        assert len(sent.all("History-Info")) == (3 if shape.filler else 0)
        assert expert.remote is not None
        [line] = expert.remote.crypto
        assert (line.suite, line.rest) == ("AES_CM_128_HMAC_SHA1_80", "|2^31")
        assert line.tag == {"80": 2}.get(shape.crypto, 1)
        assert expert.remote.profile == shape.profile
        await over(agent, expert)


@pytest.mark.parametrize(
    "name", ["MKI in SDP", "MKI in SDP and packets", "MKI in packets only", "no lifetime"]
)
async def test_t13_every_form_of_answer_is_understood_and_heard(house: OpenHouse, name: str) -> None:
    """Teams' answers may carry `|2^31|1:1` (facts 4)."""
    async with house(teams=None) as h:
        h.teams.shape = SHAPES[name]
        agent, expert = await to_teams(h)
        assert expert.invited is not None
        [offered] = audio(expert.invited.request.body).crypto
        assert (offered.suite, offered.rest) == ("AES_CM_128_HMAC_SHA1_80", "|2^31")
        await over(agent, expert)


async def test_t13_an_offer_with_32_only_is_refused_with_the_cause(house: OpenHouse) -> None:
    async with house() as h:
        expert = await h.teams.invite("+49301112222", shape=Shape(crypto="32-only"))
        answer = await expert.outcome()
        assert answer.code == 488
        assert "AES_CM_128_HMAC_SHA1_80" in answer.get("Warning")
        await h.center.expect_no_call(0.2)


async def test_an_invite_of_teams_without_a_description_is_refused(house: OpenHouse) -> None:
    """Facts 4, deviation 4: delayed offers are not for Direct Routing."""
    async with house() as h:
        expert = await h.teams.invite("+49301112222", shape=Shape(late=True))
        assert (await expert.outcome()).code == 488
        await h.center.expect_no_call(0.2)


async def test_the_proxies_may_be_one(house: OpenHouse, pki: object) -> None:
    """GCC High and DoD have a single name (facts 1.1)."""
    async with house(teams=Teams(pki, proxies=1, media_addresses=["127.0.0.1"])) as h:  # type: ignore[arg-type]
        agent, expert = await to_teams(h)
        await over(agent, expert)
