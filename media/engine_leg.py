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

from gateway.errors import MediaError, MediaRejected
from gateway.model import LegId
from gateway.sip.sdp import Codec
from media.engine_sdp import (
    LOOPBACK,
    OPUS,
    PARKED,
    Crossing,
    Outside,
    Party,
    Target,
    crossing_description,
    description,
    read_outside,
)
from media.rtpengine import NgClient, Reply, Value

log = logging.getLogger("tandem.media")

_FOREVER: Final = 1_000_000
_CROSSING_CODECS: Final = (OPUS, "telephone-event")

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
        inside = description(LOOPBACK, PARKED, "RTP/AVP", codecs, telephone_event)
        reply = await self._send(
            "offer", from_tag="int", sdp=inside, **self._toward_ext(first=True, mux=rtcp_mux)
        )
        self.outside = read_outside(reply)
        return self.outside

    async def answered(self, party: Party) -> None:
        """The party answered our offer (or another fork of it did, or it answered a refresh)."""
        if self.established:
            self.party = party
            await self.point(self.target)
            return
        reply = await self._send(
            "answer", from_tag="int", to_tag="ext", sdp=party.text(self._tag), flags=self._ext_flags
        )
        self.party = party
        self.inside_port = read_outside(reply).port
        self.established = True

    # ---- the party calls us ----------------------------------------------------------------------

    async def offered(self, party: Party) -> None:
        """The party's offer; `answer` has to follow."""
        first = self.party is None
        reply = await self._send(
            "offer",
            from_tag="ext",
            to_tag=None if first else "int",
            sdp=party.text(self._tag),
            **self._toward_int(first=first),
        )
        self.party = party
        self.inside_port = read_outside(reply).port

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
            sdp=description(LOOPBACK, spoken.port, "RTP/AVP", [codec], spoken.telephone_event),
            flags=(*_LOCKED, *self._more_flags),
            SDES=_SDES,
        )
        outside = self._unchanged(read_outside(reply))
        self.established = True
        if target is not None and not direct:
            await self.point(target)
        return outside

    async def restore(self, party: Party | None) -> None:
        """What the party changed to was refused: everything as it was before, where rtpengine lets us."""
        self.party = party
        try:
            await self.point(self.target)
        except MediaError as error:
            log.warning("not_restored leg=%s cause=%s", self._leg, error.text)

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
            sdp=description(LOOPBACK, spoken.port, "RTP/AVP", [spoken.codec], spoken.telephone_event),
            codec=conversion,
            **self._toward_ext(first=False, mux=False),
        )
        outside = read_outside(reply)
        await self._send(
            "answer",
            from_tag="int",
            to_tag="ext",
            sdp=party.text(outside.tag),
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
            sdp=party.text(self._tag, reserved=reserved),
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
            sdp=crossing_description(target.port, crossing),
            flags=(*_LOCKED, *self._more_flags),
            SDES=_SDES,
        )
        return read_outside(reply)

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
    def _tag(self) -> int:
        """Crypto tag of the whole session, whatever tags the party uses in its descriptions (T15)."""
        return self.outside.tag if self.outside is not None and self.outside.tag else 1

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
