"""A telephone whose sound is a mark: ten packets a second, so that hundreds of them fit beside one another.

Each packet of 20 ms names its sender and the moment it was sent, which no relay changes. What is measured
with it are therefore times of the sender's clock: how late the receiver looks at a packet does not matter.
"""

from __future__ import annotations

import asyncio
import secrets
import struct

from tests.peers.rtp import Packet, RtpPeer
from tests.peers.tone import PACKET, PAYLOAD_TYPES

PERIOD = 0.1
"""Seconds between two packets, and so the finest that a gap can be told to."""
_STEP = round(PERIOD / 0.02)
_FORM = struct.Struct("!8sd")


class SlimPeer(RtpPeer):
    """Put it into `ContactCenter.media` and `Teams.media`; it sends the codec PCMA and no digits."""

    def __init__(self) -> None:
        super().__init__()
        self.mark = secrets.token_bytes(8)
        self.sequence = secrets.randbelow(1 << 14)

    async def _run(self) -> None:
        due = self.now
        while True:
            due += PERIOD
            await asyncio.sleep(max(0.0, due - self.now))
            self.timestamp = (self.timestamp + _STEP * PACKET) & 0xFFFFFFFF
            if self.remote is not None and self.sending:
                self._send_audio()

    def _send_audio(self) -> None:
        self.sequence = (self.sequence + 1) & 0xFFFF
        self._send(PAYLOAD_TYPES["PCMA"], self.timestamp, marked(self.mark, self.now))

    def times_from(self, other: SlimPeer, since: float = 0.0) -> list[float]:
        """When the other sent what was heard of it here, from `since` on, in order of arrival."""
        return [at for mark, at in map(read, self.packets) if mark == other.mark and at >= since]

    def strangers(self, *known: SlimPeer) -> list[Packet]:
        """Packets of somebody else."""
        marks = {peer.mark for peer in known}
        return [packet for packet in self.packets if read(packet)[0] not in marks]


def marked(mark: bytes, at: float) -> bytes:
    """20 ms of PCMA that carry a mark and a moment."""
    return _FORM.pack(mark, at).ljust(PACKET, b"\xd5")


def read(packet: Packet) -> tuple[bytes, float]:
    """Mark and moment of a packet; of music or silence no mark that anybody has."""
    if len(packet.payload) < _FORM.size:
        return b"", 0.0
    mark, at = _FORM.unpack_from(packet.payload)
    return mark, at


def gap(listener: SlimPeer, speaker: SlimPeer, moment: float) -> float:
    """How long what the speaker said around `moment` was not heard, in the speaker's time; inf: until now."""
    times = listener.times_from(speaker)
    before = max((at for at in times if at < moment), default=moment)
    after = min((at for at in times if at >= moment), default=float("inf"))
    return after - before
