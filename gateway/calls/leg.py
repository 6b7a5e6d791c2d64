"""A leg: our half of one dialog and its anchor in rtpengine. It never knows its peer.

News go up into the inbox of the call it belongs to at the moment; commands come down. What takes time
(rtpengine) is awaited in the call's task, so a leg needs no lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum

from gateway.calls.digits import dtmf_of
from gateway.calls.leg_session import LegSession
from gateway.calls.routing import PartyIdentity
from gateway.calls.signals import FromSession, Signal
from gateway.clock import TimerHandle
from gateway.errors import IllegalTransition, MediaRejected, SdpError, SipError
from gateway.model import LegId, Role, Termination, new_leg_id
from gateway.sip.sdp import Codec
from gateway.sip.sdp_policy import codecs_to_offer
from gateway.sip.session import Session
from gateway.sip.session_events import OfferReceived, RequestReceived, SessionEvent
from gateway.trunks.identity import Caller
from gateway.trunks.reasons import SipAnswer, answer_for, bye_headers
from gateway.trunks.trunk import Trunk
from media.patchbay import Anchor, PatchBay
from media.quality import LegStatistics

log = logging.getLogger("tandem.calls")

TELEPHONE_EVENT = 101
"""Payload number we offer where no other party's number has to be matched (facts/media-prototype.md 8)."""

TALK_WITHIN = 4.0
"""Seconds in which a telephone on the line says whether it lets itself be answered from afar."""


class LegState(StrEnum):
    """INCOMING: they called and wait for our answer. UP: answered. ENDED: nothing of it is left."""

    CREATED = "created"
    INCOMING = "incoming"
    DIALLING = "dialling"
    RINGING = "ringing"
    UP = "up"
    ENDED = "ended"


class LegEdge(StrEnum):
    OFFERED = "offered"
    DIAL = "dial"
    RANG = "rang"
    ANSWER = "answer"
    END = "end"


_EDGES: dict[tuple[LegState, LegEdge], LegState] = {
    (LegState.CREATED, LegEdge.OFFERED): LegState.INCOMING,
    (LegState.CREATED, LegEdge.DIAL): LegState.DIALLING,
    (LegState.CREATED, LegEdge.END): LegState.ENDED,
    (LegState.INCOMING, LegEdge.ANSWER): LegState.UP,
    (LegState.INCOMING, LegEdge.END): LegState.ENDED,
    (LegState.DIALLING, LegEdge.DIAL): LegState.DIALLING,
    (LegState.DIALLING, LegEdge.RANG): LegState.RINGING,
    (LegState.DIALLING, LegEdge.ANSWER): LegState.UP,
    (LegState.DIALLING, LegEdge.END): LegState.ENDED,
    (LegState.RINGING, LegEdge.RANG): LegState.RINGING,
    (LegState.RINGING, LegEdge.ANSWER): LegState.UP,
    (LegState.RINGING, LegEdge.END): LegState.ENDED,
    (LegState.UP, LegEdge.END): LegState.ENDED,
}


class Leg:
    """One party's connection to the gateway.

    post:   where its news go; changes when the leg moves to another call
    number: the far party's number, "" when nobody knows it
    withheld: the party asked that its number be shown to nobody it talks to (RFC 3323)
    early:  its party hears what we patch although it has not answered or been answered yet
    moves:  how often it has gone to another call
    held:   its party has put the call on hold by its description
    extension: the digits an attendant at `number` is told whom to connect, "" when it is the party itself
    answerable: its ringing telephone says that it can be answered from afar (Allow-Events: talk)
    answering: our description in the 2xx to its INVITE, until the ACK
    refusal: our final response if it is our own judgement of the party's INVITE, not news of another leg
    """

    def __init__(
        self,
        bay: PatchBay,
        trunk: Trunk,
        *,
        tenant: str,
        role: Role,
        identity: PartyIdentity,
        number: str,
        post: Callable[[Signal], None],
        withheld: bool = False,
    ) -> None:
        self.id: LegId = new_leg_id()
        self.trunk = trunk
        self.tenant = tenant
        self.role = role
        self.identity = identity
        self.number = number
        self.withheld = withheld
        self.post = post
        self.host = False
        self.state = LegState.CREATED
        self.session: LegSession | None = None
        self.early = False
        self.held = False
        self.moves = 0
        self.answerable = False
        self.answering = b""
        self.correlation = ""
        self.extension = ""
        self.refusal: SipAnswer | None = None
        self.timers: list[TimerHandle] = []
        self._bay = bay
        self._anchor: Anchor | None = None
        self._offer: bytes | None = None

    # ---- what others need to know ----

    @property
    def anchor(self) -> Anchor:
        """Its place in rtpengine; MediaRejected while it has none."""
        if self._anchor is None:
            raise MediaRejected("the leg has no media yet")
        return self._anchor

    @property
    def caller(self) -> Caller:
        """Its party as the caller of another leg."""
        return Caller(self.number, withheld=self.withheld)

    @property
    def anchored(self) -> bool:
        return self._anchor is not None

    @property
    def offering(self) -> bool:
        """Our 200 carried an offer, and its answer has not come yet."""
        return self._offer is not None

    @property
    def patchable(self) -> bool:
        """Both sides have described their media, so that it can be connected."""
        return self._anchor is not None and self._anchor.established and not self._anchor.closed

    @property
    def codec(self) -> Codec | None:
        return self._anchor.codec if self._anchor is not None else None

    @property
    def sip_call_id(self) -> str:
        return self.session.request.call_id if self.session is not None else ""

    # ---- a leg that called us ----

    def take_session(self, session: Session) -> None:
        """Adopt an incoming session; from here on the caller waits for us."""
        self.adopt(session)
        self.advance(LegEdge.OFFERED)

    async def take_call(self) -> None:
        """Anchor the caller's offer. SdpError, MediaError: refuse the call with it."""
        session, media = self.session, self.trunk.media
        assert session is not None
        if session.remote_offer is not None:
            self._anchor = await self._bay.answer_side(self.id, session.remote_offer, media)
        else:
            codecs = codecs_to_offer((), media)
            self._anchor, self._offer = await self._bay.offer_side(self.id, media, codecs, TELEPHONE_EVENT)

    def ring(self, code: int = 180) -> None:
        """Tell the caller that it rings; its own equipment makes the tone."""
        if self.state is LegState.INCOMING and self.session is not None:
            self.session.provisional(code)

    async def open_early(self, codec: Codec | None) -> bool:
        """Open early media toward the caller (183 with our description); False where that cannot be.

        A caller without an offer gets ours only with the answer, and one that was already opened stays so.
        """
        if self.state is not LegState.INCOMING or self.session is None or self._offer is not None:
            return self.early
        if not self.early:
            self.session.provisional(183, sdp=await self.anchor.answer(self._usable(codec)))
            self.early = True
        return True

    async def answer(
        self, codec: Codec | None, remembered: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Answer the caller, in `codec` where it can speak it (otherwise the bridge converts).

        `remembered` writes down, before it is done, that we do (`answering`).
        """
        assert self.session is not None
        sdp = self._offer if self._offer is not None else await self.anchor.answer(self._usable(codec))
        self.advance(LegEdge.ANSWER)
        self.answering = sdp
        if remembered is not None:
            await remembered()
        self.session.accept(sdp)

    def _usable(self, codec: Codec | None) -> Codec | None:
        remote = self.anchor.remote
        spoken = {known for _, known in remote.codecs} if remote is not None else set()
        return codec if codec in spoken else None

    async def confirmed(self, sdp: bytes | None) -> None:
        """The ACK came, with the answer where the offer was ours. SipError: the leg is of no use."""
        self.answering = b""
        if self._offer is None:
            return
        self._offer = None
        if sdp is None:
            raise SdpError(488, "the ACK carries no answer to our offer")
        await self.anchor.accept_answer(sdp)

    # ---- a leg that we call ----

    async def prepare(self, like: Leg | None) -> bytes:
        """Anchor a leg that is to be dialled; our offer, with the codecs and event number of `like` first."""
        media = self.trunk.media
        remote = like.anchor.remote if like is not None and like.anchored else None
        first = [codec for _, codec in remote.codecs] if remote is not None else []
        if like is not None and like.codec is not None:
            first.insert(0, like.codec)
        event = remote.telephone_event if remote is not None else None
        codecs = codecs_to_offer(list(dict.fromkeys(first)), media)
        self._anchor, offer = await self._bay.offer_side(self.id, media, codecs, event or TELEPHONE_EVENT)
        return offer

    async def take_description(self, sdp: bytes) -> None:
        """The party's answer, early (18x) or final. SdpError, MediaError: this answer is of no use."""
        await self.anchor.accept_answer(sdp)

    # ---- both ----

    def adopt(self, session: LegSession) -> None:
        """From now on `session` is this leg's."""
        self.session = session
        session.handler = self.handle

    def handle(self, session: LegSession, event: SessionEvent) -> None:
        """A session's news on their way into the call's inbox."""
        if isinstance(event, RequestReceived) and dtmf_of(event.request) is not None:
            event.defer()
        self.post(FromSession(self, session, event))

    async def take_offer(self, offer: OfferReceived) -> bytes:
        """The answer to a re-INVITE or UPDATE of the party (our own offer when it carried none)."""
        return await (self.anchor.local_offer() if offer.sdp is None else self.anchor.remote_offer(offer.sdp))

    async def rekey(self) -> None:
        """Tell the party a new SRTP key of ours. SipError when it does not take it."""
        assert self.session is not None
        await self.anchor.accept_answer(await self.session.offer(await self.anchor.rekey()))

    async def talk(self) -> int:
        """Ask the ringing party to answer now; the code of its response, 408 when it gave none."""
        assert self.session is not None
        try:
            async with asyncio.timeout(TALK_WITHIN):
                return await self.session.talk()
        except TimeoutError:
            return 408
        except SipError as error:
            return error.code

    def stop_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def resume_media(self, anchor: Anchor) -> None:
        """After a restart: go on with what rtpengine has carried meanwhile."""
        self._anchor = anchor

    async def rebuild_media(self) -> None:
        """rtpengine has lost the leg: new ports, told to the party by a re-INVITE (or UPDATE).

        SipError when the party does not take it, or rtpengine cannot; Teams would not follow it at all (T21).
        """
        assert self.session is not None
        old, media = self.anchor, self.trunk.media
        first = [old.codec] if old.codec is not None else []
        event = old.telephone_event or TELEPHONE_EVENT
        await old.close()
        anchor, offer = await self._bay.offer_side(self.id, media, codecs_to_offer(first, media), event)
        if self.state is LegState.ENDED:
            await anchor.close()
            return
        self._anchor = anchor
        await anchor.accept_answer(await self.session.offer(offer))

    def advance(self, edge: LegEdge) -> None:
        after = _EDGES.get((self.state, edge))
        if after is None:
            raise IllegalTransition("leg", self.state, edge)
        log.debug("leg_state leg=%s trunk=%s from=%s to=%s", self.id, self.trunk.name, self.state, after)
        self.state = after

    async def release(self, termination: Termination) -> LegStatistics:
        """End it whatever its state (final response, CANCEL or BYE with Reason) and free its media."""
        self.stop_timers()
        if self.state is LegState.ENDED:
            return LegStatistics()
        waiting = self.state is LegState.INCOMING
        self.advance(LegEdge.END)
        if self.session is not None:
            if waiting:
                told = self.refusal or answer_for(termination, self.trunk.kind)
                self.session.end(told.code, told.headers)
            else:
                self.session.end(termination.sip_code, bye_headers(termination))
        return await self.anchor.close() if self._anchor is not None else LegStatistics()
