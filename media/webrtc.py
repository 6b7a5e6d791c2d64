"""A browser's telephone made of aiortc: the synthetic agent of `tandem probe`, the browser in our own tests.

aiortc is asked for only by those two; a gateway runs without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from aiortc import AudioStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, AudioResampler

RATE: Final = 8000
"""Samples a second of everything that is sent and heard here, 16 bits, one channel."""
PACKET: Final = 160
_KEPT: Final = 60 * 50

Pcm = npt.NDArray[np.int16]
Source = Callable[[int], Pcm]
"""PCM of packet number n, `PACKET` samples."""

SETTLE = 2.0
"""Seconds that closing waits for a connection that is being made."""


def tone(hz: float, amplitude: float = 0.3) -> Source:
    """A continuous sine."""

    def packet(number: int) -> Pcm:
        at = np.arange(number * PACKET, (number + 1) * PACKET)
        return (amplitude * 32767 * np.sin(2 * np.pi * hz * at / RATE)).astype(np.int16)

    return packet


def silence(_: int) -> Pcm:
    return np.zeros(PACKET, np.int16)


class _Speech(AudioStreamTrack):
    """What the phone says, 20 ms at a time by the clock."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.number = 0
        self._begun = 0.0

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        if not self._begun:
            self._begun = now
        due = self._begun + self.number * PACKET / RATE
        if due > now:
            await asyncio.sleep(due - now)
        frame = AudioFrame.from_ndarray(self.source(self.number)[np.newaxis, :], format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = self.number * PACKET
        frame.time_base = fractions.Fraction(1, RATE)
        self.number += 1
        return frame


class WebRtcPhone:
    """One peer connection after another, as a page has them: `answer` an offer, speak, listen, `close`.

    heard: (monotonic time, PCM) of what came in, the last minute of it
    """

    def __init__(self, source: Source = silence) -> None:
        self.source = source
        self.heard: deque[tuple[float, Pcm]] = deque(maxlen=_KEPT)
        self.pc: RTCPeerConnection | None = None
        self.connected = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self._speech: _Speech | None = None

    async def answer(self, offer: str) -> str:
        """Our answer with all candidates; an earlier connection is closed."""
        await self.close()
        self.connected = connected = asyncio.Event()
        # without STUN servers, of which aiortc's default is somebody's on the Internet
        self.pc = pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))

        @pc.on("track")
        def on_track(track: Any) -> None:
            self._listening = asyncio.get_running_loop().create_task(self._listen(track))

        @pc.on("connectionstatechange")
        async def on_state() -> None:
            if pc.connectionState == "connected":
                connected.set()

        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        self._speech = _Speech(lambda number: self.source(number))
        pc.addTrack(self._speech)
        await pc.setLocalDescription(await pc.createAnswer())
        return str(pc.localDescription.sdp)

    def pcm(self, since: float = 0.0) -> Pcm:
        """What was heard from `since` (monotonic) on, in one piece."""
        pieces = [pcm for at, pcm in self.heard if at >= since]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)

    async def statistics(self) -> dict[str, Any]:
        """aiortc's reports by type (inbound-rtp, remote-inbound-rtp…); the last one of each."""
        if self.pc is None:
            return {}
        return {report.type: report for report in (await self.pc.getStats()).values()}

    async def close(self) -> None:
        pc, self.pc = self.pc, None
        listening, self._listening = self._listening, None
        if pc is not None:
            if pc.connectionState == "connecting":
                # aioice forgets the task that keeps consent fresh when it is closed just before connecting
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SETTLE):
                        await self.connected.wait()
            await pc.close()
        if self._speech is not None:
            self._speech.stop()
        if listening is not None:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    async def _listen(self, track: Any) -> None:
        resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            now = time.monotonic()
            for one in resampler.resample(frame):
                self.heard.append((now, one.to_ndarray()[0].astype(np.int16)))
