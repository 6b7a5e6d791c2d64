"""Counters, quality from the peers' RTCP, the age of the last packet, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway.errors import MediaRejected, PortsExhausted, SdpError
from gateway.model import CallId, new_leg_id
from gateway.sip.sdp import Codec
from media.engine import Engine, EngineSettings
from media.patchbay import Anchor, PatchBay
from media.quality import LegStatistics, read_statistics
from tests.media.conftest import PeerFactory
from tests.media.support import PLAIN, TEAMS, both_hear, callee, caller
from tests.support import ports


@pytest.mark.parametrize("mux", [True, False])
async def test_quality_comes_from_rtcp_and_counters_from_rtpengine(
    bay: PatchBay, peer: PeerFactory, mux: bool
) -> None:
    a = await peer(tone=440, rtcp=0.25, rtcp_mux=mux)
    b = await peer(tone=700, srtp=True, rtcp=0.25, rtcp_mux=mux)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    a.drop = 0.3
    await asyncio.sleep(1.6)
    running = await one.statistics()
    assert time.time() - running.last_packet < 3
    assert running.silence(time.time() + 60) > 50
    a.pause()
    b.pause()
    await asyncio.sleep(0.1)
    ends = [await anchor.close() for anchor in (one, two)]
    reports = 10 if mux else 0
    assert 0 <= ends[0].packets_received - a.sent <= reports
    assert 0 <= ends[1].packets_received - b.sent <= reports
    assert abs(ends[0].packets_sent - ends[1].packets_received) <= reports + 3
    for end in ends:
        assert end.mos is not None
        assert 1.0 <= end.mos <= 4.5
        assert end.rtt_ms is not None
        assert end.rtt_ms < 200
        assert end.jitter_ms is not None
        assert end.lost is not None
        assert end.lost > 0
        assert end.errors == 0
    event = ends[0].event(CallId("c"), one.leg, 5)
    assert (event.packets_received, event.mos, event.at) == (ends[0].packets_received, ends[0].mos, 5)
    assert await one.close() == LegStatistics()


async def test_t19_a_party_that_falls_silent_is_found_unless_it_holds(
    bay: PatchBay, peer: PeerFactory
) -> None:
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    assert await bay.silent(2) == []
    a.pause()
    b.pause()
    b.follow(await two.remote_offer(b.description("inactive")))
    await asyncio.sleep(2.1)
    assert await bay.silent(2) == [one]
    b.follow(await two.remote_offer(b.description()))
    assert await bay.silent(2) == [one], "two has resumed just now"
    a.resume()
    await b.hears(440)
    assert await bay.silent(2) == []


async def test_without_rtcp_there_is_no_quality(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440), await peer(tone=700)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    end = await one.close()
    assert end.packets_received > 5
    assert (end.mos, end.jitter_ms, end.rtt_ms) == (None, None, None)


@pytest.mark.parametrize("reply", [{}, {"tags": 5}, {"tags": {"ext": {"medias": [3]}}}, {"SSRC": {"1": 7}}])
def test_an_answer_without_figures_is_no_error(reply: dict[str, object]) -> None:
    assert read_statistics(reply) == LegStatistics()


async def test_a_leg_closed_at_every_stage_leaves_nothing(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    offered = await bay.answer_side(new_leg_id(), a.description(), PLAIN)
    asked, _ = await bay.offer_side(new_leg_id(), TEAMS, [Codec.PCMA], 101)
    answered, called = await caller(bay, a), await callee(bay, b)
    assert len((await bay.ng.command("list"))["calls"]) == 4
    for anchor in (offered, asked, answered, called):
        await anchor.close()
    assert (await bay.ng.command("list"))["calls"] == []
    assert bay.anchors == {}


async def test_a_closed_leg_is_not_begun_anew(bay: PatchBay, peer: PeerFactory) -> None:
    """An offer for a call-id that rtpengine has forgotten would reserve ports that nobody ends."""
    a, b = await peer(), await peer()
    one, two = await caller(bay, a), await callee(bay, b)
    await one.close()
    for attempt in (bay.bridge(one, two), one.park(), one.remote_offer(a.description()), one.stop_playing()):
        with pytest.raises(MediaRejected, match="closed"):
            await attempt
    assert (await bay.ng.command("list"))["calls"] == [two.leg]


async def test_ports_are_used_up_refused_and_free_again(peer: PeerFactory, tmp_path: Path) -> None:
    engine = Engine(EngineSettings("embedded", "127.0.0.1", ports.free_udp_range(12), tmp_path))
    await engine.start()
    try:
        bay = PatchBay(engine.ng, "127.0.0.1", engine.options)
        a = await peer()
        legs: list[Anchor] = []
        refusal: PortsExhausted | None = None
        while refusal is None and len(legs) < 10:
            try:
                legs.append(await bay.answer_side(new_leg_id(), a.description(), PLAIN))
            except PortsExhausted as error:
                refusal = error
        assert refusal is not None
        assert refusal.code == 503
        with pytest.raises(PortsExhausted):
            await bay.offer_side(new_leg_id(), PLAIN, [Codec.PCMA], 101)
        assert 0 < len(legs) == len(bay.anchors)
        assert sorted((await engine.ng.command("list"))["calls"]) == sorted(leg.leg for leg in legs)
        for leg in legs:
            await leg.close()
        again = await bay.answer_side(new_leg_id(), a.description(), PLAIN)
        await again.close()
    finally:
        await engine.stop()


async def test_a_second_hundred_of_calls_costs_no_more_memory(
    engine: Engine, bay: PatchBay, peer: PeerFactory
) -> None:
    a, b = await peer(), await peer(srtp=True)
    a.pause()
    b.pause()

    def resident() -> int:
        with open(f"/proc/{engine.processes['rtpengine']}/statm") as file:
            return int(file.read().split()[1]) * 4

    async def hundred() -> int:
        for _ in range(100):
            one, two = await caller(bay, a), await callee(bay, b)
            await bay.bridge(one, two)
            await one.close()
            await two.close()
        return resident()

    first = await hundred()
    assert await hundred() - first < 4096, "kB"
    assert engine.ng.pending == 0
    assert engine.ng.retries == 0


async def test_misuse_is_typed(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(codec="G722"), await peer()
    one = await bay.answer_side(new_leg_id(), a.description(), PLAIN)
    with pytest.raises(SdpError):
        await one.answer(Codec.PCMA)
    with pytest.raises(MediaRejected):
        await one.accept_answer(b.description())
    with pytest.raises(MediaRejected):
        await one.local_offer()
    with pytest.raises(MediaRejected):
        await one.patch(5000)
    two, _ = await bay.offer_side(new_leg_id(), PLAIN, [Codec.PCMA], 101)
    with pytest.raises(MediaRejected):
        await two.answer()
    with pytest.raises(MediaRejected):
        await bay.bridge(one, two)
    with pytest.raises(SdpError):
        await two.accept_answer(a.description())
    with pytest.raises(MediaRejected):
        await two.send_digit("5")
    strange = PatchBay(bay.ng, "192.0.2.1", bay.options)
    with pytest.raises(MediaRejected, match="address"):
        await strange.offer_side(new_leg_id(), PLAIN, [Codec.PCMA], 101)
