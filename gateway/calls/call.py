"""A call: the legs that talk to each other, one task and one inbox.

Everything that happens to it comes through the inbox and is handled one after the other: journal first,
then the effect. What a dialled leg is for (first callee, transfer target, added party) is a `Purpose`; holds,
mutes and members are data, and `rewire` makes the sound agree with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from gateway.calls.audibility import Hold, MusicPolicy, Participant, audibility
from gateway.calls.context import CallContext
from gateway.calls.dialling import Dialling, Order
from gateway.calls.digits import dtmf_of
from gateway.calls.endings import correlation_of, failure, warning
from gateway.calls.leg import Leg, LegEdge, LegState
from gateway.calls.signals import (
    AttemptTimeout,
    Command,
    FromSession,
    MaxDuration,
    MediaLost,
    NewKey,
    Resolved,
    RingTimeout,
    Signal,
)
from gateway.calls.wiring import Wiring, plan
from gateway.errors import IllegalTransition, JournalError, SdpError, SipError, TandemError
from gateway.events import (
    CallEnded,
    CallStarted,
    Event,
    LegAnswered,
    LegCreated,
    LegEnded,
    LegHeld,
    LegJoined,
    LegLeft,
    LegResumed,
    MediaMoved,
)
from gateway.model import (
    CallId,
    InteractionId,
    LegId,
    ReleasedBy,
    Result,
    Role,
    Termination,
    new_call_id,
    new_interaction_id,
)
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
from gateway.trunks.reasons import from_bye, from_cancel, from_timeout
from media.pool import Room

log = logging.getLogger("tandem.calls")

T = TypeVar("T")


class CallState(StrEnum):
    """SETUP: nobody talks yet. ENDED: its row can be made."""

    SETUP = "setup"
    UP = "up"
    ENDED = "ended"


class CallEdge(StrEnum):
    TALK = "talk"
    END = "end"


_EDGES: dict[tuple[CallState, CallEdge], CallState] = {
    (CallState.SETUP, CallEdge.TALK): CallState.UP,
    (CallState.UP, CallEdge.TALK): CallState.UP,
    (CallState.SETUP, CallEdge.END): CallState.ENDED,
    (CallState.UP, CallEdge.END): CallState.ENDED,
}


class Purpose(Protocol):
    """What a dialled leg is for; called in the call's task.

    vital: while this leg is being dialled the call goes on even with a single party
    """

    vital: bool

    async def progress(self, call: Call, leg: Leg, event: Progress) -> None: ...

    async def answered(self, call: Call, leg: Leg) -> None: ...

    async def failed(self, call: Call, leg: Leg, termination: Termination) -> None: ...

    async def stranded(self, call: Call, leg: Leg, termination: Termination) -> None:
        """Another leg left with `termination` and nobody else remains while this one is being dialled."""
        ...


class ReferHandler(Protocol):
    """Takes a REFER of a party (`transfer`)."""

    async def __call__(self, call: Call, leg: Leg, refer: Referred) -> None: ...


class Call:
    """One B2BUA call: `start` its task, then `post` signals.

    joined:   answered legs that talk
    away:     legs that take no part in the sound for a while (a transferor)
    ringback: legs that hear ringing instead of the others
    """

    def __init__(
        self,
        context: CallContext,
        *,
        on_end: Callable[[Call], None],
        on_refer: ReferHandler,
        interaction: InteractionId | None = None,
    ) -> None:
        self.id: CallId = new_call_id()
        self.interaction = interaction or new_interaction_id()
        self.context = context
        self.state = CallState.SETUP
        self.legs: dict[LegId, Leg] = {}
        self.joined: set[LegId] = set()
        self.holds: set[Hold] = set()
        self.muted: set[LegId] = set()
        self.ringback: set[LegId] = set()
        self.away: set[LegId] = set()
        self.music = MusicPolicy(context.config.media.hold_music)
        self.dialling: dict[LegId, tuple[Dialling, Purpose]] = {}
        self.termination: Termination | None = None
        self.wiring = Wiring(context, self.id, self._media_moved)
        self._inbox: asyncio.Queue[Signal] = asyncio.Queue()
        self._on_end, self._on_refer = on_end, on_refer
        self._kept: set[asyncio.Task[None]] = set()
        self._recorded = False
        self._max_duration: Any = None
        self._task: asyncio.Task[None] | None = None

    # ---- life ----

    def post(self, signal: Signal) -> None:
        """Put a signal into the inbox; after the end it is answered or dropped."""
        if self.state is CallState.ENDED:
            self._refuse(signal)
        else:
            self._inbox.put_nowait(signal)

    def start(self, first: Callable[[], Awaitable[None]]) -> None:
        """Run the call's task, beginning with `first`."""
        self._task = asyncio.get_running_loop().create_task(self._run(first), name=f"call-{self.id}")

    async def command(self, run: Callable[[], Awaitable[T]]) -> T:
        """Run something in the call's task, after what is already in its inbox, and give its result."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.post(Command(run, done))
        return await done

    def terminate(self, termination: Termination) -> None:
        """End the call as soon as its task gets to it."""

        async def over() -> None:
            await self.end(termination)

        self.post(Command(over))

    async def join(self) -> None:
        """Wait until the task has ended."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, first: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._guarded(first)
            while self.state is not CallState.ENDED:
                signal = await self._inbox.get()
                await self._guarded(lambda signal=signal: self._handle(signal))  # type: ignore[misc]
        finally:
            while not self._inbox.empty():
                self._refuse(self._inbox.get_nowait())
            self._on_end(self)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Errors end the call with what they say; nothing leaves the task."""
        try:
            await work()
        except SipError as error:
            log.warning("call_failed call=%s code=%d cause=%s", self.id, error.code, error.text)
            await self.end(failure(error))
        except (TandemError, Exception):
            log.exception("call_broken call=%s", self.id)
            await self.end(Termination(Result.FAILED, "internal_error", 500, 41, ReleasedBy.SYSTEM))

    @staticmethod
    def _refuse(signal: Signal) -> None:
        if isinstance(signal, Command) and signal.done is not None and not signal.done.done():
            signal.done.set_exception(IllegalTransition("call", CallState.ENDED, "command"))
        elif isinstance(signal, FromSession) and isinstance(signal.event, OfferReceived | Referred):
            signal.event.reject(481)

    # ---- journal ----

    def now(self) -> int:
        """Milliseconds since the epoch, for events."""
        return int(self.context.clock.wall().timestamp() * 1000)

    async def record(self, *events: Event) -> None:
        """Make events durable. JournalError only for the call's very first: then the call must not exist."""
        try:
            await self.context.journal.append(*events)
            self._recorded = True
        except JournalError as error:
            if not self._recorded and self.state is not CallState.ENDED:
                raise SipError(503, "call records cannot be written") from error
            log.error("journal_late call=%s cause=%s", self.id, error)

    async def begin(self, from_number: str, to_number: str, consultation_of: CallId | None = None) -> None:
        """The call exists from here on."""
        await self.record(
            CallStarted(
                call=self.id,
                at=self.now(),
                interaction=self.interaction,
                from_number=from_number,
                to_number=to_number,
                consultation_of=consultation_of,
            )
        )
        log.info(
            "call_started call=%s interaction=%s from=%s to=%s",
            self.id, self.interaction, from_number, to_number,
        )  # fmt: skip

    async def add_leg(self, leg: Leg) -> None:
        """Book a leg; it need not have been answered."""
        self.legs[leg.id] = leg
        leg.post = self.post
        await self.record(
            LegCreated(
                call=self.id,
                at=self.now(),
                leg=leg.id,
                trunk=leg.trunk.name,
                party=leg.identity.party,
                role=leg.role,
                number=leg.number,
                login=leg.identity.login,
                sip_call_id=leg.sip_call_id,
                host=leg.host,
            )
        )

    # ---- what purposes and commands are made of ----

    async def dial(self, leg: Leg, order: Order, purpose: Purpose, *, like: Leg | None = None) -> None:
        """Call a leg's party; `purpose` hears how it goes. `like`: whose codecs to offer first."""
        await self.add_leg(leg)
        dialling = Dialling(self.context, self.id, leg, order, self.record)
        self.dialling[leg.id] = (dialling, purpose)
        try:
            over = await dialling.start(like)
        except SipError as error:
            over = failure(error)
        if over is not None:
            await self._dial_failed(leg, over)

    async def admit(self, *legs: Leg) -> None:
        """These legs talk from now on."""
        self.advance(CallEdge.TALK)
        events: list[Event] = []
        for leg in legs:
            if leg.id not in self.joined:
                self.joined.add(leg.id)
                events.append(LegJoined(call=self.id, at=self.now(), leg=leg.id))
        await self.record(*events)
        await self.rewire()
        if self._max_duration is None:
            limit = min(leg.trunk.settings.max_duration for leg in legs)
            self._max_duration = self.context.clock.call_later(limit, lambda: self.post(MaxDuration()))

    async def step_down(self, leg: Leg) -> None:
        """The leg no longer talks here, though its dialog lives on for a while (a transferor)."""
        self.away.add(leg.id)
        if leg.id in self.joined:
            self.joined.discard(leg.id)
            self.holds = {hold for hold in self.holds if leg.id not in (hold.by, hold.of)}
            await self.record(LegLeft(call=self.id, at=self.now(), leg=leg.id))

    async def note_answer(self, leg: Leg) -> None:
        await self.record(
            LegAnswered(
                call=self.id,
                at=self.now(),
                leg=leg.id,
                codec=str(leg.codec or ""),
                srtp=leg.anchor.remote is not None and leg.anchor.remote.secure,
            )
        )

    async def drop(self, leg: Leg, termination: Termination) -> None:
        """End one leg and take it out of the call; the call itself goes on."""
        entry = self.dialling.pop(leg.id, None)
        if entry is not None:
            entry[0].stop()
        was_up = leg.state is not LegState.ENDED
        self.joined.discard(leg.id)
        self.ringback.discard(leg.id)
        self.muted.discard(leg.id)
        self.away.discard(leg.id)
        self.holds = {hold for hold in self.holds if leg.id not in (hold.by, hold.of)}
        if not was_up:
            return
        statistics = await leg.release(termination)
        events: list[Event] = []
        if leg.anchored:
            events.append(statistics.event(self.id, leg.id, self.now()))
        events.append(
            LegEnded(
                call=self.id,
                at=self.now(),
                leg=leg.id,
                termination=termination,
                correlation=leg.correlation,
            )
        )
        log.log(
            termination.log_level,
            "leg_ended call=%s leg=%s trunk=%s result=%s reason=%s code=%d by=%s text=%r",
            self.id, leg.id, leg.trunk.name, termination.result, termination.reason,
            termination.sip_code, termination.released_by, termination.text,
        )  # fmt: skip
        self.legs.pop(leg.id, None)
        await self.record(*events)

    async def end(self, termination: Termination) -> None:
        """End every leg and the call."""
        if self.state is CallState.ENDED:
            return
        self.advance(CallEdge.END)
        self.termination = termination
        if self._max_duration is not None:
            self._max_duration.cancel()
        for leg in list(self.legs.values()):
            await self.drop(leg, termination)
        await self.wiring.close()
        for task in self._kept:
            task.cancel()
        if self._recorded:
            await self.record(CallEnded(call=self.id, at=self.now(), termination=termination))
        log.log(
            termination.log_level,
            "call_ended call=%s result=%s reason=%s code=%d q850=%d by=%s text=%r",
            self.id, termination.result, termination.reason, termination.sip_code,
            termination.q850, termination.released_by, termination.text,
        )  # fmt: skip

    async def rewire(self) -> None:
        """Make the sound agree with members, holds and mutes."""
        if self.state is CallState.ENDED:
            return
        parties = {leg.id: leg for leg in self.legs.values() if self._takes_part(leg)}
        ringing = {
            leg.id for leg in parties.values() if leg.id not in self.joined and leg.id in self.dialling
        }
        edges = audibility(
            [
                Participant(leg.id, leg.identity.party, host=leg.host, ringing=leg.id in ringing)
                for leg in parties.values()
                if leg.id not in self.away
            ],
            self.holds,
            muted=self.muted,
            music=self.music,
        )
        await self.wiring.apply(
            plan(parties, edges, ringing=ringing),
            parties,
            ringback=self.ringback & parties.keys(),
            on_room_moved=self._room_moved,
        )

    def _takes_part(self, leg: Leg) -> bool:
        return leg.patchable and (leg.id in self.joined or (leg.early and leg.state is not LegState.UP))

    def keep(self, task: asyncio.Task[None]) -> None:
        """Let a task live as long as the call, no longer."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def advance(self, edge: CallEdge) -> None:
        after = _EDGES.get((self.state, edge))
        if after is None:
            raise IllegalTransition("call", self.state, edge)
        if after is not self.state:
            log.debug("call_state call=%s from=%s to=%s", self.id, self.state, after)
        self.state = after

    # ---- the inbox ----

    async def _handle(self, signal: Signal) -> None:
        match signal:
            case FromSession(leg, session, event):
                if leg.session is session and leg.id in self.legs:
                    await self._from_session(leg, event)
                else:
                    self._refuse(signal)
            case Resolved(leg):
                if leg.id in self.dialling:
                    await self._dial_over(leg, await self.dialling[leg.id][0].resolved(signal))
            case AttemptTimeout(leg):
                if leg.id in self.dialling:
                    await self._dial_over(leg, await self.dialling[leg.id][0].gave_nothing(signal))
            case RingTimeout(leg):
                if leg.id in self.dialling:
                    await self._dial_failed(leg, from_timeout(rang=self.dialling[leg.id][0].rang))
            case MaxDuration():
                await self.end(Termination(Result.COMPLETED, "max_duration", 200, 102, ReleasedBy.SYSTEM))
            case MediaLost(leg, silence):
                if leg.id in self.joined:
                    text = "rtpengine lost it" if silence is None else f"no RTP for {silence:.0f} s"
                    lost = Termination(Result.FAILED, "media_lost", 200, 41, ReleasedBy.SYSTEM, text)
                    await self._left(leg, lost)
            case NewKey(leg):
                if leg.id in self.joined:
                    self.keep(asyncio.get_running_loop().create_task(self._rekey(leg), name="rekey"))
            case Command(run, done):
                await _run_command(run, done)

    async def _from_session(self, leg: Leg, event: object) -> None:
        match event:
            case Progress():
                await self._progress(leg, event)
            case Answered():
                await self._answered(leg, event)
            case Failed():
                if leg.id in self.dialling:
                    leg.correlation = correlation_of(event.response) or leg.correlation
                    await self._dial_over(leg, await self.dialling[leg.id][0].failed(event))
            case Cancelled(request):
                await self._left(leg, from_cancel(request.headers.getlist("Reason")))
            case Confirmed(sdp):
                await self._confirmed(leg, sdp)
            case OfferReceived():
                await self._offered(leg, event)
            case OfferAnswered(sdp):
                await leg.take_description(sdp)
            case Referred():
                await self._on_refer(self, leg, event)
            case RequestReceived():
                await self._requested(leg, event)
            case Ended():
                await self._ended(leg, event)

    async def _progress(self, leg: Leg, event: Progress) -> None:
        if leg.id in self.dialling:
            dialling, purpose = self.dialling[leg.id]
            dialling.progress(event)
            await purpose.progress(self, leg, event)

    async def _answered(self, leg: Leg, event: Answered) -> None:
        if leg.id not in self.dialling:
            return
        dialling, purpose = self.dialling[leg.id]
        dialling.answered()
        leg.advance(LegEdge.ANSWER)
        try:
            if event.sdp is None:
                raise SdpError(488, "the answer carries no session description")
            await leg.take_description(event.sdp)
        except SipError as error:
            await self._dial_failed(leg, failure(error))
            return
        del self.dialling[leg.id]
        for timer in leg.timers:
            timer.cancel()
        leg.timers.clear()
        await self.note_answer(leg)
        await purpose.answered(self, leg)

    async def _dial_over(self, leg: Leg, over: Termination | None) -> None:
        if over is not None:
            await self._dial_failed(leg, over)

    async def _dial_failed(self, leg: Leg, termination: Termination) -> None:
        _, purpose = self.dialling[leg.id]
        await self.drop(leg, termination)
        await purpose.failed(self, leg, termination)

    async def _rekey(self, leg: Leg) -> None:
        """Runs beside the inbox, because the peer's answer may take its time."""
        try:
            await leg.rekey()
        except SipError as error:
            log.error("rekey_failed call=%s leg=%s cause=%s", self.id, leg.id, error.text)
            self.post(MediaLost(leg, None))
        else:
            log.info("leg_rekeyed call=%s leg=%s trunk=%s", self.id, leg.id, leg.trunk.name)

    async def _confirmed(self, leg: Leg, sdp: bytes | None) -> None:
        try:
            await leg.confirmed(sdp)
        except SipError as error:
            await self._left(leg, failure(error))
            return
        if sdp is not None:
            await self.rewire()

    async def _offered(self, leg: Leg, event: OfferReceived) -> None:
        """A change a party asks for stays between it and us: the others only notice what they hear."""
        codec = leg.codec
        try:
            answer = await leg.take_offer(event)
        except SdpError as error:
            event.reject(error.code, None, (warning(leg, error),))
            return
        held = leg.anchor.held
        if held != leg.held:
            leg.held = held
            await self.set_hold(leg, held, rewire=False)
        event.answer(answer)
        if leg.codec is not codec:
            self.wiring.renew(leg.id)
        await self.rewire()

    async def set_hold(self, leg: Leg, held: bool, *, rewire: bool = True) -> None:
        """`leg` holds or resumes the call, by description or by command."""
        hold = Hold(leg.id)
        if held == (hold in self.holds):
            return
        kind = LegHeld if held else LegResumed
        await self.record(kind(call=self.id, at=self.now(), leg=leg.id, by=leg.identity.party))
        self.holds = self.holds | {hold} if held else self.holds - {hold}
        log.info("leg_hold call=%s leg=%s trunk=%s held=%s", self.id, leg.id, leg.trunk.name, held)
        if rewire:
            await self.rewire()

    async def _requested(self, leg: Leg, event: RequestReceived) -> None:
        digit = dtmf_of(event.request)
        if digit is None:
            event.respond(415 if event.request.method == "INFO" else 405)
            return
        event.respond(200)
        for other in self.legs.values():
            if other is not leg and other.id in self.joined:
                await other.anchor.send_digit(*digit)

    async def _ended(self, leg: Leg, event: Ended) -> None:
        leg.correlation = correlation_of(event.request) or leg.correlation
        if event.by == "remote" and event.request is not None:
            over = from_bye(event.request.headers.getlist("Reason"), by=ReleasedBy(leg.role.value))
        else:
            reason = {408: "no_ack_or_refresh", 481: "dialog_lost"}.get(event.code, "session_failed")
            over = Termination(Result.FAILED, reason, event.code, 41, ReleasedBy.SYSTEM)
        await self._left(leg, over)

    async def _left(self, leg: Leg, termination: Termination) -> None:
        """A party is gone: those who remain talk on, or it was the end."""
        talked = leg.id in self.joined or leg.role is Role.CALLER
        await self.drop(leg, termination)
        if not talked:
            return
        waiting = [(self.legs[i], p) for i, (_, p) in self.dialling.items() if p.vital and i in self.legs]
        if len(self.joined) >= 2 or (self.joined and waiting):
            await self.rewire()
        elif waiting:
            for other, purpose in waiting:
                await purpose.stranded(self, other, termination)
        else:
            await self.end(termination)

    # ---- rooms ----

    async def _media_moved(self, to: str, cause: str) -> None:
        log.info("media_moved call=%s to=%s cause=%s", self.id, to, cause)
        await self.record(MediaMoved(call=self.id, at=self.now(), to=to, cause=cause))

    def _room_moved(self, room: Room, ports: Mapping[LegId, int], cause: str) -> None:
        async def follow() -> None:
            await self.wiring.repatch(ports, self.legs)
            await self._media_moved(room.name, cause)

        self.post(Command(follow))


async def _run_command(run: Callable[[], Awaitable[Any]], done: asyncio.Future[Any] | None) -> None:
    """A command's failure belongs to the one who gave it and waits, not to the call."""
    if done is None:
        await run()
        return
    try:
        result = await run()
    except Exception as error:
        if done.done():
            raise
        done.set_exception(error)
    else:
        if not done.done():
            done.set_result(result)
