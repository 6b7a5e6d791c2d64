"""The instruments measure right: two peers straight against each other, no gateway between."""

from __future__ import annotations

import asyncio

import pytest

from tests.peers.rtp import RtpPeer
from tests.peers.tone import level, loudness, sine, strongest


def test_two_tones_are_told_apart() -> None:
    pcm = sine(440, 0.1)
    assert level(pcm, 440) == pytest.approx(-10.5, abs=0.2)
    assert level(pcm, 520) < -50
    assert strongest(pcm) == pytest.approx(440, abs=2)
    assert loudness(sine(440, 0.1, amplitude=0.0)) < -100


@pytest.mark.parametrize(("codec", "srtp"), [("PCMA", False), ("PCMU", True), ("G722", True)])
async def test_peers_hear_each_other_and_their_digits(codec: str, srtp: bool) -> None:
    a = await RtpPeer.open(tone=440, codec=codec, srtp=srtp, rtcp=0.2)
    b = await RtpPeer.open(tone=700, codec=codec, srtp=srtp, rtcp=0.2)
    try:
        a.follow(b.description())
        b.follow(a.description())
        await asyncio.gather(a.hears(700), b.hears(440))
        assert level(a.pcm(), 440) < -40
        await a.press("5", ms=120)
        [digit] = await b.hears_digits("5")
        assert digit.ms == 120
        assert a.rtcp_heard
        assert b.rtcp_heard
        assert a.undecodable == b.undecodable == 0
    finally:
        await a.close()
        await b.close()


async def test_a_strict_listener_drops_a_wrong_key_and_follows_a_wrapped_sequence() -> None:
    a = await RtpPeer.open(tone=440, srtp=True)
    b = await RtpPeer.open(tone=700, srtp=True)
    try:
        a.follow(b.description())
        b.follow(a.description())
        await b.hears(440)
        await a.wrap_sequence()
        await b.hears(440)
        assert b.undecodable == 0
        a.use_key(bytes(30))
        with pytest.raises(AssertionError, match="no 440"):
            await b.hears(440, within=0.3)
        assert b.undecodable > 5
        b.follow(a.description())
        await b.hears(440)
    finally:
        await a.close()
        await b.close()
