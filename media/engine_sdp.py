"""What rtpengine is told about a leg's two halves, and what it tells us: values and their descriptions.

rtpengine sees descriptions made here only, never a line of foreign making.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.sip.sdp import SUITE, Codec, parse_description
from media.rtpengine import Reply

PARKED: Final = 9
"""Inside port of a leg that is connected to nothing (discard)."""
LOOPBACK: Final = "127.0.0.1"
LIFETIME: Final = "|2^31"
OPUS: Final = "opus/48000/2"


@dataclass(frozen=True, slots=True)
class Party:
    """The external party as rtpengine is told: what was admitted, no more.

    codecs: one once it is agreed, several only while we offer
    key:    base64 of its SRTP key and salt, None for plain RTP; mki: (value, length) that its packets carry
    """

    address: str
    port: int
    codecs: tuple[Codec, ...]
    telephone_event: int | None = None
    key: str | None = None
    mki: tuple[int, int] | None = None
    rtcp_port: int | None = None
    rtcp_mux: bool = False

    def text(self, tag: int, *, reserved: Sequence[int] = ()) -> str:
        """Its description. The crypto tag is ours to choose: rtpengine takes another one for a new key.

        reserved: payload types that rtpengine shall not give to a codec of its own
        """
        lines = [f"a=rtpmap:{number} X-RESERVED-{number}/8000" for number in reserved]
        if self.key is not None:
            mki = f"|{self.mki[0]}:{self.mki[1]}" if self.mki else ""
            lines.append(f"a=crypto:{tag} {SUITE} inline:{self.key}{LIFETIME}{mki}")
        if self.rtcp_mux:
            lines.append("a=rtcp-mux")
        elif self.rtcp_port is not None:
            lines.append(f"a=rtcp:{self.rtcp_port}")
        profile = "RTP/AVP" if self.key is None else "RTP/SAVP"
        return description(
            self.address, self.port, profile, self.codecs, self.telephone_event, lines, reserved=reserved
        )


@dataclass(frozen=True, slots=True)
class Crossing:
    """What two legs speak inside when their telephone-events have different numbers.

    rtpengine passes event packets on unchanged, also while it converts speech, unless the clock changes with
    the codec. So both legs speak Opus at 48000 inside: each renumbers and rescales between that and its
    party. It costs 5 % of a core: a leg that is still to be called is better offered the other one's number.
    """

    codec_number: int
    event_number: int
    reserved: tuple[int, ...]


def crossing(one: int, other: int) -> Crossing:
    """For parties with these event numbers; rtpengine takes the first free ones from 96 on."""
    first = next(n for n in range(96, 127) if not {n, n + 1} & {one, other})
    return Crossing(first, first + 1, tuple(range(96, first)))


@dataclass(frozen=True, slots=True)
class Target:
    """What the inside half is connected to: a port on 127.0.0.1 and what is spoken there."""

    port: int
    codec: Codec
    telephone_event: int | None
    crossing: Crossing | None = None


@dataclass(frozen=True, slots=True)
class Outside:
    """Our end toward the party, as rtpengine made it; it may not change while the leg lives (T21).

    key: base64 of our SRTP key and salt, None for plain RTP; tag: of its crypto line
    """

    address: str
    port: int
    key: str | None
    tag: int
    rtcp_port: int
    rtcp_mux: bool

    @property
    def fixed(self) -> tuple[str, int, str | None]:
        return self.address, self.port, self.key


def description(
    address: str,
    port: int,
    profile: str,
    codecs: Sequence[Codec],
    telephone_event: int | None,
    attributes: Sequence[str] = (),
    reserved: Sequence[int] = (),
) -> str:
    family = "IP6" if ":" in address else "IP4"
    formats = [*(codec.payload_type for codec in codecs), *reserved]
    maps = [f"a=rtpmap:{codec.payload_type} {codec.rtpmap}" for codec in codecs]
    if telephone_event is not None:
        formats.append(telephone_event)
        maps += [f"a=rtpmap:{telephone_event} telephone-event/8000", f"a=fmtp:{telephone_event} 0-16"]
    lines = [
        "v=0",
        f"o=- 1 1 IN {family} {address}",
        "s=-",
        f"c=IN {family} {address}",
        "t=0 0",
        f"m=audio {port} {profile} {' '.join(map(str, formats))}",
        *maps,
        "a=ptime:20",
        "a=sendrecv",
        *attributes,
    ]
    return "".join(line + "\r\n" for line in lines)


def crossing_description(port: int, crossing: Crossing) -> str:
    codec, event = crossing.codec_number, crossing.event_number
    return (
        f"v=0\r\no=- 1 1 IN IP4 {LOOPBACK}\r\ns=-\r\nc=IN IP4 {LOOPBACK}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {codec} {event}\r\na=rtpmap:{codec} {OPUS}\r\n"
        f"a=rtpmap:{event} telephone-event/48000\r\na=fmtp:{event} 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
    )


def read_outside(reply: Reply) -> Outside:
    """Address, port and key in a description made by rtpengine."""
    described = parse_description(str(reply["sdp"]).encode())
    line = described.crypto[0] if described.crypto else None
    return Outside(
        address=described.address,
        port=described.port,
        key=line.key if line else None,
        tag=line.tag if line else 0,
        rtcp_port=described.rtcp_port or described.port + 1,
        rtcp_mux=described.rtcp_mux,
    )
