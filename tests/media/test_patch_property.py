"""Patch, park, play and bridge in any order: nobody outside notices, and the right tone is heard."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from media.music import ringback
from media.patchbay import Anchor, PatchBay
from tests.media.conftest import PeerFactory
from tests.media.support import callee, caller
from tests.peers.rtp import RtpPeer
from tests.peers.tone import hears

TONES = (500, 700, 950, 1300)
MUSIC = 425


class Model:
    """Who should hear what: for each leg a partner's number, "music" or None."""

    def __init__(self, count: int) -> None:
        self.hears: list[int | str | None] = [None] * count
        self.before: list[int | str | None] = [None] * count

    def bridge(self, a: int, b: int) -> None:
        self.hears[a], self.hears[b] = b, a

    def play(self, a: int) -> None:
        if self.hears[a] != "music":
            self.before[a], self.hears[a] = self.hears[a], "music"

    def stop(self, a: int) -> None:
        if self.hears[a] == "music":
            self.hears[a] = self.before[a]

    def audible(self, listener: int) -> int:
        """Frequency that arrives, 0 for none: a partner is heard only while he is connected back."""
        state = self.hears[listener]
        if state == "music":
            return MUSIC
        if isinstance(state, int) and self.hears[state] == listener:
            return TONES[state]
        return 0


async def settled(peers: Sequence[RtpPeer], model: Model, within: float = 5.0) -> None:
    """Each hears what the model says, in one and the same window: a loaded machine reads packets late."""
    deadline = peers[0].now + within
    while True:
        since = peers[0].now
        await asyncio.sleep(0.3)
        wrong = []
        for number, one in enumerate(peers):
            pcm, expected = one.pcm(since), model.audible(number)
            heard = {hz for hz in (*TONES, MUSIC) if hears(pcm, hz, -36)}
            if not (heard <= {MUSIC} if expected == MUSIC else heard == ({expected} if expected else set())):
                wrong.append(f"leg {number} hears {heard}, not {expected}")
        if not wrong:
            return
        assert peers[0].now < deadline, f"{wrong}: {model.hears}"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_any_sequence_leaves_the_outside_as_it_is(
    bay: PatchBay, peer: PeerFactory, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    music = await ringback(tmp_path)
    peers: list[RtpPeer] = [
        await peer(tone=TONES[0]),
        await peer(tone=TONES[1], srtp=True),
        await peer(tone=TONES[2], srtp=True, telephone_event=96),
        await peer(tone=TONES[3], codec="PCMU"),
    ]
    legs: list[Anchor] = [
        await (caller if number % 2 else callee)(bay, one) for number, one in enumerate(peers)
    ]
    outside = [leg.local for leg in legs]
    inside = [leg.inside_port for leg in legs]
    model = Model(len(legs))
    for _ in range(4):
        for _ in range(6):
            a, b = dice.sample(range(len(legs)), 2)
            action = dice.choice(("bridge", "bridge", "park", "play", "stop", "refresh"))
            if action == "bridge":
                await bay.bridge(legs[a], legs[b])
                model.bridge(a, b)
            elif action == "park":
                await legs[a].park()
                model.hears[a] = None
            elif action == "play":
                await legs[a].play(music)
                model.play(a)
            elif action == "stop":
                await legs[a].stop_playing()
                model.stop(a)
            else:
                peers[a].follow(await legs[a].remote_offer(peers[a].description()))
        await settled(peers, model)
    assert [(leg.local and leg.local.port, leg.local and leg.local.crypto) for leg in legs] == [
        (local and local.port, local and local.crypto) for local in outside
    ]
    assert [leg.inside_port for leg in legs] == inside
    # with another key nothing could be read; one packet that crosses a switch was seen on a busy machine
    assert all(one.undecodable <= 1 for one in peers), [one.undecodable for one in peers]
    for leg, one in zip(legs, peers, strict=True):
        one.follow(await leg.local_offer())
