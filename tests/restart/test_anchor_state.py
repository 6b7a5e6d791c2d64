"""A leg's media goes on with another gateway, from a record."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from gateway.errors import MediaRejected
from gateway.model import LegId
from media import anchor_state
from media.engine import Engine
from media.patchbay import Anchor, PatchBay
from tests.media.conftest import PeerFactory
from tests.media.support import both_hear, callee, caller, policy_of
from tests.media.test_music import write_wav
from tests.peers.rtp import RtpPeer
from tests.peers.tone import sine


def next_gateway(
    engine: Engine, old: PatchBay, *legs: tuple[Anchor, RtpPeer]
) -> tuple[PatchBay, list[Anchor]]:
    """Another bay on the same rtpengine, with the anchors as they come back from JSON."""
    records = [json.loads(json.dumps(anchor_state.capture(anchor))) for anchor, _ in legs]
    for anchor, _ in legs:
        old.forget(anchor)
    bay = PatchBay(engine.ng, "127.0.0.1", engine.options)
    anchors = [
        anchor_state.restore(bay, LegId(anchor.leg), policy_of(peer), record)
        for (anchor, peer), record in zip(legs, records, strict=True)
    ]
    return bay, anchors


async def test_a_bridge_goes_on_without_a_gap_and_can_be_changed(
    engine: Engine, bay: PatchBay, peer: PeerFactory
) -> None:
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    outside = (one.local, two.local)
    new, (first, second) = next_gateway(engine, bay, (one, a), (two, b))
    begun = b.now
    for anchor in (first, second):
        await anchor_state.verify(anchor)
    await new.bridge(first, second)
    await both_hear(a, b)
    assert (first.local, second.local) == outside
    times = [packet.at for packet in b.heard(begun)]
    assert max(later - sooner for sooner, later in itertools.pairwise(times)) < 0.2
    b.follow(await second.remote_offer(b.description("inactive")))
    assert second.held
    await first.park()
    b.follow(await second.remote_offer(b.description()))
    await new.bridge(first, second)
    await both_hear(a, b)
    assert b.undecodable == 0
    for anchor in (first, second):
        await anchor.close()


async def test_music_plays_on(engine: Engine, bay: PatchBay, peer: PeerFactory, tmp_path: Path) -> None:
    file = write_wav(tmp_path / "m.wav", sine(600, 3.0))
    a = await peer(tone=440)
    one = await caller(bay, a)
    await one.play(file)
    await a.hears(600)
    _, (first,) = next_gateway(engine, bay, (one, a))
    await anchor_state.verify(first)
    assert first.playing
    await a.hears(600)
    await first.stop_playing()
    await asyncio.sleep(0.2)
    begun = a.now
    await asyncio.sleep(0.2)
    assert not a.heard(begun)
    await first.close()


async def test_music_that_the_record_does_not_know_stops(
    engine: Engine, bay: PatchBay, peer: PeerFactory, tmp_path: Path
) -> None:
    """The gateway died between the command and the record."""
    file = write_wav(tmp_path / "m.wav", sine(600, 3.0))
    a, b = await peer(tone=440), await peer(tone=700)
    one, two = await caller(bay, a), await caller(bay, b)
    await bay.bridge(one, two)
    record = anchor_state.capture(one)
    await one.play(file)
    await a.hears(600)
    bay.forget(one)
    first = anchor_state.restore(bay, one.leg, policy_of(a), record)
    await anchor_state.verify(first)
    await bay.bridge(first, two)
    await both_hear(a, b)


async def test_a_leg_that_rtpengine_has_lost_or_changed_is_refused(
    engine: Engine, bay: PatchBay, peer: PeerFactory
) -> None:
    a, b = await peer(tone=440, srtp=True), await peer(tone=700)
    one, two = await caller(bay, a), await caller(bay, b)
    stale = anchor_state.capture(one)
    await one.rekey()
    again = anchor_state.restore(bay, one.leg, policy_of(a), stale)
    with pytest.raises(MediaRejected, match="port or key"):
        await anchor_state.verify(again)
    gone = anchor_state.capture(two)
    await two.close()
    lost = anchor_state.restore(bay, two.leg, policy_of(b), gone)
    with pytest.raises(MediaRejected):
        await anchor_state.verify(lost)
    for anchor in (again, one):
        await anchor.close()


def test_a_damaged_record_says_where_and_shows_no_key() -> None:
    with pytest.raises(ValueError, match="inside_port") as caught:
        anchor_state.restore(None, LegId("x"), None, {"inside_port": "secret-key"})  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
