"""A call placed by command: the agent's own telephone rings first, then the number is dialled for him."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.calls.dialling import Order
from gateway.calls.leg import Leg
from gateway.calls.second_party import SecondParty
from gateway.events import LegRinging
from gateway.model import Termination
from gateway.sip.session_events import Progress

if TYPE_CHECKING:
    from gateway.calls.call import Call


class PlacedAgent:
    """Purpose of the agent's leg: once he has answered, `target` is called."""

    vital = False

    def __init__(self, target: Leg, order: Order) -> None:
        self._target, self._order = target, order
        self._told = False

    async def progress(self, call: Call, leg: Leg, event: Progress) -> None:
        if not self._told:
            self._told = True
            await call.record(LegRinging(call=call.id, at=call.now(), leg=leg.id, sip_code=event.code))

    async def answered(self, call: Call, leg: Leg) -> None:
        await call.sit_down(leg)
        await call.dial(self._target, self._order, SecondParty(leg), like=leg)

    async def failed(self, call: Call, leg: Leg, termination: Termination) -> None:
        await call.end(termination)

    async def stranded(self, call: Call, leg: Leg, termination: Termination) -> None:
        await call.end(termination)
