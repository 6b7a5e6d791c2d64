"""The gateway restarts while rtpengine runs on: anchors come back from their snapshots."""

from __future__ import annotations

import json

import pytest

from gateway.errors import MediaRejected
from media.patchbay import PatchBay
from media.snapshot import SnapshotError
from tests.media.conftest import PeerFactory
from tests.media.support import both_hear, callee, caller


async def test_bridged_legs_go_on_and_can_be_moved(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440, telephone_event=96), await peer(tone=700, srtp=True, mki=b"\x01")
    c = await peer(tone=950)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    text = json.dumps([one.snapshot(), two.snapshot()])
    outside = (one.local, two.local)
    later = PatchBay(bay.ng, bay.address, bay.options)
    first, second = (later.restore(record) for record in json.loads(text))
    try:
        assert (first.local, second.local) == outside
        assert json.dumps([first.snapshot(), second.snapshot()]) == text
        await both_hear(a, b)
        await later.bridge(first, second)
        await both_hear(a, b)
        b.follow(await second.remote_offer(b.description()))
        three = await callee(later, c)
        await later.bridge(three, second)
        await both_hear(c, b)
        assert b.undecodable == 0
    finally:
        for anchor in list(later.anchors.values()):
            await anchor.close()


async def test_a_closed_leg_is_not_begun_anew(bay: PatchBay, peer: PeerFactory) -> None:
    """An offer for a call-id that rtpengine has forgotten would reserve ports that nobody ends."""
    a, b = await peer(), await peer()
    one, two = await caller(bay, a), await callee(bay, b)
    await one.close()
    for attempt in (bay.bridge(one, two), one.park(), one.remote_offer(a.description()), one.stop_playing()):
        with pytest.raises(MediaRejected, match="closed"):
            await attempt
    assert (await bay.ng.command("list"))["calls"] == [two.leg]


@pytest.mark.parametrize("record", [{}, {"leg": 5}, {"leg": "x", "policy": "y"}])
def test_a_record_that_is_none_is_typed(record: dict[str, object]) -> None:
    with pytest.raises(SnapshotError):
        PatchBay(None, "127.0.0.1").restore(record)  # type: ignore[arg-type]
