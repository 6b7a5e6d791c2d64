"""The reference signal of the probe: a chirp each second, and its echo found again in what is heard."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from media.webrtc import PACKET, RATE, Pcm

EVERY: Final = 1.0
"""Seconds from one chirp to the next; a round trip longer than that is not told apart from a shorter one."""
_LENGTH: Final = 0.2
_FROM, _TO = 400.0, 2800.0
_PERIOD: Final = int(EVERY * RATE)
_FOUND: Final = 0.35
"""Correlation (1 = the very same signal) from which it is the chirp; noise and speech stay below 0.2."""


def chirp() -> Pcm:
    """From 400 to 2800 Hz, half of full scale, faded in and out."""
    at = np.arange(int(_LENGTH * RATE)) / RATE
    phase = 2 * np.pi * (_FROM * at + (_TO - _FROM) * at**2 / (2 * _LENGTH))
    return (0.5 * 32767 * np.sin(phase) * np.hanning(len(at)) ** 0.5).astype(np.int16)


class Reference:
    """A `Source` for `WebRtcPhone`. sent: monotonic time at which each chirp was handed over."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        second = np.zeros(_PERIOD, np.int16)
        second[: int(_LENGTH * RATE)] = chirp()
        self._second = second

    def __call__(self, number: int) -> Pcm:
        place = number * PACKET % _PERIOD
        if place == 0:
            self.sent.append(time.monotonic())
        return np.asarray(self._second[place : place + PACKET])


def round_trips(sent: Iterable[float], heard: Sequence[tuple[float, Pcm]]) -> list[float | None]:
    """Seconds from each chirp to its echo, None where none came back.

    heard: (monotonic time at which it was there, PCM), in order
    """
    return [_round_trip(begin, [one for one in heard if begin < one[0] < begin + EVERY]) for begin in sent]


def _round_trip(begin: float, pieces: Sequence[tuple[float, Pcm]]) -> float | None:
    wanted = chirp().astype(float)
    pcm = np.concatenate([piece for _, piece in pieces]).astype(float) if pieces else np.zeros(0)
    if len(pcm) < len(wanted):
        return None
    match = np.abs(np.correlate(pcm, wanted, "valid"))
    energy = np.convolve(pcm**2, np.ones(len(wanted)), "valid")
    norm = np.sqrt(np.maximum(energy, 1.0) * np.sum(wanted**2))
    loud = energy > len(wanted) * 100.0**2
    score = np.where(loud, match / norm, 0.0)
    place = int(np.argmax(score))
    if score[place] < _FOUND:
        return None
    for at, piece in pieces:
        if place < len(piece):
            return max(at + (place - len(piece)) / RATE - begin, 0.0)
        place -= len(piece)
    return None


def tone_level(pcm: Pcm, hz: float) -> float:
    """Level of a tone in dBFS."""
    if len(pcm) < PACKET:
        return -180.0
    window = np.hanning(len(pcm))
    turn = np.exp(-2j * np.pi * hz * np.arange(len(pcm)) / RATE)
    amplitude = 2 * abs(np.sum(pcm * window * turn)) / np.sum(window) / 32768
    return float(20 * np.log10(amplitude + 1e-9))
