"""Music and ringback: prepared once, heard alone, and the party is back with its partner afterwards."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import pytest

from gateway.errors import MediaRejected
from gateway.model import new_leg_id
from media.music import SoundError, prepare, ringback
from media.patchbay import PatchBay
from tests.media.conftest import PeerFactory
from tests.media.support import PLAIN, both_hear, callee, caller
from tests.peers.tone import Pcm, hears, loudness, sine


def write_wav(path: Path, pcm: Pcm, rate: int = 8000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.repeat(channels).tobytes())
    return path


@pytest.mark.parametrize("codec", ["PCMA", "PCMU", "G722"])
async def test_a_held_party_hears_music_and_nothing_else_and_is_then_back(
    bay: PatchBay, peer: PeerFactory, tmp_path: Path, codec: str
) -> None:
    music = await prepare(
        write_wav(tmp_path / "m.wav", sine(600, 2.0, rate=44100), 44100, 2), tmp_path / "cache"
    )
    a, b = await peer(tone=440, srtp=True, codec=codec), await peer(tone=800, codec=codec)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    outside = (one.local, two.local)
    await one.play(music)
    assert one.playing
    await a.hears(600)
    since_a, since_b = a.now, b.now
    await a.hears(600, last=20)
    assert not hears(a.pcm(since_a), 800), "music is mixed with the partner"
    assert b.heard(since_b + 0.03) == []
    a.follow(await one.remote_offer(a.description()))
    await a.hears(600)
    await one.stop_playing()
    await one.stop_playing()
    await both_hear(a, b)
    since = a.now
    await a.hears(800, last=10)
    assert not hears(a.pcm(since), 600)
    assert (one.local, two.local) == outside
    assert a.undecodable == 0


async def test_ringback_before_the_other_side_is_there(
    bay: PatchBay, peer: PeerFactory, tmp_path: Path
) -> None:
    tone = await ringback(tmp_path)
    assert tone == await ringback(tmp_path)
    a, b = await peer(tone=440), await peer(tone=800, srtp=True)
    one = await caller(bay, a)
    await one.play(tone)
    await a.hears(425)
    two = await callee(bay, b)
    await bay.bridge(one, two)
    assert not one.playing
    await both_hear(a, b)
    since = a.now
    await a.hears(800, last=10)
    assert not hears(a.pcm(since), 425)


async def test_park_ends_music(bay: PatchBay, peer: PeerFactory, tmp_path: Path) -> None:
    a = await peer(tone=440)
    one = await caller(bay, a)
    await one.play(await ringback(tmp_path))
    await a.hears(425)
    await one.park()
    since = a.now + 0.05
    await asyncio.sleep(0.25)
    assert a.heard(since) == []


async def test_a_file_that_is_not_there_or_a_party_not_answered(
    bay: PatchBay, peer: PeerFactory, tmp_path: Path
) -> None:
    a, b = await peer(tone=440), await peer(tone=800)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    with pytest.raises(MediaRejected):
        await one.play(tmp_path / "none.wav")
    assert not one.playing
    await both_hear(a, b)
    early = await bay.answer_side(new_leg_id(), b.description(), PLAIN)
    with pytest.raises(MediaRejected, match="not been answered"):
        await early.play(tmp_path / "none.wav")


async def test_any_rate_is_converted_once_and_made_long(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "in.wav", sine(600, 1.0, rate=48000), 48000)
    cache = tmp_path / "cache"
    first = await prepare(source, cache)
    changed = first.stat().st_mtime_ns
    assert await prepare(source, cache) == first
    assert first.stat().st_mtime_ns == changed
    with wave.open(str(first)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        assert file.getnframes() >= 300 * 8000
    raw = tmp_path / "in.raw"
    raw.write_bytes(sine(600, 1.0).tobytes())
    with wave.open(str(await prepare(raw, cache))) as file:
        assert file.readframes(8000) == raw.read_bytes()
    assert sorted(path.suffix for path in cache.iterdir()) == [".wav", ".wav"]


@pytest.mark.parametrize("content", [None, b"", b"RIFF not really a sound"])
async def test_a_sound_that_cannot_be_read_says_so(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "bad.wav"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(SoundError, match="sound file"):
        await prepare(source, tmp_path / "cache")


async def test_the_ringback_cadence(tmp_path: Path) -> None:
    import numpy as np

    with wave.open(str(await ringback(tmp_path))) as file:
        pcm = np.frombuffer(file.readframes(8000 * 6), dtype=np.int16)
    assert hears(pcm[800:7200], 425)
    assert loudness(pcm[8000:40000]) < -100
    assert hears(pcm[40800:47200], 425)
