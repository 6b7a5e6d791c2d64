"""Nobody but the party is heard on its port, and nobody else hears it (facts media-prototype 6)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.model import new_leg_id
from media.patchbay import PatchBay
from tests.media.conftest import PeerFactory
from tests.media.support import PLAIN, both_hear, callee, caller
from tests.peers.tone import hears


@pytest.mark.parametrize("silent_party", [True, False])
async def test_an_intruder_is_not_heard_and_hears_nothing(
    bay: PatchBay, peer: PeerFactory, silent_party: bool
) -> None:
    a, b, intruder = await peer(tone=440), await peer(tone=700, srtp=True), await peer(tone=2000)
    if silent_party:
        a.pause()
    one, two = await caller(bay, a), await callee(bay, b)
    assert one.local is not None
    intruder.connect("127.0.0.1", one.local.port)
    await bay.bridge(one, two)
    await a.hears(700)
    since = b.now
    await asyncio.sleep(0.4)
    assert not hears(b.pcm(since), 2000)
    a.pause()
    since = b.now + 0.03
    await asyncio.sleep(0.2)
    assert b.heard(since) == []
    assert intruder.packets == []


async def test_nobody_gets_in_from_inside_but_the_partner(bay: PatchBay, peer: PeerFactory) -> None:
    a, b, local = await peer(tone=440), await peer(tone=700), await peer(tone=2000)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    local.connect("127.0.0.1", one.inside_port)
    since = a.now
    await asyncio.sleep(0.3)
    assert not hears(a.pcm(since), 2000)
    assert local.packets == []


async def test_a_party_behind_nat_is_learned_when_the_trunk_allows_it(
    bay: PatchBay, peer: PeerFactory
) -> None:
    """Its description names a port that is not the one its packets come from."""
    a, b, elsewhere = await peer(tone=440), await peer(tone=700, srtp=True), await peer()
    elsewhere.pause()
    false_offer = a.description().replace(str(a.port).encode(), str(elsewhere.port).encode())
    one = await bay.answer_side(new_leg_id(), false_offer, replace(PLAIN, learn_source=True))
    a.follow(await one.answer())
    two = await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    await one.park()
    await bay.bridge(one, two)
    await both_hear(a, b)
    strict = await bay.answer_side(new_leg_id(), false_offer, PLAIN)
    a.follow(await strict.answer())
    await bay.bridge(strict, two)
    await asyncio.sleep(0.1)
    with pytest.raises(AssertionError, match="no 440"):
        await b.hears(440, within=0.4)
