"""Sounds that rtpengine plays to a party: hold music and ringback, converted once and kept by content.

rtpengine converts what it plays to each listener's codec, so one file serves all: mono, 16 bit, 8 kHz, which
is what two of the three codecs carry. It starts anew at the end of the file with a pause of 0.1 s, so short
music is repeated in the file itself until it is long.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import struct
import wave
from pathlib import Path

from gateway.errors import TandemError

log = logging.getLogger("tandem.media")

RATE = 8000
_LONG = 300.0
"""Seconds that a prepared loop has at least."""
_RINGBACK_HZ = 425
_RINGBACK_ON, _RINGBACK_OFF = 1.0, 4.0
"""ITU-T E.180 table, the cadence of most of Europe."""
_RINGBACK_AMPLITUDE = 0.1
_CONVERSION_LIMIT = 120.0


class SoundError(TandemError):
    """A sound file cannot be used; the text says why."""


async def prepare(source: Path, cache: Path) -> Path:
    """A file that rtpengine can play in a loop, made of `source` (WAV, or anything else ffmpeg reads).

    `.raw` is 16 bit, mono, 8 kHz, little endian. The same content is converted once: the name in `cache` is
    its hash. Raises SoundError.
    """
    try:
        digest = await asyncio.to_thread(_digest, source)
    except OSError as error:
        raise SoundError(f"sound file {source}: {error.strerror}") from error
    target = cache / f"{digest}.wav"
    if target.exists():
        return target
    pcm = await _convert(source)
    await asyncio.to_thread(write_wave, target, pcm * _repetitions(pcm))
    log.info("sound_prepared seconds=%.1f", len(pcm) / 2 / RATE)
    return target


async def ringback(cache: Path) -> Path:
    """The tone a caller hears while the other side rings: 425 Hz, 1 s on, 4 s off."""
    target = cache / "ringback-425.wav"
    if not target.exists():
        period = _tone(_RINGBACK_ON) + bytes(int(_RINGBACK_OFF * RATE) * 2)
        await asyncio.to_thread(write_wave, target, period * _repetitions(period))
    return target


def _digest(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32] + source.suffix.lower().replace(".", "-")


def _repetitions(pcm: bytes) -> int:
    return max(1, math.ceil(_LONG * RATE * 2 / max(1, len(pcm))))


def _tone(seconds: float) -> bytes:
    """A sine with 10 ms ramps, so that it does not click."""
    count, ramp = int(seconds * RATE), RATE // 100
    samples = []
    for n in range(count):
        gain = min(1.0, n / ramp, (count - 1 - n) / ramp)
        samples.append(
            int(32767 * _RINGBACK_AMPLITUDE * gain * math.sin(2 * math.pi * _RINGBACK_HZ * n / RATE))
        )
    return struct.pack(f"<{count}h", *samples)


def write_wave(target: Path, pcm: bytes) -> None:
    """A mono 16-bit file at RATE; complete or not at all: two gateways may make the same file at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    with wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm)
    partial.replace(target)


async def _convert(source: Path) -> bytes:
    form = ["-f", "s16le", "-ar", str(RATE), "-ac", "1"]
    try:
        process = await asyncio.create_subprocess_exec(
            "ffmpeg",
            "-nostdin",
            "-v",
            "error",
            *(form if source.suffix.lower() == ".raw" else []),
            "-i",
            f"file:{source}",
            "-vn",
            *form,
            "pipe:1",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SoundError(f"ffmpeg cannot be started: {error.strerror}") from error
    try:
        pcm, complaint = await asyncio.wait_for(process.communicate(), _CONVERSION_LIMIT)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise SoundError(f"sound file {source}: conversion takes too long") from None
    if process.returncode or not pcm:
        lines = complaint.decode(errors="replace").strip().splitlines()
        raise SoundError(f"sound file {source} cannot be read: {lines[-1] if lines else 'it holds no sound'}")
    return pcm
