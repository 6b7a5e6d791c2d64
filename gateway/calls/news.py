"""What a leg's session tells: each event of the session layer and what it means for the call."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.calls.digits import dtmf_of
from gateway.calls.endings import correlation_of, failure, warning
from gateway.calls.holding import follow_description
from gateway.calls.keypad import pressed
from gateway.calls.leg import Leg, LegEdge
from gateway.calls.purpose import ReferHandler
from gateway.calls.signals import Command, MediaLost
from gateway.errors import SdpError, SipError
from gateway.model import LegId, ReleasedBy, Result, Termination, TrunkKind
from gateway.sip.refer import Referred
from gateway.sip.session_events import (
    Answered,
    Cancelled,
    Confirmed,
    Ended,
    Failed,
    OfferAnswered,
    OfferReceived,
    Progress,
    RequestReceived,
)
from gateway.trunks.reasons import from_bye, from_cancel

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")


class News:
    """Takes the events of the sessions of one call's legs; runs in the call's task."""

    def __init__(self, call: Call, on_refer: ReferHandler) -> None:
        self._call, self._on_refer = call, on_refer
        self._rebuilt: set[LegId] = set()

    async def __call__(self, leg: Leg, event: object) -> None:
        call = self._call
        match event:
            case Progress():
                if leg.id in call.dialling:
                    dialling, purpose = call.dialling[leg.id]
                    dialling.progress(event)
                    leg.answerable = _lists_talk(event) or leg.answerable
                    await call.remembered()
                    await purpose.progress(call, leg, event)
            case Answered():
                await self._answered(leg, event)
            case Failed():
                if leg.id in call.dialling:
                    leg.correlation = correlation_of(event.response) or leg.correlation
                    over = await call.dialling[leg.id][0].failed(event)
                    await call.dial_over(leg, over)
            case Cancelled(request):
                leg.correlation = correlation_of(request) or leg.correlation
                await call.leave(leg, from_cancel(request.headers.getlist("Reason")))
            case Confirmed(sdp):
                await self._confirmed(leg, sdp)
            case OfferReceived():
                await self._offered(leg, event)
            case OfferAnswered(sdp):
                await leg.take_description(sdp)
            case Referred():
                await self._on_refer(call, leg, event)
            case RequestReceived():
                await self._requested(leg, event)
            case Ended():
                await self._ended(leg, event)

    async def _answered(self, leg: Leg, event: Answered) -> None:
        call = self._call
        session = leg.session
        if session is None:
            return
        if leg.id not in call.dialling:
            session.confirm()
            return
        dialling, purpose = call.dialling[leg.id]
        dialling.answered()
        leg.advance(LegEdge.ANSWER)
        try:
            if event.sdp is None:
                raise SdpError(488, "the answer carries no session description")
            await leg.take_description(event.sdp)
        except SipError as error:
            await call.dial_over(leg, failure(error))
            return
        await call.remembered()
        # not sooner: a peer without its ACK repeats its 2xx, to the next gateway if it must
        session.confirm()
        del call.dialling[leg.id]
        for timer in leg.timers:
            timer.cancel()
        leg.timers.clear()
        await call.records.answered(leg)
        await purpose.answered(call, leg)

    async def _confirmed(self, leg: Leg, sdp: bytes | None) -> None:
        try:
            await leg.confirmed(sdp)
        except SipError as error:
            await self._call.leave(leg, failure(error))
            return
        if sdp is not None:
            await self._call.rewire()

    async def _offered(self, leg: Leg, event: OfferReceived) -> None:
        """A change a party asks for stays between it and us: the others only notice what they hear."""
        call = self._call
        codec = leg.codec
        try:
            answer = await leg.take_offer(event)
        except SipError as error:
            event.reject(error.code, None, (warning(leg, error),))
            return
        await follow_description(call, leg)
        # after a kill -9 the next gateway must not describe itself otherwise under the same o= version (T16)
        await call.remembered()
        event.answer(answer)
        if leg.codec is not codec:
            call.sound.renew(leg)
        await call.settle()

    async def _requested(self, leg: Leg, event: RequestReceived) -> None:
        digit = dtmf_of(event.request)
        if digit is None:
            event.respond(415 if event.request.method == "INFO" else 405)
            return
        event.respond(200)
        pressed(self._call, leg, *digit, as_sound=False)

    async def _ended(self, leg: Leg, event: Ended) -> None:
        leg.correlation = correlation_of(event.request) or leg.correlation
        if event.by == "remote":
            reasons = event.request.headers.getlist("Reason") if event.request is not None else ()
            over = from_bye(reasons, by=ReleasedBy(leg.role.value))
        else:
            reason = event.reason or {408: "no_ack_or_refresh", 481: "dialog_lost"}.get(
                event.code, "session_failed"
            )
            over = Termination(Result.FAILED, reason, event.code, 41, ReleasedBy.SYSTEM)
        await self._call.leave(leg, over)

    # ---- rtpengine's news ----

    async def media_lost(self, leg: Leg, lost: MediaLost) -> None:
        """A plain trunk's leg that rtpengine has lost gets new ports; Teams would not follow there (T21)."""
        if leg.id not in self._call.joined:
            return
        if lost.final or lost.silence is not None or leg.trunk.kind is not TrunkKind.SIP:
            text = "rtpengine lost it" if lost.silence is None else f"no RTP for {lost.silence:.0f} s"
            over = Termination(Result.FAILED, "media_lost", 200, 41, ReleasedBy.SYSTEM, text)
            await self._call.leave(leg, over)
        elif leg.id not in self._rebuilt:
            # else it is being done: rtpengine, the last gateway and a page may all say so at once
            self._rebuilt.add(leg.id)
            self._call.keep(asyncio.get_running_loop().create_task(self._rebuild(leg), name="rebuild"))

    def new_key(self, leg: Leg) -> None:
        """Runs beside the inbox, because the peer's answer may take its time."""
        if leg.id in self._call.joined:
            self._call.keep(asyncio.get_running_loop().create_task(self._rekey(leg), name="rekey"))

    async def _rebuild(self, leg: Leg) -> None:
        """Beside the inbox, as `_rekey`."""
        call = self._call
        try:
            await leg.rebuild_media()
        except SipError as error:
            log.error("rebuild_failed call=%s leg=%s cause=%s", call.id, leg.id, error.text)
            leg.post(MediaLost(leg, None, final=True))
            return
        log.warning("leg_rebuilt call=%s leg=%s trunk=%s", call.id, leg.id, leg.trunk.name)

        async def connect() -> None:
            self._rebuilt.discard(leg.id)
            call.sound.renew(leg)
            await call.settle()

        leg.post(Command(connect))

    async def _rekey(self, leg: Leg) -> None:
        call = self._call
        try:
            await leg.rekey()
        except SipError as error:
            log.error("rekey_failed call=%s leg=%s cause=%s", call.id, leg.id, error.text)
            leg.post(MediaLost(leg, None))
        else:
            log.info("leg_rekeyed call=%s leg=%s trunk=%s", call.id, leg.id, leg.trunk.name)
            call.remember()


def _lists_talk(event: Progress) -> bool:
    """Whether the ringing telephone may be answered from afar."""
    if event.response is None:
        return False
    listed = ",".join(event.response.headers.getlist("Allow-Events"))
    return "talk" in (word.strip().lower() for word in listed.split(","))
