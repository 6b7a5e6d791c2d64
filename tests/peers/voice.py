"""A media peer that speaks a WAV file and writes down what it hears: for people, in the demo."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np

from tests.peers import tone as tones
from tests.peers.rtp import Packet, RtpPeer
from tests.peers.tone import PACKET, RATE, Pcm

_FIRST = 100


def read_audio(file: Path) -> Pcm:
    """Any audio file as PCM at 8,000 samples a second, mono."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    pieces: list[Pcm] = []
    with av.open(str(file)) as container:
        for frame in container.decode(audio=0):
            pieces += [part.to_ndarray().reshape(-1).astype(np.int16) for part in resampler.resample(frame)]
    pieces += [part.to_ndarray().reshape(-1).astype(np.int16) for part in resampler.resample(None)]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int16)


def write_wav(file: Path, pcm: Pcm) -> None:
    """16 bit mono at 8,000 Hz."""
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(pcm.astype("<i2").tobytes())


def whole_wav(file: Path) -> bool:
    """Whether a WAV file was closed by its writer: only then its header knows its length."""
    header = file.read_bytes()[:44]
    return len(header) == 44 and header[40:44] != bytes(4)


class Voice(RtpPeer):
    """An RtpPeer whose `speak` sends a recording instead of a tone; G.711 only for recordings.

    spoke_at: loop time at which the recording began to be sent, None before that
    began: loop time of the first sample of `recording`

    Both are medians over the first two seconds, so that one packet that was late says nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._speech: Pcm | None = None
        self._spoken: list[float] = []

    def speak(self, pcm: Pcm, *, pause: float = 1.0) -> None:
        """Send this recording from its beginning, again and again with a pause of seconds between."""
        silence = np.zeros(int(pause * RATE) + PACKET - (len(pcm) % PACKET or PACKET), dtype=np.int16)
        self._speech = np.concatenate([pcm, silence])
        self.use_codec(self.codec)

    def use_codec(self, codec: str) -> None:
        super().use_codec(codec)
        if self._speech is None or codec == "G722":
            return
        encode = tones.encode_alaw if codec == "PCMA" else tones.encode_ulaw
        data = encode(self._speech)
        self._frames = [data[i : i + PACKET] for i in range(0, len(data) - PACKET + 1, PACKET)]
        self._position = 0
        self._spoken.clear()

    def _send_audio(self) -> None:
        if self._speech is not None and len(self._spoken) < _FIRST:
            self._spoken.append(self.now - self._position * PACKET / RATE)
        super()._send_audio()

    @property
    def spoke_at(self) -> float | None:
        return float(np.median(self._spoken)) if self._spoken else None

    @property
    def began(self) -> float | None:
        packets = self.heard()
        if not packets:
            return None
        mine = _by_source(packets)[packets[0].ssrc][:_FIRST]
        ticks = [(packet.timestamp - mine[0].timestamp) & 0xFFFFFFFF for packet in mine]
        return float(np.median([p.at - tick / RATE for p, tick in zip(mine, ticks, strict=True)]))

    def recording(self) -> Pcm:
        """All that was heard, silence where nothing came, from the first packet on."""
        packets = self.heard()
        if not packets:
            return np.zeros(0, dtype=np.int16)
        began = packets[0].at
        sound = np.zeros(int((packets[-1].at - began) * RATE) + 2 * RATE, dtype=np.int16)
        first: dict[int, Packet] = {}
        for source, mine in _by_source(packets).items():
            start = first.setdefault(source, mine[0])
            pcm = tones.decode([(packet.payload_type, packet.payload) for packet in mine])
            for index, packet in enumerate(mine):
                ticks = (packet.timestamp - start.timestamp) & 0xFFFFFFFF
                at = int((start.at - began) * RATE) + ticks
                piece = pcm[index * PACKET : (index + 1) * PACKET]
                if at + len(piece) <= len(sound):
                    sound[at : at + len(piece)] = piece
        return np.trim_zeros(sound, "b")


def _by_source(packets: list[Packet]) -> dict[int, list[Packet]]:
    found: dict[int, list[Packet]] = {}
    for packet in packets:
        found.setdefault(packet.ssrc, []).append(packet)
    return found
