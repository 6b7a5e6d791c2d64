"""The mixer of a conference room: pjsua2, tamed. The only place that imports it.

The published wheel carries four *calls* a process, but each call may carry several audio lines, and each
line is a stream with a port of its own in the mixer. A room therefore keeps up to four calls of `LINES` lines
to its own far end (media/room_far_end.py); a party occupies a line. Adding, re-pointing and removing a party
is a re-offer in which one line changes; pjsua2 leaves unchanged lines alone (measured: longest gap on the
others 23 ms, which is the packet spacing). `LINES` is bounded by the wheel's 4,000 bytes per SIP message.

pjsua2's rules of life, each learned from a crash: all of it in one thread (threadCnt 0, mainThreadOnly, the
event loop watches pjsip's socket); calls live as long as the process, so no dead Call object can hang up a
newer call in its slot; `getInfo()` stays in a variable while its media are read; connections of a stream that
was restarted are gone and are made again; the process ends by `os._exit`, because no destructor of
pjsua2 may run at interpreter exit. An assert in it ends this process; the pool replaces the room.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

import pjsua2.pjsua2 as pj  # type: ignore[import-untyped]

from media.room_far_end import FarEnd, Line

LINES = 8
CALLS = 16
"""More than any build that was seen allows; the library's own refusal is the limit that counts."""
_TICK = 0.1
_ANSWER_WITHIN = 1.5
_UNDER_SPEECH = 0.35
"""Gain of the music for those who also hear speech (-9 dB): they can go on talking."""
_TONE_VOLUME = 8000
_G722_GAIN = 0.5
"""pjmedia decodes G.722 6 dB louder than what was said (measured against ffmpeg; it encodes correctly)."""


class RoomFault(Exception):
    """The room cannot do what it was told; the text goes into the reply."""


@dataclass(slots=True)
class Stream:
    """A line of a call and the port that occupies it.

    generation: counts the streams pjsua2 made for it; freed: when it was last left, as a sequence number
    """

    call: Trunkline
    index: int
    line: Line
    port: str = ""
    generation: int = 0
    freed: int = 0
    active: bool = False


class Trunkline(pj.Call):  # type: ignore[misc]
    """One call to the far end with `LINES` lines; never hung up."""

    def __init__(self, account: Any, lines: list[Line]) -> None:
        super().__init__(account)
        self.streams = [Stream(self, index, line) for index, line in enumerate(lines)]
        self.settled = asyncio.Event()
        self.confirmed = asyncio.Event()
        self.lost = False

    def onCallState(self, prm: Any) -> None:  # noqa: N802
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            self.confirmed.set()
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self.lost = True
            self.settled.set()
            self.confirmed.set()

    def onStreamCreated(self, prm: Any) -> None:  # noqa: N802
        self.streams[prm.streamIdx].generation += 1

    def onCallMediaState(self, prm: Any) -> None:  # noqa: N802
        info = self.getInfo()
        media = info.media
        for item in media:
            if item.index < len(self.streams):
                self.streams[item.index].active = (
                    item.status == pj.PJSUA_CALL_MEDIA_ACTIVE and item.dir == pj.PJMEDIA_DIR_ENCODING_DECODING
                )
        self.settled.set()


@dataclass(slots=True)
class Wanted:
    """The matrix that the last Wire command asked for."""

    pairs: frozenset[tuple[str, str]] = frozenset()
    music: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Sounds:
    """Sources that are no party; all loop or idle for ever and are connected on demand."""

    silence: Any
    music: Any
    beep: Any


_Connection = tuple[str, int, str, int, float]
"""source, its generation, sink, its generation, gain: differs when any end was restarted."""


class Mixer:
    """pjsua2 as a mixer of named ports. Create it in the process that uses it: never before a fork."""

    def __init__(self, music: str = "", clock_rate: int = 8000, jitter_ms: int = 0) -> None:
        self._music_file, self._calls_allowed = music, CALLS
        self._calls: list[Trunkline] = []
        self._ports: dict[str, Stream] = {}
        self._wanted = Wanted()
        self._made: set[_Connection] = set()
        self._sounds: _Sounds | None = None
        self._beeped: list[Stream] = []
        self._far_end = FarEnd()
        self._endpoint = pj.Endpoint()
        self._freed = itertools.count(1)
        self._start_library(clock_rate, jitter_ms)
        self._account = self._make_account()

    # ---- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Let the running loop drive pjsip, and open the far end."""
        loop = asyncio.get_running_loop()
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        far.bind(("127.0.0.1", 0))
        self._far_end.port = int(far.getsockname()[1])
        await loop.create_datagram_endpoint(lambda: self._far_end, sock=far)
        loop.add_reader(_descriptor_of(self._sip_port()), self._drain)

    def _start_library(self, clock_rate: int, jitter_ms: int) -> None:
        self._endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.uaConfig.userAgent = ""
        config.logConfig.level = config.logConfig.consoleLevel = 1
        config.medConfig.clockRate = clock_rate
        config.medConfig.audioFramePtime = config.medConfig.ptime = 20
        config.medConfig.noVad = True
        if jitter_ms:
            config.medConfig.jbInit = config.medConfig.jbMinPre = 20
            config.medConfig.jbMaxPre, config.medConfig.jbMax = jitter_ms, max(200, 2 * jitter_ms)
        self._endpoint.libInit(config)
        transport = pj.TransportConfig()
        transport.port, transport.boundAddress = 0, "127.0.0.1"
        self._transport = self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        self._endpoint.libStart()
        wanted = ("PCMA/8000", "PCMU/8000", "G722/16000")
        codecs = self._endpoint.codecEnum2()
        for codec in codecs:
            self._endpoint.codecSetPriority(codec.codecId, 200 if codec.codecId.startswith(wanted) else 0)

    def _make_account(self) -> Any:
        config = pj.AccountConfig()
        config.idUri = "sip:room@127.0.0.1"
        config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_INACTIVE
        media = config.mediaConfig
        media.transportConfig.boundAddress = "127.0.0.1"
        media.transportConfig.port = media.transportConfig.portRange = 0
        media.lockCodecEnabled = False
        media.streamKaEnabled = False
        account = pj.Account()
        account.create(config)
        return account

    def _sip_port(self) -> int:
        info = self._endpoint.transportGetInfo(self._transport)
        return int(str(info.localName).rsplit(":", 1)[1])

    def _tick(self) -> None:
        """pjsip's timers; only while there are calls."""
        self._endpoint.libHandleEvents(0)
        asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _drain(self) -> None:
        for _ in range(8):
            self._endpoint.libHandleEvents(0)

    # ---- streams ------------------------------------------------------------------------------------

    async def place(self, port: str, remote: int, codec: str) -> int:
        """See `room_protocol.Place`. RoomFault: no stream is free, or it does not work; nothing is kept."""
        known = port in self._ports
        stream = self._ports[port] if known else await self._free_stream()
        stream.port, self._ports[port] = port, stream
        try:
            await self._point(stream, remote, codec)
        except RoomFault:
            if not known:
                self._vacate(stream)
            raise
        self._rewire()
        return stream.line.local

    async def _point(self, stream: Stream, remote: int, codec: str) -> None:
        if (stream.line.remote, stream.line.codec) != (remote, codec):
            stream.line.remote, stream.line.codec = remote, codec
            await self._offer(stream.call)
            if remote and not stream.active:
                raise RoomFault(f"{codec} to port {remote} did not become active")
            self._level(stream)

    async def remove(self, port: str) -> None:
        stream = self._ports.get(port)
        if stream is not None:
            self._vacate(stream)
            self._rewire()
            await self._offer(stream.call)

    def _vacate(self, stream: Stream) -> None:
        del self._ports[stream.port]
        stream.port, stream.freed, stream.line.remote = "", next(self._freed), 0

    async def capacity(self) -> int:
        """Open calls until the library refuses; the number of streams, each seen working."""
        with contextlib.suppress(RoomFault):
            while True:
                port = f"probe{len(self._ports)}"
                await self.place(port, 9, "PCMA")
                print(len(self._ports), flush=True)
        return len(self._ports)

    async def _free_stream(self) -> Stream:
        """The one that was freed longest ago: the last occupant's sender may not have stopped yet, and
        pjmedia accepts a stranger while the rightful source is silent."""
        free = [stream for call in self._calls for stream in call.streams if not stream.port]
        if free:
            return min(free, key=lambda stream: stream.freed)
        if len(self._calls) >= self._calls_allowed:
            raise RoomFault("no stream is free")
        if self._sounds is None:
            self._sounds = self._start_sounds()
            self._tick()
        name = f"call{len(self._calls)}"
        lines = self._far_end.calls[name] = [Line() for _ in range(LINES)]
        call = Trunkline(self._account, lines)
        try:
            call.makeCall(f"sip:{name}@127.0.0.1:{self._far_end.port}", _audio_lines())
        except pj.Error as error:
            self._calls_allowed = len(self._calls)
            raise RoomFault(f"no stream is free: {error.reason}") from error
        self._calls.append(call)
        await self._settle(call)
        return call.streams[0]

    async def _offer(self, call: Trunkline) -> None:
        call.settled.clear()
        try:
            call.reinvite(_audio_lines())
        except pj.Error as error:
            raise RoomFault(f"pjsua2: {error.reason}") from error
        await self._settle(call)

    async def _settle(self, call: Trunkline) -> None:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await call.settled.wait()
                await call.confirmed.wait()
        except TimeoutError:
            raise RoomFault("the room's own call is not answered") from None
        if call.lost:
            raise RoomFault("the room's own call is lost")

    def _level(self, stream: Stream) -> None:
        if stream.active:
            media = stream.call.getAudioMedia(stream.index)
            # pjsua2 counts from the port: Tx is what it sends into the mixer
            media.adjustTxLevel(_G722_GAIN if stream.line.codec == "G722" else 1.0)

    # ---- the matrix ---------------------------------------------------------------------------------

    def wire(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._rewire()

    def tone(self, ports: tuple[str, ...], hz: int, ms: int) -> None:
        """A beep to these ports; one that still sounds is cut short."""
        if self._sounds is None:
            return
        beep = self._sounds.beep
        for stream in self._beeped:
            if stream.active:
                beep.stopTransmit(stream.call.getAudioMedia(stream.index))
        live = [self._ports[port] for port in ports if port in self._ports]
        self._beeped = [stream for stream in live if stream.active]
        for stream in self._beeped:
            beep.startTransmit(stream.call.getAudioMedia(stream.index))
        note = pj.ToneDesc()
        note.freq1, note.on_msec, note.off_msec, note.volume = hz, ms, 0, _TONE_VOLUME
        notes = pj.ToneDescVector()
        notes.append(note)
        beep.play(notes)

    def _rewire(self) -> None:
        """Make the mixer agree with what is wanted. Connections are asynchronous inside pjmedia, so our own
        record, and not the mixer's list, says what was made; a restarted stream has a new generation, which
        makes its old connections void."""
        live = {name: stream for name, stream in self._ports.items() if stream.active}
        goal = self._goal(live)
        current = {(name, stream.generation) for name, stream in live.items()}
        for connection in self._made - goal:
            source, source_generation, sink, sink_generation, _ = connection
            ends = ((source, source_generation), (sink, sink_generation))
            if all(end in current or end[0].startswith("*") for end in ends):
                self._media(source).stopTransmit(self._media(sink))
        for source, _, sink, _, gain in goal - self._made:
            parameter = pj.AudioMediaTransmitParam()
            parameter.level = gain
            self._media(source).startTransmit2(self._media(sink), parameter)
        self._made = goal

    def _goal(self, live: dict[str, Stream]) -> set[_Connection]:
        goal: set[_Connection] = set()
        listening: set[str] = set()
        for source, sink in self._wanted.pairs:
            if source in live and sink in live and source != sink:
                goal.add((source, live[source].generation, sink, live[sink].generation, 1.0))
                listening.add(sink)
        for name, stream in live.items():
            # without any source a stream stops sending RTP after 0.85 s
            goal.add(("*silence", 0, name, stream.generation, 1.0))
            if name in self._wanted.music and self._sounds is not None and self._sounds.music is not None:
                gain = _UNDER_SPEECH if name in listening else 1.0
                goal.add(("*music", 0, name, stream.generation, gain))
        return goal

    def _media(self, name: str) -> Any:
        assert self._sounds is not None
        match name:
            case "*silence":
                return self._sounds.silence
            case "*music":
                return self._sounds.music
        stream = self._ports[name]
        return stream.call.getAudioMedia(stream.index)

    def _start_sounds(self) -> _Sounds:
        """The mixer's clock starts here and not before: a warm room that waits costs next to nothing."""
        self._endpoint.audDevManager().setNullDev()
        descriptor = os.memfd_create("silence")
        os.write(descriptor, _silent_wave())
        silence = pj.AudioMediaPlayer()
        silence.createPlayer(f"/proc/self/fd/{descriptor}")
        music = None
        if self._music_file:
            music = pj.AudioMediaPlayer()
            try:
                music.createPlayer(self._music_file)
            except pj.Error as error:
                music = None
                print(f"music file unusable: {error.reason}", file=sys.stderr, flush=True)
        beep = pj.ToneGenerator()
        beep.createToneGenerator()
        return _Sounds(silence, music, beep)

    def statistics(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, stream in self._ports.items():
            if not stream.active:
                continue
            stat = stream.call.getStreamStat(stream.index)
            rtcp = stat.rtcp
            received, sent = rtcp.rxStat, rtcp.txStat
            jitter = received.jitterUsec
            result[name] = {
                "received": received.pkt,
                "sent": sent.pkt,
                "lost": received.loss,
                "discarded": received.discard,
                "jitter_ms": round(jitter.mean / 1000, 1),
            }
        return result


def _audio_lines() -> Any:
    parameter = pj.CallOpParam(True)
    parameter.opt.audioCount, parameter.opt.videoCount = LINES, 0
    return parameter


def _silent_wave(seconds: int = 1) -> bytes:
    data = bytes(16000 * seconds)
    form = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    head = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", len(form)) + form
    head += b"data" + struct.pack("<I", len(data))
    return head + data


def _descriptor_of(port: int) -> int:
    """The file descriptor of pjsip's own UDP socket, which pjsua2 does not tell."""
    for name in os.listdir("/proc/self/fd"):
        try:
            probe = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with probe:
            udp = (probe.family, probe.type) == (socket.AF_INET, socket.SOCK_DGRAM)
            if udp and probe.getsockname()[1] == port:
                return int(name)
    raise RoomFault(f"no socket on port {port}")
