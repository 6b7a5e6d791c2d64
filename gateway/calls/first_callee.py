"""The second half of a plain call: the called party rings, answers or refuses, and the caller is told."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from gateway.calls.leg import Leg, LegState
from gateway.calls.signals import Command
from gateway.errors import SipError
from gateway.events import LegRinging
from gateway.model import Termination
from gateway.sip.session_events import Progress

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")

LOOK_AGAIN = 1.0
"""Seconds until the next look at a peer that has not even said 100."""


class FirstCallee:
    """Purpose of the leg that a caller is waiting for."""

    vital = False

    def __init__(self, caller: Leg) -> None:
        self._caller = caller
        self._told = False

    def watch(self, call: Call, leg: Leg) -> None:
        """From when `leg` is dialled: some callers take a silence for a failure (`progress_after`)."""
        after = self._caller.trunk.settings.progress_after
        if after:
            self._look(call, leg, after)

    def _look(self, call: Call, leg: Leg, after: float) -> None:
        command = Command(partial(self._reassure, call, leg))
        self._caller.timers.append(call.context.clock.call_later(after, lambda: call.post(command)))

    async def _reassure(self, call: Call, leg: Leg) -> None:
        """Nothing rings yet, so nothing is recorded; whatever 18x comes later is told as well."""
        caller = self._caller
        if self._told or caller.state is not LegState.INCOMING or leg.id not in call.dialling:
            return
        if not call.dialling[leg.id][0].heard:
            self._look(call, leg, LOOK_AGAIN)
            return
        log.info("caller_reassured call=%s leg=%s trunk=%s", call.id, caller.id, caller.trunk.name)
        caller.ring()

    async def progress(self, call: Call, leg: Leg, event: Progress) -> None:
        """Relay it: real early media where the trunk has it, otherwise the caller's own ringback.

        Teams' 183 may carry silence while the user's phones ring (T12), so on trunks with early_media
        "ringback" its sound is not passed on.
        """
        early = event.sdp is not None and leg.trunk.settings.early_media == "relay"
        if early and not leg.early:
            early = await self._open(leg, event.sdp or b"")
        if not self._told:
            self._told = True
            await call.record(
                LegRinging(call=call.id, at=call.now(), leg=leg.id, sip_code=event.code, early_media=early)
            )
        if leg.early:
            call.ringback.discard(self._caller.id)
            await call.settle()
        elif self._caller.early:
            # it hears us already, so its own equipment makes no tone any more
            call.ringback.add(self._caller.id)
            await call.settle()
        else:
            self._caller.ring(event.code if event.code in (181, 182) else 180)

    async def _open(self, leg: Leg, sdp: bytes) -> bool:
        try:
            await leg.take_description(sdp)
        except SipError as error:
            # the final answer decides; a fork whose early description is of no use may still answer well
            log.info("early_media_unusable leg=%s cause=%s", leg.id, error.text)
            return False
        leg.early = await self._caller.open_early(leg.codec)
        return leg.early

    async def answered(self, call: Call, leg: Leg) -> None:
        caller = self._caller
        call.ringback.discard(caller.id)
        if caller.state is not LegState.INCOMING:
            return
        await caller.answer(leg.codec, call.remembered)
        if caller.session is not None and caller.session.over:
            # cancelled while its answer was made: that news is in the inbox, and the call ends with it
            return
        await call.records.answered(caller)
        await call.admit(caller, leg)

    async def failed(self, call: Call, leg: Leg, termination: Termination) -> None:
        await call.end(termination)

    async def stranded(self, call: Call, leg: Leg, termination: Termination) -> None:
        await call.end(termination)
