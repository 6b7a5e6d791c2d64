"""The one who is brought into a running call: those present hear how it goes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.calls.audibility import Supervision
from gateway.calls.endings import failure
from gateway.calls.leg import Leg
from gateway.calls.second_party import take_early_media
from gateway.errors import MediaError
from gateway.events import LegRinging
from gateway.model import Termination
from gateway.sip.session_events import Progress

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")


class AddedParty:
    """Purpose of a leg that joins the others when it answers.

    supervision: set for a supervisor, of whom those present hear and know nothing
    """

    def __init__(self, supervision: Supervision | None = None) -> None:
        self._supervision = supervision
        self._told = False
        self.vital = supervision is None

    async def progress(self, call: Call, leg: Leg, event: Progress) -> None:
        quiet = self._supervision is not None
        early = not quiet and await take_early_media(leg, event)
        if not self._told:
            self._told = True
            await call.record(
                LegRinging(call=call.id, at=call.now(), leg=leg.id, sip_code=event.code, early_media=early)
            )
        if quiet:
            return
        try:
            if early:
                await call.sound.announce_early_media(leg)
            else:
                await call.sound.announce_ringing(leg)
        except MediaError as error:
            # without a room nobody hears it ring; whether there is one when it answers decides
            log.warning("progress_not_heard call=%s leg=%s cause=%s", call.id, leg.id, error.text)
            call.sound.ringing_over(leg)
            leg.early = False
            await call.settle()

    async def answered(self, call: Call, leg: Leg) -> None:
        call.sound.ringing_over(leg)
        try:
            if self._supervision is not None:
                # whom he supervises may have changed telephones while his own rang
                await call.supervise(leg, call.supervisors.get(leg.id, self._supervision))
            await call.admit(leg)
        except MediaError as error:
            log.error("not_admitted call=%s leg=%s cause=%s", call.id, leg.id, error.text)
            await call.leave(leg, failure(error))

    async def failed(self, call: Call, leg: Leg, termination: Termination) -> None:
        """The others go on; one who was left alone meanwhile has nobody to wait for any more."""
        await call.after_departure(termination)

    async def stranded(self, call: Call, leg: Leg, termination: Termination) -> None:
        await call.end(termination)
