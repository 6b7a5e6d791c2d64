"""What a listener hears: sine tones made and found again in PCM, with levels in dBFS.

PCM is always a one-dimensional numpy array of int16 samples at `RATE`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]

PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8, "G722": 9}
RATE = 8000
"""Samples a second everywhere in the tests; G.722 is reduced to it after decoding."""
PACKET = 160
"""Samples in the 20 ms of one packet."""
HEARD = -30.0
"""A tone at or above this level (dBFS) counts as heard; peers send at about -10 dBFS."""
FULL_SCALE = 32768.0
_TINY = 1e-9


def sine(hz: float, seconds: float, *, rate: int = RATE, amplitude: float = 0.3) -> Pcm:
    """A sine of `amplitude` (0..1 of full scale)."""
    time = np.arange(int(seconds * rate)) / rate
    return np.asarray(amplitude * (FULL_SCALE - 1) * np.sin(2 * math.pi * hz * time), dtype=np.int16)


def level(pcm: Pcm, hz: float) -> float:
    """Level of the tone `hz` in `pcm` in dBFS (0 = full-scale sine, -90 and below = not there).

    Goertzel's sum over a Hann window at exactly `hz`; two tones 60 Hz apart are told apart in 100 ms.
    """
    if len(pcm) < PACKET:
        return -180.0
    window = np.hanning(len(pcm))
    phase = np.exp(-2j * math.pi * hz * np.arange(len(pcm)) / RATE)
    amplitude = 2 * abs(np.sum(pcm * window * phase)) / np.sum(window) / FULL_SCALE
    return 20 * math.log10(amplitude + _TINY)


def hears(pcm: Pcm, hz: float, floor: float = HEARD) -> bool:
    """Whether the tone `hz` is in `pcm` at `floor` dBFS or louder."""
    return level(pcm, hz) >= floor


def loudness(pcm: Pcm) -> float:
    """Level of everything in `pcm` together, dBFS (a full-scale sine is -3)."""
    if len(pcm) == 0:
        return -180.0
    return 20 * math.log10(float(np.sqrt(np.mean((pcm / FULL_SCALE) ** 2))) + _TINY)


def strongest(pcm: Pcm) -> float:
    """Frequency in Hz of the strongest component, 0.0 when there is nothing above -50 dBFS."""
    if len(pcm) < PACKET or loudness(pcm) < -50:
        return 0.0
    size = max(len(pcm), RATE)
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)), n=size))
    return float(np.argmax(spectrum)) * RATE / size


def encode_alaw(pcm: Pcm) -> bytes:
    """G.711 A-law, one byte a sample."""
    value = pcm.astype(np.int32)
    sign = np.where(value >= 0, 0x80, 0)
    magnitude = np.minimum(np.where(value >= 0, value, -value - 1) >> 3, 0xFFF)
    exponent = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))).astype(np.int32) - 4, 0)
    mantissa = np.where(exponent == 0, magnitude >> 1, magnitude >> np.maximum(exponent, 1)) & 0x0F
    # segment 0 spans two steps of the scheme: below 32 the exponent is 0, from 32 on it is 1 and up
    code: NDArray[np.uint8] = ((sign | (exponent << 4) | mantissa) ^ 0x55).astype(np.uint8)
    return code.tobytes()


def decode_alaw(data: bytes) -> Pcm:
    """Inverse of `encode_alaw`."""
    return _alaw_table()[np.frombuffer(data, dtype=np.uint8)]


def encode_ulaw(pcm: Pcm) -> bytes:
    """G.711 mu-law, one byte a sample."""
    value = pcm.astype(np.int32)
    sign = np.where(value < 0, 0x80, 0)
    magnitude = np.minimum(np.abs(value), 32635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    code: NDArray[np.uint8] = (~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8)
    return code.tobytes()


def decode_ulaw(data: bytes) -> Pcm:
    """Inverse of `encode_ulaw`."""
    return _ulaw_table()[np.frombuffer(data, dtype=np.uint8)]


def frames(codec: str, hz: float) -> list[bytes]:
    """One second of the tone as 50 payloads (a whole number of periods, so that it loops without a click)."""
    if codec == "G722":
        return _g722_frames(hz)
    pcm = sine(round(hz), 1.0)
    data = encode_alaw(pcm) if codec == "PCMA" else encode_ulaw(pcm)
    return [data[i : i + PACKET] for i in range(0, len(data), PACKET)]


def _g722_frames(hz: float) -> list[bytes]:
    encoder = av.CodecContext.create("g722", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = 16000, "mono", "s16"
    data = b""
    for block in sine(round(hz), 1.0, rate=16000).reshape(-1, 320):
        frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16000
        data += b"".join(bytes(packet) for packet in encoder.encode(frame))
    data += b"".join(bytes(packet) for packet in encoder.encode(None))
    return [data[i : i + PACKET] for i in range(0, len(data) - PACKET + 1, PACKET)]


def decode(payloads: Sequence[tuple[int, bytes]]) -> Pcm:
    """PCM of (payload type, payload) pairs of static types 0, 8 and 9, in their order."""
    decoder: av.AudioCodecContext | None = None
    pieces: list[Pcm] = []
    for payload_type, payload in payloads:
        if payload_type == PAYLOAD_TYPES["PCMA"]:
            pieces.append(decode_alaw(payload))
        elif payload_type == PAYLOAD_TYPES["PCMU"]:
            pieces.append(decode_ulaw(payload))
        else:
            if decoder is None:
                created = av.CodecContext.create("g722", "r")
                assert isinstance(created, av.AudioCodecContext)
                decoder = created
                decoder.sample_rate, decoder.layout = 16000, "mono"
            decoded = decoder.decode(av.Packet(payload))
            pieces.extend(frame.to_ndarray().reshape(-1)[::2].astype(np.int16) for frame in decoded)
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int16)


@functools.cache
def _alaw_table() -> Pcm:
    code = np.arange(256) ^ 0x55
    exponent = (code >> 4) & 7
    mantissa = code & 0x0F
    base = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, base, (base + 0x100) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


@functools.cache
def _ulaw_table() -> Pcm:
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 132 << ((code >> 4) & 7)) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)
