"""After a restart: the calls of the last gateway go on, and those it was setting up are ended with a row.

`restore`, before the listeners open, makes every call, dialog and anchor again, so that the first request of
a peer finds its dialog. `absorb`, in the moment they are open, answers what was left unanswered. `resume`
starts the calls' tasks: each compares its legs with rtpengine, takes its room over, and asks every peer by a
refresh whether it still has the dialog, because what was said in the last moments is in no record: a peer
that has hung up answers 481.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.calls.call import Call, CallState
from gateway.calls.consultation import TRANSFERRED
from gateway.calls.context import CallContext
from gateway.calls.cut_off import mend, settle_loans
from gateway.calls.handover import lender
from gateway.calls.holding import follow_description
from gateway.calls.leg import Leg, LegState
from gateway.calls.registry import CallRegistry
from gateway.calls.remember import (
    Memory,
    Remembered,
    link,
    readable,
    rebuild,
    untangle,
    waiting,
)
from gateway.calls.signals import Command, MediaLost, NewKey
from gateway.calls.snapshots import SnapshotStore
from gateway.cdr.call_state import CallState as Told
from gateway.cdr.call_state import closing_events
from gateway.errors import MediaError, SipError
from gateway.model import CallId, InteractionId, ReleasedBy, Result, Termination
from gateway.sip import orphans
from gateway.sip.sdp import Direction
from gateway.sip.session import Session
from gateway.sip.transaction import TransactionLayer
from gateway.sip.transport import TransportLayer
from media import anchor_state
from media.patchbay import REKEY_AFTER

log = logging.getLogger("tandem.calls")

REASON: Final = "gateway_restart"
AT_ONCE: Final = 20
"""Legs that are compared with rtpengine at the same time."""
REFRESH_EVERY: Final = 0.02
"""Seconds between the refreshes of dialogs, so that a thousand of them are no flood."""


class Restorer:
    """One for the start of a gateway.

    states:  the running calls as the journal tells them (`Recorder.states`)
    revived: whether rtpengine died while no gateway ran, and has its legs back from its Redis
    """

    def __init__(
        self,
        context: CallContext,
        calls: CallRegistry,
        transports: TransportLayer,
        store: SnapshotStore,
        states: Callable[[], Mapping[CallId, Told]],
        revived: Callable[[], bool] = lambda: False,
    ) -> None:
        self._context, self._calls, self._transports = context, calls, transports
        self._store, self._states, self._revived = store, states, revived
        self._resumed = self._engine_back = False
        self._found: dict[CallId, Remembered] = {}
        self._told: dict[CallId, Told] = {}
        self._ahead: list[dict[str, Any]] = []
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._refreshed = 0
        self._telling: set[asyncio.Task[None]] = set()
        context.memory = Memory(store)

    async def restore(self) -> None:
        """Make the calls again; end in the journal those that nobody can. JournalError, MediaUnavailable."""
        records = await self._store.open()
        self._told = dict(self._states())
        for call_id in records.keys() - self._told.keys():
            self._ahead += waiting(records[call_id])
            self._store.drop(call_id)
        records = {call_id: records[call_id] for call_id in self._told if call_id in records}
        for call_id in [call_id for call_id, record in records.items() if not readable(record)]:
            log.error("snapshot_unusable call=%s cause=form", call_id)
            del records[call_id]
        untangle(records, self._told)
        for call_id, told in self._told.items():
            record = records.get(call_id)
            found = self._rebuild(call_id, told, record) if record is not None else None
            if found is None:
                log.warning("call_cut_off call=%s cause=%s", call_id, REASON)
                self._store.drop(call_id)
                await self._context.journal.append(*closing_events(told, self._now()))
            else:
                self._found[call_id] = found
        await self._context.bay.end_strangers()

    def absorb(self, transactions: TransactionLayer) -> None:
        """End the INVITEs that were left unanswered; as soon as the listeners are open (`orphans.tell`)."""
        for session in list(self._context.agent.sessions.values()):
            session.acknowledge_again()
        reason = _cut(answered=False).reason_header
        known = [invite for found in self._found.values() for invite in found.invites]
        for invite in [*self._ahead, *known]:
            work = orphans.tell(self._transports, transactions, invite, 503, reason)
            if work is not None:
                telling = asyncio.get_running_loop().create_task(work, name="orphan")
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)

    def resume(self) -> None:
        """Go on with the calls; everything they need is there."""
        self._resumed = True
        calls = {call_id: found.call for call_id, found in self._found.items()}
        for call_id, found in self._found.items():
            primary = link(found, calls)
            found.call.resume(primary, self._seconds_left(found.call, self._told[call_id]))
        for call_id, found in self._found.items():
            for consultation in settle_loans(found, self._told[call_id]):
                self._found[consultation].over = TRANSFERRED
        for found in self._found.values():
            found.call.start(functools.partial(self._pick_up, found))
        if self._told:
            log.warning("calls_restored calls=%d cut_off=%d",
                        len(self._found), len(self._told) - len(self._found))  # fmt: skip

    def media_restarted(self) -> None:
        """rtpengine came back (Engine.on_restarted), perhaps before there are legs to connect again."""
        if self._resumed:
            self._calls.media_restarted()
        else:
            self._engine_back = True

    async def close(self) -> None:
        """Stop telling peers of lost INVITEs; the calls are others' business."""
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    # ---- inside ----

    def _rebuild(self, call_id: CallId, told: Told, record: Mapping[str, object]) -> Remembered | None:
        call = self._calls.known_call(call_id, InteractionId(told.interaction))
        try:
            return rebuild(self._context, call, record, told)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # not the error's own text: it might quote a key
            log.error("snapshot_unusable call=%s cause=%s", call_id, type(error).__name__)
        for leg in call.legs.values():
            if leg.anchored:
                self._context.bay.forget(leg.anchor)
            if isinstance(leg.session, Session):
                leg.session.abandon()
                self._context.agent.forget(leg.session)
            elif leg.session is not None:
                leg.session.end(503)
        self._calls.unknown_call(call)
        return None

    def _seconds_left(self, call: Call, told: Told) -> float:
        limit = min((leg.trunk.settings.max_duration for leg in call.legs.values()), default=0.0)
        since = told.answer if told.answer is not None else told.start
        return limit - (self._now() - since) / 1000

    async def _pick_up(self, found: Remembered) -> None:
        """The first work of a restored call's task."""
        call = found.call
        lent = [(leg, lender(call, leg)) for leg in call.legs.values() if leg.id in call.borrowed]
        await self._go_on(found)
        if call.state is CallState.ENDED:
            # the lender had chosen whom to ask before it had them back
            for leg, home in lent:
                if home is not None:
                    home.post(Command(functools.partial(self._ask_again, home, leg)))

    async def _go_on(self, found: Remembered) -> None:
        call = found.call
        # before anything is written: what the journal says is from now on also what we write
        over = found.over or self._departure(call) or _cut(answered=call.state is not CallState.SETUP)
        if call.state is CallState.SETUP:
            await call.end(over)
            return
        await call.records.noted(REASON)
        for leg in found.cut:
            await call.drop(leg, over if leg.id in call.joined else _cut(answered=False))
        await mend(found, self._told[call.id])
        legs = [leg for leg in call.legs.values() if leg.state is LegState.UP]
        known = await asyncio.gather(*(self._compare(call, leg) for leg in legs))
        if found.room is not None:
            try:
                await call.sound.adopt(found.room)
            except MediaError as error:
                log.warning("room_not_adopted call=%s cause=%s", call.id, error.text)
        await call.after_departure(over)
        if call.state is CallState.ENDED:
            return
        log.info("call_restored call=%s legs=%d", call.id, len(legs))
        for leg, there in zip(legs, known, strict=True):
            self._ask(call, leg, there, open_end=leg.id in found.doubtful)

    async def _ask_again(self, call: Call, leg: Leg) -> None:
        if leg.id in call.legs:
            self._ask(call, leg, await self._compare(call, leg), open_end=False)

    def _ask(self, call: Call, leg: Leg, there: bool, *, open_end: bool) -> None:
        if there:
            asking = self._refresh(call, leg, open_end=open_end)
            call.keep(asyncio.get_running_loop().create_task(asking, name="refresh"))
        else:
            call.post(MediaLost(leg, None))

    def _departure(self, call: Call) -> Termination | None:
        """How the last who left did so, when everybody else is there: a call that then cannot go on was
        about to end by that.
        """
        told = self._told[call.id]
        if not set(told.members) <= call.joined:
            return None
        ended = [leg for leg in told.legs.values() if leg.ended is not None]
        gone = [leg for leg in ended if leg.answered is not None or call.state is CallState.SETUP]
        return max(gone, key=lambda leg: leg.ended or 0).termination if gone else None

    async def _compare(self, call: Call, leg: Leg) -> bool:
        """Whether rtpengine still has the leg, as recorded."""
        async with self._slots:
            try:
                await anchor_state.verify(leg.anchor)
                if self._revived() or self._engine_back:
                    await self._reconnect(leg)
            except MediaError as error:
                log.error("leg_lost call=%s leg=%s trunk=%s cause=%s",
                          call.id, leg.id, leg.trunk.name, error.text)  # fmt: skip
                return False
        return True

    async def _reconnect(self, leg: Leg) -> None:
        """What rtpengine forgot of the leg when it died (facts media-prototype 10)."""
        created = await leg.anchor.created()
        await leg.anchor.reconnect()
        if leg.anchor.srtp and self._now() / 1000 - created >= REKEY_AFTER:
            leg.post(NewKey(leg))

    async def _refresh(self, call: Call, leg: Leg, *, open_end: bool) -> None:
        """Whether the peer still has the dialog, and holds or not. Beside the inbox: it may take its time.

        open_end: offer both directions whatever was agreed last, so that the answer says what the peer wants
        """
        self._refreshed += 1
        await asyncio.sleep(self._refreshed * REFRESH_EVERY)
        session, local = leg.session, leg.anchor.local
        if session is None or session.over or local is None:
            return
        try:
            direction = Direction.SENDRECV if open_end else local.direction
            await leg.anchor.accept_answer(await session.offer(await leg.anchor.local_offer(direction)))
        except SipError as error:
            # 481 and a mute peer have ended the session, and the call knows; others have their reasons
            log.info("refresh_refused call=%s leg=%s code=%d", call.id, leg.id, error.code)
            return
        if leg.anchor.held != leg.held:
            leg.post(Command(functools.partial(_hold_as_described, call, leg)))

    def _now(self) -> int:
        return int(self._context.clock.wall().timestamp() * 1000)


async def _hold_as_described(call: Call, leg: Leg) -> None:
    if leg.id in call.legs and await follow_description(call, leg):
        await call.settle()


def _cut(*, answered: bool) -> Termination:
    """As `closing_events` would have it."""
    return Termination(Result.FAILED, REASON, 200 if answered else 503, 41, ReleasedBy.SYSTEM)
