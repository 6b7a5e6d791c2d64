"""The hold music that comes with Tandem: quiet broken chords, computed, so that nobody has rights in them.

Soft organ-like tones with a low level survive G.711 and tell a caller on hold that the line is alive.
"""

from __future__ import annotations

import array
import math
from pathlib import Path

from media.music import RATE, write_wave

_CHORD_SECONDS = 3.0
_PROGRESSION = (
    (261.63, 329.63, 392.00),
    (220.00, 261.63, 329.63),
    (174.61, 220.00, 261.63),
    (196.00, 246.94, 293.66),
)
"""C, a, F, G; equal temperament, Hz."""
_AMPLITUDE = 0.16
_FADE = 0.25


def write_melody(target: Path) -> Path:
    """Write one round of the music as a 16-bit mono WAV at 8 kHz and return its path; 12 s of sound."""
    samples = array.array("h")
    count, fade = int(_CHORD_SECONDS * RATE), int(_FADE * RATE)
    for chord in _PROGRESSION:
        for n in range(count):
            gain = min(1.0, n / fade, (count - n) / fade)
            swell = 0.85 + 0.15 * math.sin(2 * math.pi * 0.5 * n / RATE)
            value = sum(math.sin(2 * math.pi * hz * n / RATE) for hz in chord) / len(chord)
            samples.append(int(32767 * _AMPLITUDE * gain * swell * value))
    write_wave(target, samples.tobytes())
    return target
