"""A call: the legs that talk to each other, one task and one inbox.

Everything that happens to it comes through the inbox and is handled one after the other: journal first,
then the effect. What a dialled leg is for (first callee, transfer target, added party) is a `Purpose`; holds,
mutes and members are data, and `rewire` makes the sound agree with them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.calls.audibility import Hold, MusicPolicy, Supervision, SupervisorMode
from gateway.calls.call_task import CallEdge as CallEdge
from gateway.calls.call_task import CallState as CallState
from gateway.calls.call_task import CallTask, run_command
from gateway.calls.context import CallContext
from gateway.calls.dialling import Dialling, Order
from gateway.calls.endings import failure
from gateway.calls.handover import give_back
from gateway.calls.holding import forget_holds, hold_as_described, no_longer_holding
from gateway.calls.hosting import host_left
from gateway.calls.leg import Leg, LegState
from gateway.calls.limits import Limits
from gateway.calls.news import News
from gateway.calls.page_leg import dialling_of
from gateway.calls.purpose import Purpose as Purpose
from gateway.calls.purpose import ReferHandler as ReferHandler
from gateway.calls.records import CallRecords
from gateway.calls.signals import (
    AttemptTimeout,
    Command,
    FromSession,
    HandedOver,
    MaxDuration,
    MediaLost,
    NewKey,
    Resolved,
    RingTimeout,
    Signal,
)
from gateway.calls.sound import CallSound
from gateway.clock import TimerHandle
from gateway.errors import MediaError, SipError
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
from gateway.trunks.reasons import from_timeout

log = logging.getLogger("tandem.calls")

SUPERVISED_LEFT = Termination(Result.COMPLETED, "supervised_left", 200, 16, ReleasedBy.SYSTEM)
LATE, LATE_AGAIN = 20, 0.5
"""How often, and after how many seconds, sound that could not be connected is tried again."""


@dataclass(frozen=True, slots=True)
class Loan:
    """A leg whose party is away in a consultation and still a member here."""

    leg: Leg
    to: Call
    role: Role


class Call(CallTask):
    """One B2BUA call: `start` its task, then `post` signals.

    joined:      answered legs that take part, also those that are lent
    away:        legs that take no part in the sound for a while (a transferor)
    ringback:    legs that hear ringing instead of the others
    supervisors: joined legs that listen, whisper or barge in
    lent:        members who are in a consultation; their leg is in that call's hands
    held_at:     since when a leg has held the call or somebody in it, milliseconds
    primary:     the held call that this one is a consultation of
    passing:     legs handed to another call that has not yet written down that it has them
    borrowed:    legs that go back to the call that lent them when this one ends
    replacing:   legs that have been answered to take the place of another, and that one
    """

    def __init__(
        self,
        context: CallContext,
        *,
        on_end: Callable[[Call], None],
        on_refer: ReferHandler,
        limits: Limits,
        primary: Call | None = None,
        known_as: tuple[CallId, InteractionId] | None = None,
    ) -> None:
        """`known_as`: its ids when it is made again after a restart."""
        super().__init__(context)
        self.id, interaction = known_as or (new_call_id(), new_interaction_id())
        self.from_number = self.to_number = ""
        self.started_at = 0
        self.legs: dict[LegId, Leg] = {}
        self.joined: set[LegId] = set()
        self.holds: set[Hold] = set()
        self.muted: set[LegId] = set()
        self.ringback: set[LegId] = set()
        self.away: set[LegId] = set()
        self.supervisors: dict[LegId, Supervision] = {}
        self.lent: dict[LegId, Loan] = {}
        self.borrowed: set[LegId] = set()
        self.replacing: dict[LegId, LegId] = {}
        self.passing: dict[LegId, Leg] = {}
        self.answered_at: dict[LegId, int] = {}
        self.held_at: dict[LegId, int] = {}
        self.music = MusicPolicy(context.config.media.hold_music)
        self.dialling: dict[LegId, tuple[Dialling, Purpose]] = {}
        self.termination: Termination | None = None
        self.records = CallRecords(context, self.id)
        self.sound = CallSound(context, self)
        self._primary = primary
        self.interaction: InteractionId = primary.interaction if primary else interaction
        self._news = News(self, on_refer)
        self._on_end, self._limits = on_end, limits
        self.record, self.now = self.records.write, self.records.now
        self._max_duration: TimerHandle | None = None
        self._wiring_again: TimerHandle | None = None
        self._late = 0

    @property
    def primary(self) -> Call | None:
        """The held call this one is a consultation of; when that has ended, the one it was one of itself."""
        above = self._primary
        while above is not None and above.state is CallState.ENDED:
            above = above._primary
        return above

    def above(self) -> Iterator[Call]:
        """The held calls that this is a consultation of, one of the next: the nearest first."""
        call = self.primary
        while call is not None:
            yield call
            call = call.primary

    @property
    def parties(self) -> set[LegId]:
        """Those who keep the call alive: joined, and no supervisor that only listens or whispers."""
        return {leg for leg in self.joined if not self.aloof(leg)}

    def aloof(self, leg: LegId) -> bool:
        """Whether the others do not have the leg among them: a supervisor who does not barge in."""
        supervision = self.supervisors.get(leg)
        return supervision is not None and supervision.mode is not SupervisorMode.BARGE

    # ---- restart ----

    def remember(self) -> None:
        """Something changed that the next gateway has to know; it is written in a moment."""
        if self.context.memory is not None and self.state is not CallState.ENDED:
            self.context.memory.mark(self)
            if self.borrowed and self.primary is not None:
                self.primary.remember()

    async def remembered(self) -> None:
        """As `remember`; returns when it is written."""
        if self.context.memory is not None and self.state is not CallState.ENDED:
            await self.context.memory.save(self)

    def halt(self) -> None:
        self._stop_timers()
        for leg in self.legs.values():
            leg.stop_timers()
        self.sound.freeze()

    def _stop_timers(self) -> None:
        for timer in (self._max_duration, self._wiring_again):
            if timer is not None:
                timer.cancel()

    def resume(self, primary: Call | None, left: float) -> None:
        """After a restart, before `start`: `primary` as in the constructor, `left` seconds may it last."""
        self._primary = primary
        self._max_duration = self.context.clock.call_later(max(left, 0.0), lambda: self.post(MaxDuration()))

    # ---- life ----

    def begin(self, from_number: str, to_number: str) -> None:
        """The call exists from here on."""
        self.from_number, self.to_number, self.started_at = from_number, to_number, self.records.now()
        of = self._primary.id if self._primary is not None else None
        self.records.started(self.interaction, from_number, to_number, of)

    def add_leg(self, leg: Leg) -> None:
        """Book a leg; it need not have been answered."""
        self.legs[leg.id] = leg
        leg.post = self.post
        self.records.created(leg)

    # ---- what purposes and commands are made of ----

    async def dial(self, leg: Leg, order: Order, purpose: Purpose, *, like: Leg | None = None) -> None:
        """Call a leg's party; `purpose` hears how it goes. `like`: whose codecs to offer first."""
        self.add_leg(leg)
        dialling = dialling_of(self.context, self.id, leg, order, self.records.write)
        dialling.remembered = self.remembered
        self.dialling[leg.id] = (dialling, purpose)
        try:
            self._limits.check_outgoing(leg.trunk)
            over = await dialling.start(like)
        except SipError as error:
            over = failure(error)
        await self.dial_over(leg, over)

    async def dial_over(self, leg: Leg, over: Termination | None) -> None:
        """A dialled leg has failed for good; None: it goes on."""
        if over is not None:
            _, purpose = self.dialling[leg.id]
            await self.drop(leg, over)
            await purpose.failed(self, leg, over)

    async def admit(self, *legs: Leg) -> None:
        """These legs take part from now on. MediaError: nothing of it is undone."""
        self.advance(CallEdge.TALK)
        new = [leg for leg in legs if leg.id not in self.joined]
        self.joined.update(leg.id for leg in new)
        await self.records.joined(*(leg for leg in new if not self.aloof(leg.id)))
        for leg in new:
            self.answered_at.setdefault(leg.id, self.records.now())
            await hold_as_described(self, leg)
        await self.rewire()
        if new and not all(self.aloof(leg.id) for leg in new):
            await self.sound.join_tone()
        if self._max_duration is None and legs:
            limit = min(leg.trunk.settings.max_duration for leg in legs)
            self._max_duration = self.context.clock.call_later(limit, lambda: self.post(MaxDuration()))

    async def supervise(self, leg: Leg, supervision: Supervision) -> None:
        """How a supervisor takes part; only one who barges in is a member for the records."""
        was_aloof = self.aloof(leg.id)
        self.supervisors[leg.id] = supervision
        await self.records.supervising(leg, supervision)
        if leg.id in self.joined and was_aloof != self.aloof(leg.id):
            await (self.records.joined(leg) if was_aloof else self.records.left(leg))
        await self.rewire()

    async def sit_down(self, leg: Leg) -> None:
        """An answered leg is a member, alone: nobody talks yet."""
        self.joined.add(leg.id)
        self.answered_at.setdefault(leg.id, self.now())
        await self.records.joined(leg)
        await hold_as_described(self, leg)
        await self.rewire()

    async def take_back(self, leg: Leg) -> None:
        """A leg that had stepped down takes part again."""
        self.away.discard(leg.id)
        try:
            await self.admit(leg)
        except MediaError as error:
            log.error("not_heard call=%s leg=%s cause=%s", self.id, leg.id, error.text)
            self._wire_later()

    async def step_down(self, leg: Leg) -> None:
        """The leg no longer talks here, though its dialog lives on for a while (a transferor)."""
        self.away.add(leg.id)
        if leg.id in self.joined:
            self.joined.discard(leg.id)
            free = forget_holds(self, leg.id)
            await self.records.left(leg)
            await no_longer_holding(self, free)

    def forget(self, leg: Leg) -> list[Leg]:
        """Take a leg out of every list of ours; nothing is told to anybody. As `forget_holds`."""
        entry = self.dialling.pop(leg.id, None)
        if entry is not None:
            entry[0].stop()
        self.sound.ringing_over(leg)
        self.joined.discard(leg.id)
        for group in (self.ringback, self.muted, self.away, self.borrowed):
            group.discard(leg.id)
        self.supervisors.pop(leg.id, None)
        self.lent.pop(leg.id, None)
        self.answered_at.pop(leg.id, None)
        self.legs.pop(leg.id, None)
        return forget_holds(self, leg.id)

    async def drop(self, leg: Leg, termination: Termination) -> None:
        """End one leg and take it out of the call; the call itself goes on."""
        borrowed = leg.id in self.borrowed
        free = self.forget(leg)
        await no_longer_holding(self, free)
        if leg.state is LegState.ENDED:
            return
        anchored = leg.anchored
        statistics = await leg.release(termination)
        await self.records.leg_ended(leg, termination, statistics if anchored else None)
        await host_left(self, leg)
        if borrowed:
            self._tell_lenders(leg, termination)

    def _tell_lenders(self, leg: Leg, termination: Termination) -> None:
        """From call to call upwards, whatever becomes of one of them meanwhile."""
        above = self.primary
        if above is not None:
            again = functools.partial(above._tell_lenders, leg, termination)
            above.post(Command(functools.partial(above.lost, leg, termination), too_late=again))

    async def lost(self, leg: Leg, termination: Termination) -> None:
        """A member whose leg was lent is gone."""
        self._tell_lenders(leg, termination)
        await self.parted(leg, termination)

    async def parted(self, leg: Leg, termination: Termination) -> None:
        """A member whose leg was lent does not come back here."""
        if leg.id in self.lent:
            free = self.forget(leg)
            await self.records.leg_ended(leg, termination)
            await no_longer_holding(self, free)
            await host_left(self, leg)
            await self.after_departure(termination)

    async def leave(self, leg: Leg, termination: Termination) -> None:
        """A party is gone: those who remain talk on, or it was the end."""
        talked = leg.id in self.joined or leg.role is Role.CALLER
        await self.drop(leg, termination)
        if talked:
            await self.after_departure(termination)

    async def dismiss(self) -> None:
        """Whoever only listens to a party, or whispers to it, goes when it has gone: nobody knows of him."""
        for supervisor, supervision in list(self.supervisors.items()):
            if supervision.of not in self.joined and self.aloof(supervisor) and supervisor in self.legs:
                await self.drop(self.legs[supervisor], SUPERVISED_LEFT)

    def inherit(self, old: Leg, new: Leg) -> None:
        """Another leg of the same party takes the place of `old`: it is the host, and its supervisors its."""
        if old.host:
            old.host, new.host = False, True
        for supervisor, supervision in self.supervisors.items():
            if supervision.of == old.id:
                self.supervisors[supervisor] = Supervision(supervision.mode, new.id)

    async def after_departure(self, termination: Termination) -> None:
        """Somebody left with `termination`: whether the call goes on, and as what."""
        await self.dismiss()
        waiting = [(self.legs[i], p) for i, (_, p) in self.dialling.items() if p.vital and i in self.legs]
        here = self.parties - self.away
        if len(here) >= 2 or (here and waiting):
            await self.settle()
        elif waiting:
            for other, purpose in waiting:
                await purpose.stranded(self, other, termination)
        else:
            await self.end(termination)

    async def end(self, termination: Termination) -> None:
        """End every leg and the call; borrowed legs go back to where they came from."""
        if self.state is CallState.ENDED:
            return
        self.advance(CallEdge.END)
        self.termination = termination
        self._stop_timers()
        await give_back(self)
        for leg in list(self.legs.values()):
            await self.drop(leg, termination)
        await self.sound.close()
        for task in self._kept:
            task.cancel()
        await self.records.ended(termination)
        if self.context.memory is not None:
            self.context.memory.drop(self)

    def ended(self) -> None:
        self._on_end(self)

    async def rewire(self) -> None:
        """Make the sound agree with members, holds and mutes. MediaError: it does not, in part."""
        if self.state is not CallState.ENDED:
            await self.sound.rewire()
            self._late = 0

    async def settle(self) -> None:
        """As `rewire`, for a change that cannot be refused any more: those who talk go on talking.

        What rtpengine or the rooms cannot do now is tried again; MediaError after `LATE` times in a row.
        """
        try:
            await self.rewire()
        except MediaError as error:
            log.error("sound_late call=%s times=%d cause=%s", self.id, self._late, error.text)
            if self._late >= LATE:
                raise
            self._wire_later()

    def _wire_later(self) -> None:
        self._late += 1
        if self._wiring_again is not None:
            self._wiring_again.cancel()
        self._wiring_again = self.context.clock.call_later(
            LATE_AGAIN, lambda: self.post(Command(self.settle))
        )

    # ---- the inbox ----

    async def handle(self, signal: Signal) -> None:
        match signal:
            case FromSession(leg, session, event):
                if leg.session is session and leg.id in self.legs:
                    await self._news(leg, event)
                else:
                    self._refuse(signal)
            case Resolved(leg):
                if leg.id in self.dialling:
                    await self.dial_over(leg, await self.dialling[leg.id][0].resolved(signal))
            case AttemptTimeout(leg):
                if leg.id in self.dialling:
                    await self.dial_over(leg, await self.dialling[leg.id][0].gave_nothing(signal))
            case RingTimeout(leg):
                if leg.id in self.dialling:
                    await self.dial_over(leg, from_timeout(rang=self.dialling[leg.id][0].rang))
            case MaxDuration():
                await self.end(Termination(Result.COMPLETED, "max_duration", 200, 102, ReleasedBy.SYSTEM))
            case MediaLost(leg):
                if leg.id in self.legs:
                    await self._news.media_lost(leg, signal)
                else:
                    self._refuse(signal)
            case NewKey(leg):
                if leg.id in self.legs:
                    self._news.new_key(leg)
                else:
                    self._refuse(signal)
            case HandedOver():
                try:
                    await signal.accept()
                except SipError as error:
                    signal.error = error.text
                    raise
                finally:
                    signal.settled.set()
            case Command(run, done):
                await run_command(run, done)
