"""Two legs bridged, parked, moved and refreshed: tones go where they should, the outside stays as it is."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from gateway.sip.sdp import parse_description
from media.patchbay import PatchBay
from tests.media.conftest import PeerFactory
from tests.media.support import both_hear, callee, caller
from tests.peers.tone import hears, loudness
from tests.support.stalls import Stalls


async def test_rtp_and_srtp_hear_each_other_within_200_ms_and_nothing_after_the_end(
    bay: PatchBay, peer: PeerFactory
) -> None:
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    async with Stalls() as stalls:
        begun = a.now
        await bay.bridge(one, two)
        await both_hear(a, b)
    at_a, at_b = a.first_heard(700), b.first_heard(440)
    assert at_a is not None
    assert at_b is not None
    assert at_a - begun < 0.2 + stalls.lost(begun, at_a)
    assert at_b - begun < 0.2 + stalls.lost(begun, at_b)
    assert b.undecodable == 0
    await one.close()
    await two.close()
    ended = a.now
    await asyncio.sleep(0.15)
    assert a.heard(ended + 0.01) == b.heard(ended + 0.01) == []


async def test_a_parked_party_hears_nothing_and_is_not_heard(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    await one.park()
    await two.park()
    since = a.now + 0.03
    await asyncio.sleep(0.25)
    assert a.heard(since) == b.heard(since) == []
    await bay.bridge(two, one)
    await both_hear(a, b)


async def test_moving_between_partners_changes_nothing_outside_and_leaves_no_gap(
    bay: PatchBay, peer: PeerFactory
) -> None:
    """Rule 2 of the house, T21: re-pointing keeps address, port and key, and costs a packet at most."""
    a, b, c = await peer(tone=440, srtp=True), await peer(tone=700), await peer(tone=950, srtp=True)
    one, two, three = await caller(bay, a), await callee(bay, b), await callee(bay, c)
    before = [anchor.local for anchor in (one, two, three)]
    await bay.bridge(one, two)
    await both_hear(a, b)
    for partner in (three, two, three, two, three):
        await bay.bridge(one, partner)
    await both_hear(a, c)
    await two.park()
    times = [packet.at for packet in a.heard()]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 0.15
    assert [anchor.local for anchor in (one, two, three)] == before
    assert a.undecodable == c.undecodable == 0
    assert not hears(a.pcm(a.now - 0.1), 700)


@pytest.mark.parametrize("srtp", [False, True])
async def test_a_refresh_of_either_side_keeps_port_key_and_version(
    bay: PatchBay, peer: PeerFactory, srtp: bool
) -> None:
    """T15, T16: the same description again is answered from our own state, word for word."""
    a, b = await peer(tone=440, srtp=srtp), await peer(tone=700)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    answered = await one.answer()
    assert await one.remote_offer(a.description()) == answered
    assert await one.remote_offer(a.description()) == answered
    ours = await one.local_offer()
    assert parse_description(ours).port == parse_description(answered).port
    assert await one.local_offer() == ours
    await one.accept_answer(a.description())
    await both_hear(a, b)
    assert a.undecodable == 0


async def test_hold_by_description_is_seen_answered_and_taken_back(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    for direction, answered in (("sendonly", "recvonly"), ("inactive", "inactive"), ("sendrecv", "sendrecv")):
        answer = parse_description(await one.remote_offer(a.description(direction)))
        assert answer.direction == answered
        assert one.held == (direction != "sendrecv")
    answer = parse_description(await two.remote_offer(b.description("sendonly")))
    assert answer.direction == "inactive", "Direct Routing understands no other way to say it (T20)"
    old_way = a.description().replace(b"c=IN IP4 127.0.0.1", b"c=IN IP4 0.0.0.0")
    await one.remote_offer(old_way)
    assert one.held
    a.follow(await one.remote_offer(a.description()))
    b.follow(await two.remote_offer(b.description()))
    await both_hear(a, b)
    assert b.undecodable == 0


async def test_the_party_moves_to_another_port_with_a_new_key(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    moved = await peer(tone=950, srtp=True)
    moved.follow(await two.remote_offer(moved.description()))
    await both_hear(a, moved)
    assert moved.undecodable == 0
    quiet = b.now + 0.03
    await asyncio.sleep(0.1)
    assert loudness(b.pcm(quiet)) < -100


async def test_another_fork_answers(bay: PatchBay, peer: PeerFactory) -> None:
    """Several 18x with different To tags: the latest answer counts."""
    a, b, c = await peer(tone=440), await peer(tone=700, srtp=True), await peer(tone=950, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    assert two.local is not None
    c.follow(two.local.text())
    await two.accept_answer(c.description())
    await both_hear(a, c)
