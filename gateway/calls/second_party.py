"""The one whom an answered party waits for: the target of a consultation or of a call placed by command."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.calls.leg import Leg
from gateway.errors import SipError
from gateway.events import LegRinging
from gateway.model import Termination
from gateway.sip.session_events import Progress

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")


async def take_early_media(leg: Leg, event: Progress) -> bool:
    """Whether the party can be heard before it answers; what cannot be used is left to the final answer.

    Teams' 183 may carry silence while the user's phones ring (T12): trunks with early_media "ringback" are
    not listened to.
    """
    if leg.early or event.sdp is None or leg.trunk.settings.early_media != "relay":
        return leg.early
    try:
        await leg.take_description(event.sdp)
    except SipError as error:
        log.info("early_media_unusable leg=%s cause=%s", leg.id, error.text)
        return False
    leg.early = True
    return True


class SecondParty:
    """Purpose of a leg for which `waiting`, answered already, hears ringing or early media."""

    vital = False

    def __init__(self, waiting: Leg) -> None:
        self._waiting = waiting
        self._told = False

    async def progress(self, call: Call, leg: Leg, event: Progress) -> None:
        early = await take_early_media(leg, event)
        if not self._told:
            self._told = True
            await call.record(
                LegRinging(call=call.id, at=call.now(), leg=leg.id, sip_code=event.code, early_media=early)
            )
        if early:
            call.ringback.discard(self._waiting.id)
        else:
            call.ringback.add(self._waiting.id)
        await call.settle()

    async def answered(self, call: Call, leg: Leg) -> None:
        call.ringback.discard(self._waiting.id)
        await call.admit(self._waiting, leg)

    async def failed(self, call: Call, leg: Leg, termination: Termination) -> None:
        await call.end(termination)

    async def stranded(self, call: Call, leg: Leg, termination: Termination) -> None:
        await call.end(termination)
