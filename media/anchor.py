"""A leg's media as the call sees it: descriptions in and out, and what the party hears.

The outside half (address, port, key, origin line) is the same from the first description to the end; only the
inside half moves (T15, T16, T21). What rtpengine has to do for it is in `engine_leg`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.errors import MediaError, MediaRejected, SdpError
from gateway.model import LegId
from gateway.sip.sdp import SUITE, AudioDescription, Codec, Direction, parse_description
from gateway.sip.sdp_compose import Description, stamp_origin
from gateway.sip.sdp_policy import MediaPolicy, Selection, admit_answer, admit_offer
from media.engine_leg import LIFETIME, EngineLeg, Outside, Party, Target
from media.quality import LegStatistics, read_statistics

if TYPE_CHECKING:
    from media.patchbay import PatchBay

log = logging.getLogger("tandem.media")


class Anchor:
    """One leg's media. Made by `PatchBay.answer_side` or `offer_side`, ended by `close`.

    Every method that talks to rtpengine may raise MediaUnavailable, PortsExhausted or MediaRejected; those
    that take a description also SdpError, and then nothing has changed. Calls on one anchor run one by one.

    codec, telephone_event: what is spoken with the party, once that is agreed
    remote: the party's last description
    """

    def __init__(self, bay: PatchBay, leg: LegId, policy: MediaPolicy, *, srtp: bool) -> None:
        self.leg = leg
        self.policy = policy
        self.remote: AudioDescription | None = None
        self.codec: Codec | None = None
        self.telephone_event: int | None = None
        self.closed = False
        self._bay = bay
        self._engine = EngineLeg(bay.ng, leg, bay.options, srtp=srtp, learn=policy.learn_source)
        self._lock = asyncio.Lock()
        self._selection: Selection | None = None
        self._offered: Description | None = None
        self._local: Description | None = None

    # ---- what others need to know ----------------------------------------------------------------

    @property
    def inside_port(self) -> int:
        """Where others on 127.0.0.1 send to reach this party; 0 before it is known."""
        return self._engine.inside_port

    @property
    def established(self) -> bool:
        """Both sides have described their media."""
        return self._engine.established

    @property
    def target(self) -> Target | None:
        """What the inside half is connected to, None when parked."""
        return self._engine.target

    @property
    def held(self) -> bool:
        """The party has put us on hold by its description."""
        return self.remote is not None and self.remote.held

    @property
    def local(self) -> Description | None:
        """Our last description to the party."""
        return self._local

    # ---- descriptions ----------------------------------------------------------------------------

    async def start_from_offer(self, remote: AudioDescription, selection: Selection) -> None:
        """Take the party's first offer. For PatchBay."""
        await self._engine.offered(_party(remote, selection, selection.codec))
        self._note(remote, selection)

    async def start_with_offer(self, codecs: Sequence[Codec], telephone_event: int | None) -> bytes:
        """Make our first offer. For PatchBay."""
        outside = await self._engine.offer(codecs, telephone_event, rtcp_mux=self.policy.rtcp_mux)
        self.telephone_event = telephone_event
        self._offered = self._describe(
            outside, tuple(codecs), telephone_event, Direction.SENDRECV, rtcp_mux=self.policy.rtcp_mux
        )
        self._local = self._offered
        return self._local.text()

    async def answer(self, codec: Codec | None = None) -> bytes:
        """Our answer to the party's offer, in `codec` or the first common one; again: the same text."""
        async with self._lock:
            selection = self._selection
            if selection is None or self.remote is None or self._offered is not None:
                raise MediaRejected("there is no offer to answer")
            if self._local is not None:
                return self._local.text()
            chosen = codec or selection.codec
            if chosen not in selection.codecs:
                raise SdpError(488, f"codec {chosen} was not offered")
            outside = await self._engine.answer(chosen)
            self.codec = chosen
            self._local = self._answer_text(outside, self.remote, selection)
            return self._local.text()

    async def accept_answer(self, body: bytes) -> None:
        """The party's answer to our offer; that of another fork, or the same once more, is welcome too."""
        remote = parse_description(body)
        async with self._lock:
            if self._offered is None:
                raise MediaRejected("there is no offer that could be answered")
            selection = admit_answer(remote, parse_description(self._offered.text()), self.policy)
            party = self._keep_address(_party(remote, selection, selection.codec))
            before = (self.codec, self.telephone_event)
            if party != self._engine.party:
                await self._engine.answered(party)
            self.codec = selection.codec
            self._note(remote, selection)
        if before[0] is not None and before != (self.codec, self.telephone_event):
            await self._bay.renew_bridge(self)

    async def remote_offer(self, body: bytes) -> bytes:
        """A re-INVITE or UPDATE of the party: new address, key, direction. Our answer; the patch stays."""
        remote = parse_description(body)
        selection = admit_offer(remote, self.policy)
        async with self._lock:
            if (selection.crypto is not None) != self._engine.srtp:
                raise SdpError(488, "change between RTP and SRTP in a running session")
            before = (self.codec, self.telephone_event)
            codec = self.codec if self.codec in selection.codecs else selection.codec
            assert codec is not None
            party = self._keep_address(_party(remote, selection, codec))
            outside = self._engine.outside
            if party != self._engine.party or outside is None:
                await self._engine.offered(party)
                outside = await self._engine.answer(codec)
            self.codec = codec
            self._note(remote, selection)
            self._local = self._answer_text(replace(outside, tag=party.tag), remote, selection)
            self._offered = None
            text = self._local.text()
        if before != (self.codec, self.telephone_event):
            await self._bay.renew_bridge(self)
        return text

    async def local_offer(self, direction: Direction = Direction.SENDRECV) -> bytes:
        """An offer of ours in a running session: same port, same key; the version moves with the text."""
        async with self._lock:
            self._offered = self._local = self._refresh(direction)
            return self._local.text()

    async def rekey(self) -> bytes:
        """Give our side a new SRTP key with its roll-over counter at 0; the offer that tells the party.

        Needed when rtpengine was restarted under a call whose counter had moved (facts media-prototype 10).
        """
        async with self._lock:
            await self._engine.rekey()
            self._offered = self._local = self._refresh(Direction.SENDRECV)
            return self._local.text()

    # ---- what the party hears --------------------------------------------------------------------

    async def park(self) -> None:
        """Connect the party to nothing: it hears nothing and nobody hears it."""
        self._bay.forget_bridge(self)
        async with self._lock:
            await self._engine.point(None)

    async def patch(self, port: int, codec: Codec | None = None, telephone_event: int | None = None) -> None:
        """Connect the party to `port` on 127.0.0.1 where `codec` is spoken (default: the party's own)."""
        self._bay.forget_bridge(self)
        await self.connect(port, codec, telephone_event)

    async def connect(self, port: int, codec: Codec | None, telephone_event: int | None) -> None:
        """`patch` for PatchBay, which keeps its bridges in mind itself."""
        async with self._lock:
            spoken = codec or self.codec
            if spoken is None:
                raise MediaRejected("the leg has no codec yet")
            await self._engine.point(Target(port, spoken, telephone_event))

    # ---- the end ---------------------------------------------------------------------------------

    async def statistics(self) -> LegStatistics:
        """Counters as they stand; takes rtpengine 0.35 ms."""
        return read_statistics(await self._engine.query())

    async def close(self) -> LegStatistics:
        """End the leg's media at once and free its ports; its figures. Never raises MediaError."""
        if self.closed:
            return LegStatistics()
        self.closed = True
        self._bay.forget(self)
        async with self._lock:
            try:
                return read_statistics(await self._engine.delete())
            except MediaError as error:
                log.warning("delete_failed leg=%s cause=%s", self.leg, error)
                return LegStatistics()

    # ---- inside ----------------------------------------------------------------------------------

    def _note(self, remote: AudioDescription, selection: Selection) -> None:
        self.remote = remote
        self._selection = selection
        self.telephone_event = selection.telephone_event

    def _keep_address(self, party: Party) -> Party:
        """An address 0.0.0.0 says "hold" and nothing else: rtpengine keeps the one it knows."""
        known = self._engine.party
        if known is not None and party.address in ("0.0.0.0", "::"):
            return replace(party, address=known.address, port=known.port, rtcp_port=known.rtcp_port)
        return party

    def _answer_text(self, outside: Outside, remote: AudioDescription, selection: Selection) -> Description:
        assert self.codec is not None
        description = self._describe(
            outside,
            (self.codec,),
            selection.telephone_event,
            selection.direction,
            rtcp_mux=remote.rtcp_mux,
        )
        return stamp_origin(
            replace(description, profile=remote.profile, media=remote.media, index=remote.index), self._local
        )

    def _refresh(self, direction: Direction) -> Description:
        previous, outside = self._local, self._engine.outside
        if previous is None or outside is None:
            raise MediaRejected("nothing was described to the party yet")
        offer = self._describe(
            replace(outside, tag=1),
            previous.codecs,
            previous.telephone_event,
            direction,
            rtcp_mux=previous.rtcp_mux,
        )
        return stamp_origin(offer, previous)

    def _describe(
        self,
        outside: Outside,
        codecs: tuple[Codec, ...],
        telephone_event: int | None,
        direction: Direction,
        *,
        rtcp_mux: bool,
    ) -> Description:
        if outside.address != self._bay.address:
            raise MediaRejected(
                f"rtpengine uses address {outside.address}, [media] address is {self._bay.address}"
            )
        return Description(
            address=outside.address,
            port=outside.port,
            codecs=codecs,
            telephone_event=telephone_event,
            direction=direction,
            profile="RTP/AVP" if outside.key is None else "RTP/SAVP",
            crypto=None if outside.key is None else f"{outside.tag} {SUITE} inline:{outside.key}{LIFETIME}",
            rtcp_port=self._rtcp_port(outside, rtcp_mux=rtcp_mux),
            rtcp_mux=rtcp_mux,
            session_id=secrets.randbits(48),
            version=1,
        )

    def _rtcp_port(self, outside: Outside, *, rtcp_mux: bool) -> int:
        """The port above ours, unless an offer to multiplex is answered; kept once said (RFC 5761 5.1.1)."""
        if self._local is not None and self._local.rtcp_mux == rtcp_mux:
            return self._local.rtcp_port
        return outside.port if rtcp_mux and self.remote is not None else outside.port + 1


def _party(remote: AudioDescription, selection: Selection, codec: Codec) -> Party:
    crypto = selection.crypto
    return Party(
        address=remote.address,
        port=remote.port,
        codecs=(codec,),
        telephone_event=selection.telephone_event,
        key=crypto.key if crypto else None,
        tag=crypto.tag if crypto else 1,
        mki=crypto.mki if crypto else None,
        rtcp_port=remote.rtcp_port,
        rtcp_mux=remote.rtcp_mux,
    )
