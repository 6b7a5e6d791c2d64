"""A telephone's media half: sends a tone as RTP or SRTP, records what it hears, presses and hears
digits.

SRTP is libsrtp's (pylibsrtp), so it is strict where our own side might be lenient: a roll-over counter
that does not match, a wrong key or a replayed packet is counted as `undecodable` and not heard.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import re
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import pylibsrtp

from tests.peers import tone as tones
from tests.peers.tone import PACKET, PAYLOAD_TYPES, RATE, Pcm

DIGITS = "0123456789*#ABCD"
_KEY_LENGTH = 30
_TAG_LENGTH = 10


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet that arrived (and could be decoded): `at` is loop time in seconds."""

    at: float
    source: tuple[str, int]
    ssrc: int
    sequence: int
    timestamp: int
    payload_type: int
    marker: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class Digit:
    """One completed telephone-event: `ms` its duration, `at` when its first packet came."""

    digit: str
    ms: int
    payload_type: int
    at: float


@dataclass(slots=True)
class _Pressing:
    code: int
    ticks: int
    done: asyncio.Future[None]
    timestamp: int = -1
    elapsed: int = 0


class RtpPeer(asyncio.DatagramProtocol):
    """One party. Open it with `await RtpPeer.open(...)`, end it with `await close()`.

    tone:   frequency it sends in Hz, 0 for digital silence; change it with `say`
    codec:  PCMA, PCMU or G722, what it sends; it understands all three by their static payload types
    srtp:   offer and demand SRTP with AES_CM_128_HMAC_SHA1_80
    mki:    bytes put before the authentication tag of what it sends (RFC 3711 3.1), whatever the SDP says
    rtcp:   seconds between sender reports, 0 for none
    drop:   (attribute) share of its packets that get lost on the way, 0..1
    """

    def __init__(self) -> None:
        self.tone = 440.0
        self.codec = "PCMA"
        self.telephone_event: int | None = 101
        self.srtp = False
        self.mki = b""
        self.incoming_mki = 0
        self.rtcp_interval = 0.0
        self.rtcp_mux = True
        self.host = "127.0.0.1"
        self.port = 0
        self.local_key = os.urandom(_KEY_LENGTH)
        self.remote_key: bytes | None = None
        self.remote: tuple[str, int] | None = None
        self.remote_rtcp: tuple[str, int] | None = None
        self.ssrc = random.getrandbits(32)
        self.sequence = random.getrandbits(14)
        self.timestamp = random.getrandbits(30)
        self.session_id = random.getrandbits(40)
        self.version = 1
        self.packets: list[Packet] = []
        self.rtcp_heard: list[bytes] = []
        self.undecodable = 0
        self.sent = 0
        self.sending = True
        self.drop = 0.0
        self._owed = 0.0
        self._sender: pylibsrtp.Session | None = None
        self._receiver: pylibsrtp.Session | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._rtcp_transport: asyncio.DatagramTransport | None = None
        self._task: asyncio.Task[None] | None = None
        self._frames: list[bytes] = []
        self._position = 0
        self._pressing: deque[_Pressing] = deque()
        self._arrived = asyncio.Event()
        self._sources: dict[int, _Source] = {}
        self._octets = 0

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
        """Bind an even port and its odd neighbour; it sends as soon as `follow` or `connect` said where."""
        self = cls()
        self.codec, self.telephone_event, self.srtp, self.mki = codec, telephone_event, srtp, mki
        self.rtcp_interval, self.rtcp_mux, self.host = rtcp, rtcp_mux, host
        rtp, control = _pair(host)
        self.port = rtp.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=rtp)
        self._rtcp_transport, _ = await loop.create_datagram_endpoint(lambda: _Control(self), sock=control)
        self.use_key(self.local_key)
        self.say(tone)
        self._task = loop.create_task(self._run())
        return self

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for pressing in self._pressing:
            pressing.done.cancel()
        for transport in (self._transport, self._rtcp_transport):
            if transport is not None:
                transport.close()
        await asyncio.sleep(0)

    # ---- what it says -------------------------------------------------------------------------------

    def say(self, tone: float) -> None:
        """Send another frequency from the next packet on; 0 is digital silence."""
        self.tone = tone
        self._frames = tones.frames(self.codec, tone)
        self._position = 0

    def use_codec(self, codec: str) -> None:
        """Send with another codec from the next packet on."""
        self.codec = codec
        self.say(self.tone)

    def use_key(self, key: bytes) -> None:
        """A new key for what we send: its roll-over counter starts at 0 again."""
        self.local_key = key
        self._sender = _session(key, outbound=True) if self.srtp else None

    def pause(self) -> None:
        """Send nothing; timestamps go on."""
        self.sending = False

    def resume(self) -> None:
        self.sending = True

    async def wrap_sequence(self) -> None:
        """Send real packets with great steps of the sequence number until it has wrapped once (ROC + 1).

        With time in between: two that a relay's threads swap would be 4,096 packets apart, and the receiver's
        replay list would refuse everything for as long.
        """
        start = self.sequence
        for step in range(0x1000, 0x10001, 0x1000):
            self.sequence = (start + step) & 0xFFFF
            self._send_audio()
            await asyncio.sleep(0.01)

    async def press(self, digit: str, ms: int = 160) -> None:
        """Send an RFC 4733 event in place of speech; returns when its three end packets have gone."""
        done = asyncio.get_running_loop().create_future()
        self._pressing.append(_Pressing(DIGITS.index(digit), max(2, ms // 20), done))
        await asyncio.wait_for(done, 5 + ms / 1000)

    # ---- session descriptions ------------------------------------------------------------------------

    def description(
        self,
        direction: str = "sendrecv",
        *,
        crypto: str | None = None,
        profile: str | None = None,
        codecs: tuple[str, ...] | None = None,
        extra: str = "",
        session: str = "",
    ) -> bytes:
        """SDP of this party.

        crypto: replaces the text of the crypto lines; extra, session: more lines for media and session
        level, each ended by CRLF; codecs: names in the order offered, default the one it sends
        """
        names = codecs or (self.codec,)
        numbers = [PAYLOAD_TYPES[name] for name in names]
        lines = [f"a=rtpmap:{PAYLOAD_TYPES[name]} {name}/8000" for name in names]
        if self.telephone_event is not None:
            numbers.append(self.telephone_event)
            lines += [
                f"a=rtpmap:{self.telephone_event} telephone-event/8000",
                f"a=fmtp:{self.telephone_event} 0-16",
            ]
        if self.srtp:
            lines += (crypto if crypto is not None else self.crypto_line()).splitlines()
        if self.rtcp_mux:
            lines.append("a=rtcp-mux")
        else:
            lines.append(f"a=rtcp:{self.port + 1}")
        media = profile or ("RTP/SAVP" if self.srtp else "RTP/AVP")
        text = (
            f"v=0\r\no=- {self.session_id} {self.version} IN IP4 {self.host}\r\n"
            f"s=-\r\nc=IN IP4 {self.host}\r\nt=0 0\r\n"
            f"{session}m=audio {self.port} {media} {' '.join(map(str, numbers))}\r\n"
            + "".join(line + "\r\n" for line in lines)
            + f"a=ptime:20\r\n{extra}a={direction}\r\n"
        )
        return text.encode()

    def crypto_line(self, tag: int = 1, suite: str = "AES_CM_128_HMAC_SHA1_80", tail: str = "|2^31") -> str:
        """One `a=crypto` line with our key."""
        return f"a=crypto:{tag} {suite} inline:{base64.b64encode(self.local_key).decode()}{tail}"

    def follow(self, sdp: bytes) -> None:
        """Send to, and decode from, the party that `sdp` describes. The same key again keeps its counter."""
        text = sdp.decode()
        host = re.findall(r"^c=IN IP4 (\S+)", text, re.M)[-1]
        port = int(re.findall(r"^m=audio (\d+)", text, re.M)[0])
        key = re.search(r"^a=crypto:\d+ AES_CM_128_HMAC_SHA1_80 inline:([^|\s]+)", text, re.M)
        self.connect(host, port, base64.b64decode(key.group(1)) if key else None)
        control = re.search(r"^a=rtcp:(\d+)", text, re.M)
        other = int(control.group(1)) if control else port + 1
        self.remote_rtcp = (host, port if self.rtcp_mux and "a=rtcp-mux" in text else other)

    def connect(self, host: str, port: int, key: bytes | None = None) -> None:
        """As `follow`, without a description."""
        self.remote = (host, port)
        self.remote_rtcp = (host, port if self.rtcp_mux else port + 1)
        if self.srtp and key != self.remote_key:
            self._receiver = _session(key, outbound=False) if key is not None else None
        self.remote_key = key

    # ---- what it hears -------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Loop time, the clock of `Packet.at`."""
        return asyncio.get_running_loop().time()

    def heard(self, since: float = 0.0, until: float = float("inf")) -> list[Packet]:
        """Audio packets (no events) that came in `since <= at < until`."""
        known = PAYLOAD_TYPES.values()
        return [p for p in self.packets if since <= p.at < until and p.payload_type in known]

    def pcm(self, since: float = 0.0, until: float = float("inf")) -> Pcm:
        """What came in that time, decoded, in order of arrival (two interleaved sources stay interleaved)."""
        return _pcm(self.heard(since, until))

    def first_heard(self, hz: float, since: float = 0.0) -> float | None:
        """When the first packet came that begins 60 ms of the tone `hz`; None when it never did."""
        packets = self.heard(since)
        for index in range(len(packets) - 2):
            if tones.hears(_pcm(packets[index : index + 3]), hz):
                return packets[index].at
        return None

    async def hears(self, hz: float, within: float = 5.0, *, last: int = 8) -> float:
        """Wait until the newest `last` packets are the tone `hz`; the loop time, or AssertionError."""
        begun = self.now
        while True:
            packets = self.heard(begun)[-last:]
            if len(packets) == last and tones.hears(_pcm(packets), hz):
                return packets[-1].at
            remaining = begun + within - self.now
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), max(remaining, 0.001))
            except TimeoutError:
                heard = tones.strongest(_pcm(self.heard(begun)[-50:]))
                raise AssertionError(
                    f"no {hz} Hz within {within} s: {len(self.heard(begun))} packets,"
                    f" strongest {heard:.0f} Hz, undecodable {self.undecodable}"
                ) from None

    async def listen(self, seconds: float) -> Pcm:
        """Exactly what comes in the next `seconds`."""
        begun = self.now
        await asyncio.sleep(seconds)
        return self.pcm(begun)

    @property
    def digits(self) -> list[Digit]:
        """Completed telephone-events in order, each once however many packets it had."""
        found: dict[tuple[int, int], list[Packet]] = {}
        for packet in self.packets:
            if packet.payload_type == self.telephone_event and len(packet.payload) >= 4:
                found.setdefault((packet.ssrc, packet.timestamp), []).append(packet)
        return [
            Digit(
                DIGITS[packets[0].payload[0]],
                max(int.from_bytes(p.payload[2:4], "big") for p in packets) * 1000 // RATE,
                packets[0].payload_type,
                packets[0].at,
            )
            for packets in found.values()
            if any(p.payload[1] & 0x80 for p in packets)
        ]

    async def hears_digits(self, digits: str, within: float = 5.0) -> list[Digit]:
        """Wait until as many digits as given have ended; asserts that they are these, returns them."""
        deadline = self.now + within
        while len(self.digits) < len(digits) and self.now < deadline:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), max(deadline - self.now, 0.001))
        assert "".join(d.digit for d in self.digits) == digits, f"heard {self.digits}, wanted {digits}"
        return self.digits

    def unknown(self, since: float = 0.0) -> list[Packet]:
        """Packets of a payload type that is neither a codec of ours nor our telephone-event."""
        mine = {*PAYLOAD_TYPES.values(), self.telephone_event}
        return [p for p in self.packets if p.at >= since and p.payload_type not in mine]

    # ---- wire -----------------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if len(data) >= 2 and 192 <= data[1] <= 223:
            self._rtcp_received(data)
            return
        if self.srtp:
            if self._receiver is None:
                self.undecodable += 1
                return
            if self.incoming_mki:
                data = data[: -_TAG_LENGTH - self.incoming_mki] + data[-_TAG_LENGTH:]
            try:
                data = self._receiver.unprotect(data)
            except pylibsrtp.Error:
                self.undecodable += 1
                return
        if len(data) < 12 or data[0] >> 6 != 2:
            self.undecodable += 1
            return
        kind, sequence, timestamp, ssrc = struct.unpack("!BHII", data[1:12])
        packet = Packet(
            self.now, (addr[0], addr[1]), ssrc, sequence, timestamp, kind & 0x7F, bool(kind & 0x80), data[12:]
        )
        self.packets.append(packet)
        self._sources.setdefault(ssrc, _Source(sequence)).note(packet)
        self._arrived.set()

    def error_received(self, exc: Exception) -> None:
        """ICMP errors of a far port that is closed already are of no interest."""

    def _rtcp_received(self, data: bytes) -> None:
        if self.srtp:
            try:
                data = self._receiver.unprotect_rtcp(data) if self._receiver else b""
            except pylibsrtp.Error:
                return
        if len(data) >= 8:
            self.rtcp_heard.append(data)
            if data[1] == 200 and len(data) >= 28:
                ssrc = int.from_bytes(data[4:8], "big")
                if ssrc in self._sources:
                    self._sources[ssrc].sender_report = (int.from_bytes(data[10:14], "big"), self.now)

    async def _run(self) -> None:
        due = self.now
        report_due = due + self.rtcp_interval
        while True:
            due += 0.02
            await asyncio.sleep(max(0.0, due - self.now))
            self._tick()
            if self.rtcp_interval and self.now >= report_due:
                report_due += self.rtcp_interval
                self._send_report()

    def _tick(self) -> None:
        self.timestamp = (self.timestamp + PACKET) & 0xFFFFFFFF
        if self.remote is None:
            return
        if self._pressing:
            self._send_event(self._pressing[0])
        elif self.sending:
            self._send_audio()

    def _send_audio(self) -> None:
        frame = self._frames[self._position % len(self._frames)]
        self._position += 1
        self.sequence = (self.sequence + 1) & 0xFFFF
        self._owed += self.drop
        if self._owed >= 1:
            self._owed -= 1
            return
        self._send(PAYLOAD_TYPES[self.codec], self.timestamp, frame)

    def _send_event(self, pressing: _Pressing) -> None:
        assert self.telephone_event is not None, "this peer has no telephone-event"
        first = pressing.timestamp < 0
        if first:
            pressing.timestamp = self.timestamp
        pressing.elapsed += 1
        end = pressing.elapsed >= pressing.ticks
        payload = struct.pack("!BBH", pressing.code, 0x80 | 10 if end else 10, pressing.elapsed * PACKET)
        for _ in range(3 if end else 1):
            self.sequence = (self.sequence + 1) & 0xFFFF
            self._send(self.telephone_event, pressing.timestamp, payload, marker=first)
        if end:
            self._pressing.popleft()
            if not pressing.done.done():
                pressing.done.set_result(None)

    def _send(self, payload_type: int, timestamp: int, payload: bytes, *, marker: bool = False) -> None:
        if self._transport is None or self.remote is None:
            return
        header = struct.pack(
            "!BBHII", 0x80, (0x80 if marker else 0) | payload_type, self.sequence, timestamp, self.ssrc
        )
        data = header + payload
        if self._sender is not None:
            data = self._sender.protect(data)
            if self.mki:
                data = data[:-_TAG_LENGTH] + self.mki + data[-_TAG_LENGTH:]
        self._transport.sendto(data, self.remote)
        self.sent += 1
        self._octets += len(payload)

    def send_raw(self, data: bytes) -> None:
        """A datagram of the caller's making, from our port to where we send."""
        assert self._transport is not None
        assert self.remote is not None
        self._transport.sendto(data, self.remote)

    def _send_report(self) -> None:
        if self.remote_rtcp is None or self._transport is None or self._rtcp_transport is None:
            return
        seconds = time.time() + 2208988800
        blocks = b"".join(source.report(ssrc, self.now) for ssrc, source in list(self._sources.items())[-1:])
        count = len(blocks) // 24
        report = struct.pack(
            "!BBHIIIIII",
            0x80 | count,
            200,
            6 + 6 * count,
            self.ssrc,
            int(seconds),
            int(seconds % 1 * 2**32),
            self.timestamp,
            self.sent,
            self._octets,
        )
        name = b"peer"
        chunk = struct.pack("!IBB", self.ssrc, 1, len(name)) + name
        chunk += bytes(4 - len(chunk) % 4)
        data = report + blocks + struct.pack("!BBH", 0x81, 202, len(chunk) // 4) + chunk
        if self._sender is not None:
            data = self._sender.protect_rtcp(data)
        (self._transport if self.rtcp_mux else self._rtcp_transport).sendto(data, self.remote_rtcp)


def _pcm(packets: list[Packet]) -> Pcm:
    return tones.decode([(p.payload_type, p.payload) for p in packets])


class _Control(asyncio.DatagramProtocol):
    """The RTCP port of a peer that does not multiplex."""

    def __init__(self, peer: RtpPeer) -> None:
        self._peer = peer

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._peer._rtcp_received(data)

    def error_received(self, exc: Exception) -> None:
        """As on the RTP port."""


class _Source:
    """Reception figures of one SSRC for our report blocks (RFC 3550 6.4.1)."""

    def __init__(self, sequence: int) -> None:
        self.base = self.highest = sequence
        self.cycles = 0
        self.received = 0
        self.jitter = 0.0
        self.transit: float | None = None
        self.before = (0, 0)
        self.sender_report: tuple[int, float] | None = None

    def note(self, packet: Packet) -> None:
        self.received += 1
        if 0 < (packet.sequence - self.highest) & 0xFFFF < 0x8000:
            if packet.sequence < self.highest:
                self.cycles += 0x10000
            self.highest = packet.sequence
        transit = packet.at * RATE - packet.timestamp
        if self.transit is not None:
            self.jitter += (min(abs(transit - self.transit), RATE) - self.jitter) / 16
        self.transit = transit

    def report(self, ssrc: int, now: float) -> bytes:
        highest = self.cycles + self.highest
        expected = highest - self.base + 1
        lost = max(0, expected - self.received)
        more, got = expected - self.before[0], self.received - self.before[1]
        fraction = max(0, min(255, (more - got) * 256 // more)) if more > 0 else 0
        self.before = (expected, self.received)
        last, delay = 0, 0
        if self.sender_report is not None:
            last, delay = self.sender_report[0], int((now - self.sender_report[1]) * 65536)
        return struct.pack("!IIIIII", ssrc, fraction << 24 | lost, highest, int(self.jitter), last, delay)


def _pair(host: str) -> tuple[socket.socket, socket.socket]:
    """An even port and its odd neighbour, both bound."""
    for _ in range(200):
        rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            rtp.bind((host, 0))
            if rtp.getsockname()[1] % 2 == 0:
                control.bind((host, rtp.getsockname()[1] + 1))
                rtp.setblocking(False)
                control.setblocking(False)
                return rtp, control
        except OSError:
            pass
        rtp.close()
        control.close()
    raise OSError("no free pair of ports")


def _session(key: bytes, *, outbound: bool) -> pylibsrtp.Session:
    kind = pylibsrtp.Policy.SSRC_ANY_OUTBOUND if outbound else pylibsrtp.Policy.SSRC_ANY_INBOUND
    policy = pylibsrtp.Policy(key=key, ssrc_type=kind)
    policy.allow_repeat_tx = True
    return pylibsrtp.Session(policy)
