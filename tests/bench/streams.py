"""Light RTP and SRTP streams: one socket each, all driven by one clock, nothing decoded, nothing kept.

A stream costs its process about 10 µs a packet both ways, so that the load generator is never what a
benchmark measures; how late its clock ran at worst is part of every report.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import socket
import struct
from dataclasses import dataclass
from typing import ClassVar

import pylibsrtp

from tests.peers.rtp import RtpPeer
from tests.peers.tone import PACKET, PAYLOAD_TYPES

_INTERVAL = 0.02
_SLOTS = 10
_CHECKED = 50
"""Every so many packets one is authenticated; that proves SRTP without paying for it each time."""
_BUFFER = 2048


@dataclass(frozen=True, slots=True)
class Count:
    """Of one stream: packets sent, received, missing in the sequence numbers, not authentic."""

    sent: int
    received: int
    lost: int
    broken: int


class Pacer:
    """The clock: a tenth of all streams is due every 2 ms, so that none of their sockets waits long and
    signalling in the same process is never held up for longer than that."""

    def __init__(self) -> None:
        self._slots: list[list[LightPeer]] = [[] for _ in range(_SLOTS)]
        self._task: asyncio.Task[None] | None = None
        self.latest = 0.0

    @property
    def streams(self) -> list[LightPeer]:
        return [stream for slot in self._slots for stream in slot]

    def media(self) -> type[RtpPeer]:
        """A class of media peers that run by this clock."""

        class Paced(LightPeer):
            pacer = self

        return Paced

    def add(self, stream: LightPeer) -> None:
        min(self._slots, key=len).append(stream)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def drop(self, stream: LightPeer) -> None:
        for slot in self._slots:
            if stream in slot:
                slot.remove(stream)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due, index = loop.time(), 0
        while True:
            for stream in self._slots[index]:
                stream.tick()
            index = (index + 1) % _SLOTS
            due += _INTERVAL / _SLOTS
            late = loop.time() - due
            self.latest = max(self.latest, late)
            await asyncio.sleep(max(0.0, -late))


class LightPeer(RtpPeer):
    """An RtpPeer for its descriptions and keys; sends one prepared packet and counts what comes."""

    pacer: ClassVar[Pacer]

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._packet = bytearray(12) + random.randbytes(PACKET)
        self._heard = memoryview(bytearray(_BUFFER))
        self._received = self._broken = self._cycles = 0
        self._base = self._highest = -1
        self._source = b""

    @classmethod
    async def open(
        cls,
        *,
        tone: float = 440.0,
        codec: str = "PCMA",
        telephone_event: int | None = 101,
        srtp: bool = False,
        mki: bytes = b"",
        rtcp: float = 0.0,
        rtcp_mux: bool = True,
        host: str = "127.0.0.1",
    ) -> RtpPeer:
        """As RtpPeer's; the tone is noise, and RTCP goes nowhere."""
        self = cls()
        self.codec, self.telephone_event, self.srtp = codec, telephone_event, srtp
        self.rtcp_mux, self.host = rtcp_mux, host
        self.port = _bind_even(self._socket, host)
        self.use_key(self.local_key)
        self.pacer.add(self)
        return self

    async def close(self) -> None:
        self.pacer.drop(self)
        self._socket.close()

    def say(self, tone: float) -> None:
        """It is noise whatever is asked for."""

    def connect(self, host: str, port: int, key: bytes | None = None) -> None:
        super().connect(host, port, key)
        with contextlib.suppress(OSError):
            self._socket.connect((host, port))

    def tick(self) -> None:
        """Send one packet if it is time to talk, take in what has come."""
        if self.remote is None:
            return
        if self.sending:
            self.sequence = (self.sequence + 1) & 0xFFFF
            self.timestamp = (self.timestamp + PACKET) & 0xFFFFFFFF
            number = PAYLOAD_TYPES[self.codec]
            struct.pack_into(
                "!BBHII", self._packet, 0, 0x80, number, self.sequence, self.timestamp, self.ssrc
            )
            data = self._packet if self._sender is None else self._sender.protect(bytes(self._packet))
            with contextlib.suppress(OSError):
                self._socket.send(data)
                self.sent += 1
        with contextlib.suppress(OSError):
            while True:
                self._take(self._socket.recv_into(self._heard, 0, socket.MSG_DONTWAIT))

    def _take(self, size: int) -> None:
        heard = self._heard
        if size < 12 or 192 <= heard[1] <= 223:
            return
        sequence = heard[2] << 8 | heard[3]
        source = bytes(heard[8:12])
        if source != self._source:
            self._source = source
            self._base, self._highest, self._cycles = sequence - self._received, sequence, 0
        elif 0 < (sequence - self._highest) & 0xFFFF < 0x8000:
            if sequence < self._highest:
                self._cycles += 0x10000
            self._highest = sequence
        self._received += 1
        if self._receiver is not None and self._received % _CHECKED == 1:
            try:
                self._receiver.unprotect(bytes(heard[:size]))
            except pylibsrtp.Error:
                self._broken += 1

    def count(self) -> Count:
        """All so far."""
        expected = self._cycles + self._highest - self._base + 1 if self._received else 0
        return Count(self.sent, self._received, max(0, expected - self._received), self._broken)


def _bind_even(sock: socket.socket, host: str) -> int:
    """An even port, RTP's habit."""
    for _ in range(200):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1]) & ~1
        with contextlib.suppress(OSError):
            sock.bind((host, port))
            return port
    raise OSError("no free even port")


def more_files(count: int) -> None:
    """Allow this process so many open files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def cpu_seconds() -> float:
    """Of this process."""
    times = os.times()
    return times.user + times.system
