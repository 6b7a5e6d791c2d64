"""What a listener heard of what a speaker said: found by cross-correlation, with level and delay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.peers.tone import RATE, Pcm, loudness

CLEAR = 0.8
"""Normalised cross-correlation from which on a sentence counts as heard; G.711 both ways has 0.99."""
DIFFERENT = 0.3
"""Below it the two sounds have nothing to do with each other."""
LATE_MS = 150.0
"""One way, ITU-T G.114: transparent to the talkers."""
TOO_LATE_MS = 400.0
"""ITU-T G.114: unfit for planning."""
QUIETER_DB = 3.0


@dataclass(frozen=True)
class Match:
    """`at`: seconds into the recording where it fits best; `likeness` 0..1; `level` there, dBFS."""

    at: float
    likeness: float
    level: float


def find(wanted: Pcm, recording: Pcm) -> Match:
    """Where `wanted` is in `recording`; likeness 0 when the recording is shorter or silent."""
    count = len(wanted)
    if count == 0 or len(recording) < count or not np.any(recording) or not np.any(wanted):
        return Match(0.0, 0.0, -180.0)
    size = 1 << (len(recording) + count).bit_length()
    said, heard = wanted.astype(np.float64), recording.astype(np.float64)
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)), size)
    sums = np.concatenate([[0.0], np.cumsum(heard**2)])
    energy = sums[count:] - sums[:-count]
    scale = np.sqrt(np.maximum(energy, 1.0) * float(np.sum(said**2)))
    likeness = product[: len(energy)] / scale
    best = int(np.argmax(likeness))
    return Match(best / RATE, float(likeness[best]), loudness(recording[best : best + count]))


@dataclass(frozen=True)
class Heard:
    """One sentence at its listener. delay_ms: from the speaker's socket to the listener's; None: unknown."""

    likeness: float
    level: float
    delay_ms: float | None
    verdict: str
    good: bool


def judge(said: Pcm, match: Match, delay_ms: float | None) -> Heard:
    """Good: recognisably the same, not much quieter or louder, not too late."""
    change = match.level - loudness(said)
    if match.likeness < CLEAR:
        verdict = "NOT HEARD"
    elif abs(change) > QUIETER_DB:
        verdict = f"HEARD {change:+.0f} dB"
    elif delay_ms is not None and not -5 <= delay_ms <= TOO_LATE_MS:
        verdict = "HEARD AT A WRONG TIME"
    else:
        late = delay_ms is not None and delay_ms > LATE_MS
        return Heard(match.likeness, match.level, delay_ms, "heard, late" if late else "heard, clear", True)
    return Heard(match.likeness, match.level, delay_ms, verdict, False)
