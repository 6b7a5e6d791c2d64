"""SRTP as Teams does it: tags, suites, lifetimes, MKI, profiles, new keys (T13, T15)."""

from __future__ import annotations

import asyncio
import os

import pytest

from gateway.errors import SdpError
from gateway.model import new_leg_id
from gateway.sip.sdp import parse_description
from media.patchbay import PatchBay
from tests.media.conftest import PeerFactory
from tests.media.support import TEAMS, both_hear, callee, caller
from tests.peers.rtp import RtpPeer

OTHER_KEY = "A" * 40


def offers(peer: RtpPeer) -> dict[str, dict[str, str]]:
    """Ways in which a Teams offer may be written; each has to be answered and heard."""
    line = peer.crypto_line
    candidates = "".join(
        f"a=candidate:{n} 1 UDP {2130706431 - n} 10.0.{n}.7 {50000 + n} typ host\r\n" for n in range(30)
    )
    return {
        "_32 first with tag 0": {
            "crypto": f"a=crypto:0 AES_CM_128_HMAC_SHA1_32 inline:{OTHER_KEY}|2^31\r\n" + line(1)
        },
        "tag 0": {"crypto": line(0)},
        "tag 2 before _32": {
            "crypto": line(2) + f"\r\na=crypto:3 AES_CM_128_HMAC_SHA1_32 inline:{OTHER_KEY}|2^31"
        },
        "AEAD first": {"crypto": "a=crypto:1 AEAD_AES_256_GCM inline:" + "B" * 59 + "=\r\n" + line(2)},
        "2^48": {"crypto": line(1, tail="|2^48")},
        "lifetime as a number": {"crypto": line(1, tail="|1048576")},
        "no lifetime": {"crypto": line(1, tail="")},
        "session parameter": {"crypto": line(1, tail="|2^31 FEC_ORDER=FEC_SRTP")},
        "UDP/TLS/RTP/SAVP": {
            "profile": "UDP/TLS/RTP/SAVP",
            "extra": "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=setup:actpass\r\n",
        },
        "RTP/SAVPF": {"profile": "RTP/SAVPF"},
        "30 candidates": {"extra": "a=ice-ufrag:abcd\r\na=ice-pwd:" + "x" * 24 + "\r\n" + candidates},
    }


@pytest.mark.parametrize("form", sorted(offers(RtpPeer())))
async def test_t13_every_form_of_offer_is_answered_and_heard(
    bay: PatchBay, peer: PeerFactory, form: str
) -> None:
    a, b = await peer(tone=440, srtp=True), await peer(tone=700)
    one, two = await caller(bay, a, **offers(a)[form]), await callee(bay, b)
    answer = parse_description(await one.answer())
    [line] = answer.crypto
    assert line.suite == "AES_CM_128_HMAC_SHA1_80"
    assert line.key_params.endswith("|2^31")
    assert line.mki is None
    offered = parse_description(a.description(**offers(a)[form]))  # type: ignore[arg-type]
    assert line.tag in [o.tag for o in offered.crypto if o.suite == line.suite]
    assert answer.profile == offered.profile
    await bay.bridge(one, two)
    await both_hear(a, b)
    a.follow(await one.remote_offer(a.description(**offers(a)[form])))  # type: ignore[arg-type]
    await bay.bridge(two, one)
    await both_hear(a, b)
    assert a.undecodable == 0


@pytest.mark.parametrize(
    ("announced", "carried"),
    [
        ("|2^31|1:1", b"\x01"),
        ("|1:4", b"\0\0\0\x01"),
        ("|2^31|1:1", b""),
        ("|2^31", b"\x01"),
        ("", b"\0\0\0\x01"),
    ],
    ids=["both", "both-4", "announced-only", "carried-only", "carried-only-4"],
)
@pytest.mark.parametrize("offerer", [True, False])
async def test_mki_is_understood_whatever_the_description_says(
    bay: PatchBay, peer: PeerFactory, announced: str, carried: bytes, offerer: bool
) -> None:
    a, b = await peer(tone=440, srtp=True, mki=carried), await peer(tone=700)
    crypto = a.crypto_line(1, tail=announced)
    if offerer:
        one = await caller(bay, a, crypto=crypto)
    else:
        one, offer = await bay.offer_side(new_leg_id(), TEAMS, TEAMS.codecs, 101)
        a.follow(offer)
        await one.accept_answer(a.description(crypto=crypto))
    two = await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    local = one.local
    a.follow(await one.remote_offer(a.description(crypto=crypto)))
    await both_hear(a, b)
    assert local is not None
    assert one.local is not None
    assert (one.local.port, one.local.crypto) == (local.port, local.crypto)
    assert a.undecodable == 0


async def test_t15_new_key_with_the_roll_over_counter_back_at_0(bay: PatchBay, peer: PeerFactory) -> None:
    """A call of 25 minutes: sequence numbers have wrapped, then Teams resumes with a new key."""
    a, b = await peer(tone=440, srtp=True), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    await a.wrap_sequence()
    await b.wrap_sequence()
    await both_hear(a, b)
    before = await one.answer()
    await one.remote_offer(a.description("inactive"))
    a.use_key(os.urandom(30))
    a.version += 1
    a.follow(await one.remote_offer(a.description()))
    await both_hear(a, b)
    assert parse_description(before).crypto == parse_description(await one.local_offer()).crypto
    assert a.undecodable == b.undecodable == 0


async def test_roc_survives_moving_to_another_partner_and_back(bay: PatchBay, peer: PeerFactory) -> None:
    a, b, c = await peer(tone=440, srtp=True), await peer(tone=700, srtp=True), await peer(tone=950)
    one, two, three = await caller(bay, a), await callee(bay, b), await callee(bay, c)
    await bay.bridge(one, two)
    await both_hear(a, b)
    await a.wrap_sequence()
    await b.wrap_sequence()
    await both_hear(a, b)
    await bay.bridge(one, three)
    await both_hear(a, c)
    await bay.bridge(one, two)
    await both_hear(a, b)
    assert a.undecodable == b.undecodable == 0


async def test_our_side_gets_a_new_key_on_the_same_port(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440, srtp=True), await peer(tone=700)
    one, two = await callee(bay, a), await caller(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    before = await one.local_offer()
    after = await one.rekey()
    old, new = parse_description(before), parse_description(after)
    assert (new.port, new.version) == (old.port, old.version + 1)
    assert new.crypto[0].key != old.crypto[0].key
    a.follow(after)
    await one.accept_answer(a.description())
    refused = a.undecodable
    await both_hear(a, b)
    await asyncio.sleep(0.1)
    assert a.undecodable == refused


async def test_plain_rtp_wrong_suite_and_bad_keys_are_refused_before_anything_is_reserved(
    bay: PatchBay, peer: PeerFactory
) -> None:
    a = await peer(srtp=True)
    wrong = [
        a.description(profile="RTP/AVP", crypto=""),
        a.description(profile="RTP/AVP"),
        a.description(crypto=""),
        a.description(crypto=f"a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:{OTHER_KEY}|2^31"),
        a.description(crypto="a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2hvcnQ=|2^31"),
        a.description(crypto="a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + "!" * 40),
    ]
    for offer in wrong:
        with pytest.raises(SdpError) as refusal:
            await bay.answer_side(new_leg_id(), offer, TEAMS)
        assert refusal.value.code == 488
        assert refusal.value.text
    assert bay.anchors == {}
    assert (await bay.ng.command("list"))["calls"] == []
