"""The two descriptions between us and a browser: our offer, and what its answer must have.

JSEP (RFC 8829) for one audio stream: bundled, RTP and RTCP on one port, DTLS-SRTP by fingerprint (RFC 5763),
ICE with us as the lite side (RFC 8445 2.5), all candidates in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import MediaRejected, SdpError
from gateway.sip.sdp import AudioDescription, Codec, parse_description, printable
from media.engine_sdp import LOOPBACK, OPUS, PARKED

PROFILE: Final = "UDP/TLS/RTP/SAVPF"
EVENT_48: Final = "telephone-event/48000"
_HASHES: Final = frozenset({"sha-256", "sha-384", "sha-512"})
_ICE: Final = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PRINT: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31,63}")


@dataclass(frozen=True, slots=True)
class BrowserOutside:
    """Our end toward the browser, as rtpengine made it; a new connection has another one.

    mid: what rtpengine calls the stream (RFC 8843)
    opus, event_48, event_8: payload types of our offer; event_8 belongs to PCMA
    """

    address: str
    port: int
    ufrag: str
    password: str
    fingerprint: str
    mid: str
    opus: int
    event_48: int
    event_8: int

    def offer(self, session_id: int, version: int) -> bytes:
        """Opus first, PCMA for those who want it; exactly one candidate, as a lite agent has."""
        family = "IP6" if ":" in self.address else "IP4"
        lines = [
            "v=0",
            f"o=- {session_id} {version} IN {family} {self.address}",
            "s=-",
            "t=0 0",
            "a=ice-lite",
            f"a=group:BUNDLE {self.mid}",
            f"m=audio {self.port} {PROFILE} {self.opus} 8 {self.event_48} {self.event_8}",
            f"c=IN {family} {self.address}",
            f"a=mid:{self.mid}",
            "a=sendrecv",
            "a=rtcp-mux",
            f"a=rtpmap:{self.opus} {OPUS}",
            f"a=fmtp:{self.opus} minptime=20;useinbandfec=1",
            "a=rtpmap:8 PCMA/8000",
            f"a=rtpmap:{self.event_48} {EVENT_48}",
            f"a=fmtp:{self.event_48} 0-16",
            f"a=rtpmap:{self.event_8} telephone-event/8000",
            f"a=fmtp:{self.event_8} 0-16",
            "a=ptime:20",
            f"a=ice-ufrag:{self.ufrag}",
            f"a=ice-pwd:{self.password}",
            f"a=fingerprint:{self.fingerprint}",
            "a=setup:actpass",
            f"a=candidate:1 1 UDP 2130706431 {self.address} {self.port} typ host",
            "a=end-of-candidates",
        ]
        return "".join(line + "\r\n" for line in lines).encode()


@dataclass(frozen=True, slots=True)
class BrowserParty:
    """The browser as rtpengine is told, made of its answer.

    setup: its DTLS role, active or passive
    opus:  it speaks Opus, else PCMA
    number, event: payload types it uses for speech and for digits, None: it takes no digits
    """

    ufrag: str
    password: str
    fingerprint: str
    setup: str
    mid: str
    opus: bool
    number: int
    event: int | None

    def text(self) -> str:
        """Its answer as rtpengine shall see it. Where it is, ICE finds out; without any address in its
        place rtpengine plays no music.
        """
        clock = 48000 if self.opus else 8000
        formats = [self.number, *([] if self.event is None else [self.event])]
        lines = [
            "v=0",
            f"o=- 1 1 IN IP4 {LOOPBACK}",
            "s=-",
            f"c=IN IP4 {LOOPBACK}",
            "t=0 0",
            f"m=audio {PARKED} {PROFILE} {' '.join(map(str, formats))}",
            f"a=mid:{self.mid}",
            "a=sendrecv",
            "a=rtcp-mux",
            f"a=rtpmap:{self.number} {OPUS if self.opus else 'PCMA/8000'}",
            "a=ptime:20",
            f"a=ice-ufrag:{self.ufrag}",
            f"a=ice-pwd:{self.password}",
            f"a=fingerprint:{self.fingerprint}",
            f"a=setup:{self.setup}",
        ]
        if self.event is not None:
            lines += [f"a=rtpmap:{self.event} telephone-event/{clock}", f"a=fmtp:{self.event} 0-16"]
        return "".join(line + "\r\n" for line in lines)


def read_outside(sdp: str, event_8: int) -> BrowserOutside:
    """Our end in a description made by rtpengine. MediaRejected when it lacks something."""
    described = parse_description(sdp.encode())
    found = _attributes(sdp)
    try:
        return BrowserOutside(
            address=described.address,
            port=described.port,
            ufrag=found["ice-ufrag"][0],
            password=found["ice-pwd"][0],
            fingerprint=found["fingerprint"][0],
            mid=found["mid"][0],
            opus=_number(found, OPUS),
            event_48=_number(found, EVENT_48),
            event_8=event_8,
        )
    except (KeyError, StopIteration):
        raise MediaRejected("rtpengine made no description for a browser") from None


def read_answer(body: bytes, outside: BrowserOutside) -> tuple[BrowserParty, AudioDescription]:
    """A browser's answer to our offer. SdpError 400 or 488, its text says what is wrong."""
    described = parse_description(body)
    text = body.decode("utf-8", "replace")
    found = _attributes(text)
    if described.profile not in (PROFILE, "RTP/SAVPF"):
        raise SdpError(488, f"media profile {printable(described.profile)}, DTLS-SRTP is needed")
    if not described.rtcp_mux:
        raise SdpError(488, "the answer lacks a=rtcp-mux")
    ufrag, password = found.get("ice-ufrag", [""])[0], found.get("ice-pwd", [""])[0]
    if not _ICE.fullmatch(ufrag) or not _ICE.fullmatch(password) or len(password) < 22:
        raise SdpError(488, "the answer lacks ICE credentials")
    setup = found.get("setup", [""])[0]
    if setup not in ("active", "passive"):
        raise SdpError(488, "the answer's a=setup is neither active nor passive")
    formats = [int(one) for one in described.media[described.index].formats.split() if one.isdecimal()]
    spoken = [number for number in formats if number in (outside.opus, 8)]
    if not spoken:
        raise SdpError(488, "the answer has neither Opus nor PCMA")
    opus = spoken[0] == outside.opus
    event = outside.event_48 if opus else outside.event_8
    party = BrowserParty(
        ufrag=ufrag,
        password=password,
        fingerprint=_fingerprint(found.get("fingerprint", ())),
        setup=setup,
        mid=outside.mid,
        opus=opus,
        number=spoken[0],
        event=event if event in formats else None,
    )
    return party, described


def inside_view(described: AudioDescription, event: int | None) -> AudioDescription:
    """The browser as the other legs may know it: a party that speaks PCMA, digits as event `event`."""
    return AudioDescription(
        address=described.address,
        port=described.port,
        profile=PROFILE,
        codecs=((Codec.PCMA.payload_type, Codec.PCMA),),
        telephone_event=event,
        direction=described.direction,
        session_id=described.session_id,
        version=described.version,
        rtcp_mux=True,
    )


def _fingerprint(values: Sequence[str]) -> str:
    for value in values:
        name, _, digits = value.partition(" ")
        if name.lower() in _HASHES and _PRINT.fullmatch(digits.strip()):
            return f"{name.lower()} {digits.strip().upper()}"
    raise SdpError(488, "the answer lacks a usable a=fingerprint")


def _attributes(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in re.split(r"\r\n|\n|\r", text):
        if line.startswith("a="):
            name, _, value = line[2:].partition(":")
            found.setdefault(name.strip().lower(), []).append(value.strip())
    return found


def _number(found: dict[str, list[str]], encoding: str) -> int:
    """Payload type of an encoding; StopIteration when it is not there."""
    pairs = (value.split(None, 1) for value in found["rtpmap"])
    return next(int(pair[0]) for pair in pairs if pair[1].strip().lower() == encoding.lower())
