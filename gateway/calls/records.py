"""A call's entries in the journal: what is written when, and what happens when it cannot be."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gateway.calls.audibility import Supervision
from gateway.calls.context import CallContext
from gateway.calls.leg import Leg
from gateway.errors import JournalError, Overloaded
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
    LegMuted,
    LegResumed,
    LegTransferred,
    MediaMoved,
    Noted,
    StageEntered,
    Waited,
)
from gateway.model import CallId, InteractionId, LegId, Termination
from media.quality import LegStatistics

log = logging.getLogger("tandem.calls")


class CallRecords:
    """The journal as one call sees it.

    Methods return when their events are durable, but for `started` and `created`: these become durable with
    whatever is written next, which is before the first INVITE or answer leaves. One sync instead of four.

    begun: the call has an entry; what comes later is logged and lost rather than an end of the call
    """

    def __init__(self, context: CallContext, call: CallId) -> None:
        self._context, self._call = context, call
        self.begun = False
        self._ahead: list[Event] = []

    def now(self) -> int:
        """Milliseconds since the epoch, for events."""
        return int(self._context.clock.wall().timestamp() * 1000)

    async def write(self, *events: Event) -> None:
        """Overloaded only for the call's very first event: a call without records must not exist."""
        if not await self._append(events) and not self.begun:
            raise Overloaded("no_disk", "call records cannot be written")

    async def flush(self) -> None:
        """Make durable what `started` and `created` have left waiting."""
        await self.write()

    async def _append(self, events: Sequence[Event]) -> bool:
        """Whether they are durable now, together with those that were waiting."""
        batch, self._ahead = [*self._ahead, *events], []
        if not batch:
            return True
        try:
            await self._context.journal.append(*batch)
        except JournalError as error:
            log.error("journal_late call=%s cause=%s", self._call, error)
            return False
        self.begun = True
        return True

    def started(
        self, interaction: InteractionId, from_number: str, to_number: str, consultation_of: CallId | None
    ) -> None:
        self._ahead.append(
            CallStarted(
                call=self._call,
                at=self.now(),
                interaction=interaction,
                from_number=from_number,
                to_number=to_number,
                consultation_of=consultation_of,
            )
        )
        log.info(
            "call_started call=%s interaction=%s from=%s to=%s consultation_of=%s",
            self._call, interaction, from_number, to_number, consultation_of or "",
        )  # fmt: skip

    def waited(self, ivr_ms: int, queue_ms: int) -> None:
        """What the caller had waited before; goes out with `started`."""
        if ivr_ms or queue_ms:
            self._ahead.append(Waited(call=self._call, at=self.now(), ivr_ms=ivr_ms, queue_ms=queue_ms))

    def created(self, leg: Leg) -> None:
        self._ahead.append(
            LegCreated(
                call=self._call,
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

    async def answered(self, leg: Leg) -> None:
        secure = leg.anchor.remote is not None and leg.anchor.remote.secure
        await self.write(
            LegAnswered(call=self._call, at=self.now(), leg=leg.id, codec=str(leg.codec or ""), srtp=secure)
        )

    async def joined(self, *legs: Leg) -> None:
        # one moment for all: a millisecond between them would be a segment of its own
        at = self.now()
        await self.write(*(LegJoined(call=self._call, at=at, leg=leg.id) for leg in legs))

    async def left(self, *legs: Leg) -> None:
        at = self.now()
        await self.write(*(LegLeft(call=self._call, at=at, leg=leg.id) for leg in legs))

    async def held(self, leg: Leg) -> None:
        await self.write(LegHeld(call=self._call, at=self.now(), leg=leg.id, by=leg.identity.party))

    async def resumed(self, leg: Leg) -> None:
        await self.write(LegResumed(call=self._call, at=self.now(), leg=leg.id, by=leg.identity.party))

    async def muted(self, leg: Leg, *, muted: bool) -> None:
        await self.write(LegMuted(call=self._call, at=self.now(), leg=leg.id, muted=muted))

    async def noted(self, what: str, leg: Leg | None = None, **detail: str) -> None:
        who = None if leg is None else leg.id
        await self.write(Noted(call=self._call, at=self.now(), what=what, leg=who, detail=dict(detail)))

    async def supervising(self, leg: Leg, supervision: Supervision) -> None:
        await self.noted("supervision", leg, mode=supervision.mode.value, of=supervision.of)

    async def transferred(
        self, leg: LegId, mode: str, target: str, outcome: str, *, new: LegId | None = None, code: int = 0
    ) -> None:
        """`leg` transfers the call; `new` has its place, or `code` is why not."""
        await self.write(
            LegTransferred(
                call=self._call,
                at=self.now(),
                leg=leg,
                mode=mode,
                target=target,
                outcome=outcome,
                new_leg=new,
                sip_code=code,
            )
        )

    async def stage(self, stage: str) -> None:
        await self.write(StageEntered(call=self._call, at=self.now(), stage=stage))

    async def moved(self, to: str, cause: str) -> None:
        log.info("media_moved call=%s to=%s cause=%s", self._call, to, cause)
        await self.write(MediaMoved(call=self._call, at=self.now(), to=to, cause=cause))

    async def leg_ended(
        self, leg: Leg, termination: Termination, statistics: LegStatistics | None = None
    ) -> None:
        """`statistics` of a leg that had media; None where another call's records have them."""
        events: list[Event] = []
        if statistics is not None:
            events.append(statistics.event(self._call, leg.id, self.now()))
        events.append(
            LegEnded(
                call=self._call,
                at=self.now(),
                leg=leg.id,
                termination=termination,
                correlation=leg.correlation,
            )
        )
        log.log(
            termination.log_level,
            "leg_ended call=%s leg=%s trunk=%s result=%s reason=%s code=%d by=%s text=%r",
            self._call, leg.id, leg.trunk.name, termination.result, termination.reason,
            termination.sip_code, termination.released_by, termination.text,
        )  # fmt: skip
        await self._append(events)

    async def ended(self, termination: Termination) -> None:
        if self.begun:
            await self._append([CallEnded(call=self._call, at=self.now(), termination=termination)])
        log.log(
            termination.log_level,
            "call_ended call=%s result=%s reason=%s code=%d q850=%d by=%s text=%r",
            self._call, termination.result, termination.reason, termination.sip_code,
            termination.q850, termination.released_by, termination.text,
        )  # fmt: skip
