"""One rtpengine call as a leg's media: the party is tag `ext`, our side is `int`, plain RTP on loopback.

The recipes are those of facts/media-prototype.md section 1. rtpengine sees descriptions made here only, never
a line of foreign making, and never a direction: what flows is decided by where the inside half points.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gateway.errors import MediaRejected
from gateway.model import LegId
from gateway.sip.sdp import SUITE, Codec, parse_description
from media.rtpengine import NgClient, Reply, Value

log = logging.getLogger("tandem.media")

PARKED: Final = 9
"""Inside port of a leg that is connected to nothing (discard)."""
LOOPBACK: Final = "127.0.0.1"
LIFETIME: Final = "|2^31"
_FOREVER: Final = 1_000_000
_OPUS: Final = "opus/48000/2"
_CROSSING_CODECS: Final = (_OPUS, "telephone-event")

_LOCKED: Final = ("port-latching", "strict-source", "endpoint-learning-off")
_LEARNING: Final = ("port-latching", "strict-source", "endpoint-learning-heuristic")
_SDES: Final = (
    "lifetime",
    "pad",
    "no-AES_CM_128_HMAC_SHA1_32",
    "no-AEAD_AES_128_GCM",
    "no-AEAD_AES_256_GCM",
    "no-AES_192_CM_HMAC_SHA1_80",
    "no-AES_192_CM_HMAC_SHA1_32",
    "no-AES_256_CM_HMAC_SHA1_80",
    "no-AES_256_CM_HMAC_SHA1_32",
    "no-F8_128_HMAC_SHA1_80",
    "no-F8_128_HMAC_SHA1_32",
    "no-NULL_HMAC_SHA1_80",
    "no-NULL_HMAC_SHA1_32",
)


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
    tag: int = 1
    mki: tuple[int, int] | None = None
    rtcp_port: int | None = None
    rtcp_mux: bool = False

    def text(self, *, tag: int | None = None, reserved: Sequence[int] = ()) -> str:
        """Its description; `tag` replaces the crypto tag (an answer has to repeat the offer's).

        reserved: payload types that rtpengine shall not give to a codec of its own
        """
        lines = [f"a=rtpmap:{number} X-RESERVED-{number}/8000" for number in reserved]
        if self.key is not None:
            mki = f"|{self.mki[0]}:{self.mki[1]}" if self.mki else ""
            lines.append(
                f"a=crypto:{self.tag if tag is None else tag} {SUITE} inline:{self.key}{LIFETIME}{mki}"
            )
        if self.rtcp_mux:
            lines.append("a=rtcp-mux")
        elif self.rtcp_port is not None:
            lines.append(f"a=rtcp:{self.rtcp_port}")
        profile = "RTP/AVP" if self.key is None else "RTP/SAVP"
        return _description(
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


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to address the engine.

    interfaces: (inside, outside) names of its --interface options; None for an engine with a single one
    """

    interfaces: tuple[str, str] | None = ("int", "ext")


class EngineLeg:
    """The calls of the ng protocol for one leg. Not guarded: `Anchor` lets one command run at a time.

    established: an offer and an answer have gone through, so that it can be re-pointed
    injecting:   rtpengine's codec engine is on for this leg, so that it can make digits of its own
    """

    def __init__(self, ng: NgClient, leg: LegId, options: EngineOptions, *, srtp: bool, learn: bool) -> None:
        self._ng = ng
        self._leg = leg
        self._options = options
        self._ext_flags = _LEARNING if learn else _LOCKED
        self.srtp = srtp
        self.party: Party | None = None
        self.outside: Outside | None = None
        self.inside_port = 0
        self.target: Target | None = None
        self.established = False
        self.injecting = False

    # ---- we call the party -----------------------------------------------------------------------

    async def offer(self, codecs: Sequence[Codec], telephone_event: int | None, *, rtcp_mux: bool) -> Outside:
        """Reserve the leg's ports and key for an offer of ours."""
        inside = _description(LOOPBACK, PARKED, "RTP/AVP", codecs, telephone_event)
        reply = await self._send(
            "offer", from_tag="int", sdp=inside, **self._toward_ext(first=True, mux=rtcp_mux)
        )
        self.outside = _outside(reply)
        return self.outside

    async def answered(self, party: Party) -> None:
        """The party answered our offer (or another fork of it did, or it answered a refresh)."""
        if self.established:
            self.party = party
            await self.point(self.target)
            return
        reply = await self._send(
            "answer", from_tag="int", to_tag="ext", sdp=party.text(), flags=self._ext_flags
        )
        self.party = party
        self.inside_port = _outside(reply).port
        self.established = True

    # ---- the party calls us ----------------------------------------------------------------------

    async def offered(self, party: Party) -> None:
        """The party's offer; `answer` has to follow."""
        first = self.party is None
        reply = await self._send(
            "offer",
            from_tag="ext",
            to_tag=None if first else "int",
            sdp=party.text(),
            **self._toward_int(first=first),
        )
        self.party = party
        self.inside_port = _outside(reply).port

    async def answer(self, codec: Codec) -> Outside:
        """Our answer to `offered`, spoken in `codec`; patched as before when it was patched."""
        party = self._known_party()
        target = self.target
        self.party = replace(party, codecs=(codec,))
        direct = target is not None and target.codec is codec and target.crossing is None
        spoken = target if target is not None and direct else Target(PARKED, codec, party.telephone_event)
        reply = await self._send(
            "answer",
            from_tag="ext",
            to_tag="int",
            sdp=_description(LOOPBACK, spoken.port, "RTP/AVP", [codec], spoken.telephone_event),
            flags=(*_LOCKED, *self._more_flags),
            SDES=_SDES,
        )
        outside = self._unchanged(_outside(reply))
        self.established = True
        if target is not None and not direct:
            await self.point(target)
        return outside

    # ---- patching --------------------------------------------------------------------------------

    async def point(self, target: Target | None) -> None:
        """Connect the inside half to `target`, None for nothing; before our first answer: then."""
        self.target = target
        if not self.established:
            return
        if target is not None and target.crossing is not None:
            self._unchanged(await self._cross(target, target.crossing))
        else:
            self._unchanged(await self._point(target))

    async def _point(self, target: Target | None) -> Outside:
        party = self._known_party()
        codec = party.codecs[0]
        spoken = target or Target(PARKED, codec, party.telephone_event)
        conversion: dict[str, Value] | None = None
        if spoken.codec is not codec:
            conversion = {"mask": [str(spoken.codec)], "transcode": [str(codec)]}
        reply = await self._send(
            "offer",
            from_tag="int",
            to_tag="ext",
            sdp=_description(LOOPBACK, spoken.port, "RTP/AVP", [spoken.codec], spoken.telephone_event),
            codec=conversion,
            **self._toward_ext(first=False, mux=False),
        )
        outside = _outside(reply)
        await self._send(
            "answer",
            from_tag="int",
            to_tag="ext",
            sdp=party.text(tag=outside.tag),
            flags=(*self._ext_flags, *self._more_flags),
        )
        return outside

    async def _cross(self, target: Target, crossing: Crossing) -> Outside:
        """As `_point`, the other way round: only in an offer of the party does its own event number stay."""
        party = self._known_party()
        reserved = [n for n in crossing.reserved if n != party.telephone_event]
        reply = await self._send(
            "offer",
            from_tag="ext",
            to_tag="int",
            sdp=party.text(reserved=reserved),
            codec={"mask": [str(party.codecs[0]), "telephone-event"], "transcode": _CROSSING_CODECS},
            **self._toward_int(first=False),
        )
        formats = f"{crossing.codec_number} {crossing.event_number}"
        if f" RTP/AVP {formats}\r\n" not in str(reply["sdp"]):
            raise MediaRejected("rtpengine numbers the inside payload types otherwise")
        reply = await self._send(
            "answer",
            from_tag="ext",
            to_tag="int",
            sdp=_crossing_description(target.port, crossing),
            flags=(*_LOCKED, *self._more_flags),
            SDES=_SDES,
        )
        return _outside(reply)

    async def rekey(self) -> Outside:
        """A new key of ours on the same port: rtpengine gives one when the leg has been plain RTP in between.

        Nothing is sent outside meanwhile; until the party knows the new key it cannot decode what we send.
        """
        party, target = self._known_party(), self.target
        if self.outside is None or not (self.srtp and self.established):
            raise MediaRejected("a leg without SRTP has no key")
        try:
            self.srtp, self.party = False, replace(party, key=None, mki=None)
            await self._point(target)
        finally:
            self.srtp, self.party = True, party
        made = await self._point(target)
        if (made.address, made.port) != (self.outside.address, self.outside.port):
            raise MediaRejected("rtpengine changed the leg's outside port")
        self.outside = made
        await self.point(target)
        return made

    async def unlock(self) -> None:
        """Forget both far ends for a moment; `point` follows.

        rtpengine locks a source when its address changes, and restores calls without their locks (facts
        media-prototype 10).
        """
        party = self._known_party()
        self.party = replace(party, port=PARKED, rtcp_port=None)
        try:
            await self._point(None)
        finally:
            self.party = party

    # ---- sounds of rtpengine's own ------------------------------------------------------------------

    async def play(self, file: Path, *, repeat: bool) -> None:
        """Play a file to the party. It is added to what is forwarded: park first."""
        await self._ng.command(
            "play media",
            call_id=self._leg,
            from_tag="ext",
            file=str(file),
            repeat_times=_FOREVER if repeat else None,
        )

    async def stop_playing(self) -> None:
        await self._ng.command("stop media", call_id=self._leg, from_tag="ext")

    async def inject(self) -> bool:
        """Switch on what digits need (0.2 % of a core, for good); False when it was on already."""
        if self.injecting:
            return False
        self.injecting = True
        await self.point(self.target)
        return True

    async def send_digit(self, code: int, ms: int, volume: int = 10) -> None:
        """One telephone-event to the party, in the stream of whom it is connected to; after `inject`."""
        await self._ng.command(
            "play DTMF",
            call_id=self._leg,
            from_tag="int",
            code=code,
            duration=ms,
            volume=volume,
        )

    # ---- everything else -------------------------------------------------------------------------

    async def query(self) -> Reply:
        return await self._ng.command("query", call_id=self._leg)

    async def delete(self) -> Reply:
        """End it at once; the answer has the statistics (a from-tag is needed for that).

        A party that never described itself is no tag yet, and a delete by an unknown tag deletes nothing.
        """
        tag = "ext" if self.party is not None else "int"
        return await self._ng.command("delete", call_id=self._leg, from_tag=tag, delete_delay=0)

    async def _send(self, name: str, **keys: Value | None) -> Reply:
        reply = await self._ng.command(
            name,
            call_id=self._leg,
            ICE="remove",
            DTLS="off",
            replace=("origin", "session-connection"),
            **keys,
        )
        if not reply.get("sdp"):
            raise MediaRejected(f"rtpengine {name}: no description in the answer")
        return reply

    def _toward_ext(self, *, first: bool, mux: bool) -> dict[str, Value | None]:
        return {
            "rtcp_mux": (["offer"] if mux else ["demux"]) if first else ["accept"],
            "transport_protocol": "RTP/SAVP" if self.srtp else "RTP/AVP",
            "SDES": _SDES,
            "direction": self._direction(first, outward=True),
            "flags": (*_LOCKED, *self._more_flags),
        }

    def _toward_int(self, *, first: bool) -> dict[str, Value | None]:
        return {
            "rtcp_mux": ["demux"],
            "transport_protocol": "RTP/AVP",
            "SDES": _SDES,
            "direction": self._direction(first, outward=False),
            "flags": (*self._ext_flags, *self._more_flags),
        }

    @property
    def _more_flags(self) -> tuple[str, ...]:
        return ("inject-DTMF",) if self.injecting else ()

    def _direction(self, first: bool, *, outward: bool) -> list[str] | None:
        if not first or self._options.interfaces is None:
            return None
        inside, outside = self._options.interfaces
        return [inside, outside] if outward else [outside, inside]

    def _known_party(self) -> Party:
        if self.party is None:
            raise MediaRejected("the party has not described its media yet")
        return self.party

    def _unchanged(self, outside: Outside) -> Outside:
        if self.outside is not None and self.outside.fixed != outside.fixed:
            log.error("outside_changed leg=%s port=%s was=%s", self._leg, outside.port, self.outside.port)
            raise MediaRejected("rtpengine changed the leg's outside port or key")
        if self.outside is None:
            self.outside = outside
        return outside


def _description(
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


def _crossing_description(port: int, crossing: Crossing) -> str:
    codec, event = crossing.codec_number, crossing.event_number
    return (
        f"v=0\r\no=- 1 1 IN IP4 {LOOPBACK}\r\ns=-\r\nc=IN IP4 {LOOPBACK}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {codec} {event}\r\na=rtpmap:{codec} {_OPUS}\r\n"
        f"a=rtpmap:{event} telephone-event/48000\r\na=fmtp:{event} 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
    )


def _outside(reply: Reply) -> Outside:
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
