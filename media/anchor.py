"""A leg's media as the call sees it: descriptions in and out, and what the party hears.

The outside half (address, port, key, origin line) is the same from the first description to the end; only the
inside half moves (T15, T16, T21). What rtpengine has to do for it is in `engine_leg`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import MediaError, MediaRejected, SdpError
from gateway.model import LegId
from gateway.sip.sdp import SUITE, AudioDescription, Codec, Direction, parse_description
from gateway.sip.sdp_compose import Description, stamp_origin
from gateway.sip.sdp_policy import MediaPolicy, Selection, admit_answer, admit_offer
from media.engine_leg import EngineLeg
from media.engine_sdp import LIFETIME, Outside, Party, Target
from media.mki import MkiSearch
from media.quality import LegStatistics, read_statistics

if TYPE_CHECKING:
    from media.patchbay import PatchBay

log = logging.getLogger("tandem.media")

_DIGITS = "0123456789*#ABCD"
_PRIMING = 0.2
"""Seconds until rtpengine's codec engine has seen a packet to put an event behind."""
_AFTER_DIGIT = 0.1
_FIRST_LOOK, _LAST_LOOK = 0.25, 2.0
"""Seconds between looks at whether the party's packets can be authenticated."""


class Anchor:
    """One leg's media. Made by `PatchBay.answer_side` or `offer_side`, ended by `close`.

    Every method that talks to rtpengine may raise MediaUnavailable, PortsExhausted or MediaRejected; those
    that take a description also SdpError, and then nothing has changed. Calls on one anchor run one by one.

    codec, telephone_event: what is spoken with the party, once that is agreed
    remote: the party's last description; described_at: when it came, wall-clock seconds
    renumbers: digits may have any number inside, rtpengine gives them the party's (a browser)
    """

    renumbers = False

    def __init__(self, bay: PatchBay, leg: LegId, policy: MediaPolicy, *, srtp: bool) -> None:
        self.leg = leg
        self.policy = policy
        self.remote: AudioDescription | None = None
        self.described_at = time.time()
        self.codec: Codec | None = None
        self.telephone_event: int | None = None
        self.closed = False
        self._bay = bay
        self._engine = EngineLeg(bay.ng, leg, bay.options, srtp=srtp, learn=policy.learn_source)
        self._lock = asyncio.Lock()
        self._selection: Selection | None = None
        self._offered: Description | None = None
        self._local: Description | None = None
        self._music: tuple[Path, bool] | None = None
        self._interrupted: Target | None = None
        self._mki: MkiSearch | None = None
        self._listening: asyncio.Task[None] | None = None

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
    def expects_media(self) -> bool:
        """Silence of the party means that something is wrong: both have described, and nobody holds (T19)."""
        if self.remote is None or not self.established or self.closed or self.held:
            return False
        ours = self._local.direction if self._local is not None else Direction.SENDRECV
        return self.remote.direction is Direction.SENDRECV and ours is Direction.SENDRECV

    @property
    def local(self) -> Description | None:
        """Our last description to the party."""
        return self._local

    # ---- descriptions ----------------------------------------------------------------------------

    async def start_from_offer(self, remote: AudioDescription, selection: Selection) -> None:
        """Take the party's first offer. For PatchBay."""
        await self._engine.offered(_party(remote, selection, selection.codecs))
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
        async with self._turn():
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
            self._listen()
            return self._local.text()

    async def accept_answer(self, body: bytes) -> None:
        """The party's answer to our offer; that of another fork, or the same once more, is welcome too."""
        remote = parse_description(body)
        async with self._turn():
            if self._offered is None:
                raise MediaRejected("there is no offer that could be answered")
            selection = admit_answer(remote, parse_description(self._offered.text()), self.policy)
            party = self._engine_party(remote, selection, selection.codec)
            before = (self.codec, self.telephone_event)
            changed = party != self._engine.party
            if changed:
                await self._engine.answered(party)
            self.codec = selection.codec
            self._note(remote, selection)
            if changed:
                self._listen()
        if before[0] is not None and before != (self.codec, self.telephone_event):
            await self._bay.renew_bridge(self)

    async def remote_offer(self, body: bytes) -> bytes:
        """A re-INVITE or UPDATE of the party: new address, key, direction. Our answer; the patch stays."""
        remote = parse_description(body)
        selection = admit_offer(remote, self.policy)
        async with self._turn():
            if (selection.crypto is not None) != self._engine.srtp:
                raise SdpError(488, "change between RTP and SRTP in a running session")
            before = (self.codec, self.telephone_event)
            codec = self.codec if self.codec in selection.codecs else selection.codec
            assert codec is not None
            party = self._engine_party(remote, selection, codec)
            outside = self._engine.outside
            changed = party != self._engine.party or outside is None
            if changed or outside is None:
                known = self._engine.party
                try:
                    await self._engine.offered(party)
                    outside = await self._engine.answer(codec)
                except MediaError:
                    await self._engine.restore(known)
                    raise
            self.codec = codec
            self._note(remote, selection)
            if changed:
                self._listen()
            self._local = self._answer_text(outside, remote, selection)
            self._offered = None
            text = self._local.text()
        if before != (self.codec, self.telephone_event):
            await self._bay.renew_bridge(self)
        return text

    async def local_offer(self, direction: Direction = Direction.SENDRECV) -> bytes:
        """An offer of ours in a running session: same port, same key; the version moves with the text."""
        async with self._turn():
            self._offered = self._local = self._refresh(direction)
            return self._local.text()

    async def rekey(self) -> bytes:
        """Give our side a new SRTP key with its roll-over counter at 0; the offer that tells the party.

        Needed when rtpengine was restarted under a call whose counter had moved (facts media-prototype 10).
        """
        async with self._turn():
            await self._engine.rekey()
            self._offered = self._local = self._refresh(Direction.SENDRECV)
            return self._local.text()

    # ---- what the party hears --------------------------------------------------------------------

    async def park(self) -> None:
        """Connect the party to nothing: it hears nothing and nobody hears it. Ends music, too."""
        self._bay.forget_bridge(self)
        async with self._turn():
            await self._silence()
            await self._engine.point(None)

    async def patch(self, port: int, codec: Codec | None = None, telephone_event: int | None = None) -> None:
        """Connect the party to `port` on 127.0.0.1; None: the party's own codec, its own event number.

        Another codec there is converted. Another event number is not: digits would be lost, so a room has to
        answer with the number it is offered.
        """
        spoken = codec or self.codec
        if spoken is None:
            raise MediaRejected("the leg has no codec yet")
        self._bay.forget_bridge(self)
        await self.connect(Target(port, spoken, telephone_event or self.telephone_event))

    async def connect(self, target: Target, *, after_music: bool = False) -> None:
        """`patch` for PatchBay, which keeps its bridges itself; `after_music` lets music go on first."""
        async with self._turn():
            if after_music and self._music is not None:
                self._interrupted = target
                return
            await self._silence()
            await self._engine.point(target)

    async def play(self, file: Path, *, repeat: bool = True) -> None:
        """Let the party hear a file (of `music.prepare`) instead of whom it is connected to.

        rtpengine would send both at once (facts media-prototype 4), so it is parked for the time of it.
        Another file replaces the first. It ends with `stop_playing`, `park`, `patch` or a bridge. A file that
        cannot be played is MediaRejected, and the party is connected as before.
        """
        async with self._turn():
            if not self._engine.established:
                raise MediaRejected("the party has not been answered, it cannot hear anything yet")
            if self._music is None:
                self._interrupted = self._engine.target
                if self._interrupted is not None:
                    await self._engine.point(None)
            self._music = (file, repeat)
            try:
                await self._engine.play(file, repeat=repeat)
            except MediaRejected:
                self._music = None
                await self._engine.point(self._interrupted)
                raise

    async def stop_playing(self) -> None:
        """End the music; the party is connected again as it was before `play`. Nothing when none plays."""
        async with self._turn():
            if self._music is not None:
                await self._silence()
                if self._interrupted is not None:
                    await self._engine.point(self._interrupted)

    @property
    def playing(self) -> bool:
        """It was told to play; the end of a file that does not repeat is not noticed."""
        return self._music is not None

    async def send_digit(self, digit: str, ms: int = 160) -> None:
        """Press 0-9, *, # or A-D toward the party for `ms` milliseconds; returns when it is over.

        The event is put into the stream of whom the party hears: MediaRejected when that is nobody, or when
        it takes no telephone-event. It may get lost while that other one is pressing digits, too.
        """
        if digit not in _DIGITS or self.telephone_event is None:
            raise MediaRejected(
                "not a digit" if digit not in _DIGITS else "the party takes no telephone-event"
            )
        async with self._turn():
            if await self._engine.inject():
                await asyncio.sleep(_PRIMING)
            await self._engine.send_digit(_DIGITS.index(digit), ms)
            await asyncio.sleep(ms / 1000 + _AFTER_DIGIT)

    # ---- after a restart of rtpengine -----------------------------------------------------------------

    async def reconnect(self) -> None:
        """Connect everything again: a restored call has lost its source locks and its music."""
        async with self._turn():
            if not self._engine.established:
                return
            target, music = self._engine.target, self._music
            await self._engine.unlock()
            if music is not None:
                await self._engine.point(None)
                await self._engine.play(music[0], repeat=music[1])
            else:
                await self._engine.point(target)

    async def created(self) -> int:
        """When rtpengine made the leg, wall-clock seconds; MediaRejected when it knows none."""
        reply = await self._engine.query()
        moment = reply.get("created")
        return moment if isinstance(moment, int) else 0

    @property
    def srtp(self) -> bool:
        return self._engine.srtp

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
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        async with self._lock:
            try:
                return read_statistics(await self._engine.delete())
            except MediaError as error:
                log.warning("delete_failed leg=%s cause=%s", self.leg, error)
                return LegStatistics()

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One command at a time; none once it is closed, for rtpengine would begin the leg anew."""
        async with self._lock:
            if self.closed:
                raise MediaRejected("the leg is closed")
            yield

    async def _silence(self) -> None:
        if self._music is not None:
            self._music = None
            await self._engine.stop_playing()

    # ---- inside ----------------------------------------------------------------------------------

    def _note(self, remote: AudioDescription, selection: Selection) -> None:
        self.remote = remote
        self.described_at = time.time()
        self._selection = selection
        self.telephone_event = selection.telephone_event

    def _engine_party(self, remote: AudioDescription, selection: Selection, codec: Codec) -> Party:
        """The party as rtpengine shall see it now.

        An address 0.0.0.0 says "hold" and nothing else: the one known stays. Likewise what was found out
        about its MKI, as long as it announces the same one.
        """
        party, known = _party(remote, selection, (codec,)), self._engine.party
        if known is not None and party.address in ("0.0.0.0", "::"):
            party = replace(party, address=known.address, port=known.port, rtcp_port=known.rtcp_port)
        if self._mki is not None and self._mki.announced == party.mki:
            party = replace(party, mki=self._mki.reading)
        return party

    def _listen(self) -> None:
        """From a new SRTP description on until the first packet that can be authenticated."""
        if self._selection is None or self._selection.crypto is None:
            return
        announced = self._selection.crypto.mki
        if self._mki is None or self._mki.announced != announced:
            self._mki = MkiSearch(announced)
        self._mki.restart()
        if self._listening is None or self._listening.done():
            self._listening = asyncio.get_running_loop().create_task(self._search(), name="mki-search")

    async def _search(self) -> None:
        pause = _FIRST_LOOK
        while self._mki is not None:
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, _LAST_LOOK)
            search = self._mki
            try:
                figures = await self.statistics()
                found = search.look(figures.packets_received, figures.errors)
                if found:
                    return
                if found is False:
                    async with self._turn():
                        await self._try_reading(search)
            except MediaError as error:
                log.debug("mki_search_paused leg=%s cause=%s", self.leg, error.text)

    async def _try_reading(self, search: MkiSearch) -> None:
        party = self._engine.party
        if party is None or search is not self._mki:
            return
        log.info("mki_reading leg=%s bytes=%d", self.leg, search.reading[1] if search.reading else 0)
        await self._engine.answered(replace(party, mki=search.reading))

    def _answer_text(self, outside: Outside, remote: AudioDescription, selection: Selection) -> Description:
        assert self.codec is not None
        crypto = selection.crypto
        description = self._describe(
            outside if crypto is None else replace(outside, tag=crypto.tag),
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


def _party(remote: AudioDescription, selection: Selection, codecs: tuple[Codec, ...]) -> Party:
    crypto = selection.crypto
    return Party(
        address=remote.address,
        port=remote.port,
        codecs=codecs,
        telephone_event=selection.telephone_event,
        key=crypto.key if crypto else None,
        mki=crypto.mki if crypto else None,
        rtcp_port=remote.rtcp_port,
        rtcp_mux=remote.rtcp_mux,
    )
