"""Whom a transfer goes to: takes the transferor's place when he answers, gives it back when he does not."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.calls.consultation import TRANSFERRED
from gateway.calls.endings import failure
from gateway.calls.handover import let_go
from gateway.calls.leg import Leg
from gateway.calls.refer_to import ReferTarget
from gateway.calls.signals import Command
from gateway.errors import MediaError
from gateway.events import LegRinging
from gateway.model import LegId, ReleasedBy, Result, Termination
from gateway.sip.refer import Referred
from gateway.sip.session_events import Progress

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")

TRANSFEROR_LINGERS = 32.0
"""Seconds the transferor has for its own BYE after our final NOTIFY (Teams sends it); then ours goes out."""


def transferring(call: Call) -> bool:
    """Whether a transfer of the call is under way."""
    return any(isinstance(purpose, TransferTarget) for _, purpose in call.dialling.values())


class TransferTarget:
    """Purpose of the leg a transfer goes to.

    refer:    None when a command asked for it
    attended: the transferor has called the target himself before
    """

    vital = True

    def __init__(
        self, transferor: Leg, refer: Referred | None, target: ReferTarget, *, attended: bool = False
    ) -> None:
        self._transferor, self._refer, self._target = transferor, refer, target
        self._attended = attended
        self._waits: LegId | None = None
        self._rang = False

    @property
    def _mode(self) -> str:
        referred_by = self._refer.referred_by if self._refer is not None else ""
        known = self._attended or "x-tt=" in referred_by or bool(self._target.replaces)
        return "attended" if known else "blind"

    async def start(self, call: Call) -> None:
        """The transferor steps aside; the one who waits hears ringing, the members of a conference go on."""
        others = [leg for leg in call.parties if leg != self._transferor.id]
        # first that there is somebody to be told how it ends, then that it has begun
        await call.remembered()
        await self._note(call, "started")
        call.away.add(self._transferor.id)
        if len(others) == 1:
            self._waits = others[0]
            call.ringback.add(self._waits)
        await call.settle()

    async def progress(self, call: Call, leg: Leg, event: Progress) -> None:
        await self.rang(call, leg, event.code, event.phrase)

    async def rang(self, call: Call, leg: Leg, code: int = 180, phrase: str | None = None) -> None:
        """It rings, or did so before it became the target of this transfer."""
        if self._refer is not None:
            self._refer.notify(code, phrase)
        if self._rang:
            return
        self._rang = True
        await call.record(LegRinging(call=call.id, at=call.now(), leg=leg.id, sip_code=code))

    async def answered(self, call: Call, leg: Leg) -> None:
        """Re-bridge to the new leg first, tell the transferor then (facts 6.3.4)."""
        call.ringback.discard(self._waits or leg.id)
        await call.step_down(self._transferor)
        try:
            await call.admit(leg)
        except MediaError as error:
            await self._not_admitted(call, leg, error)
            return
        await self._note(call, "completed", leg)
        await call.dismiss()
        if self._refer is not None:
            self._refer.notify(200, final=True)
            let_linger(call, self._transferor, self._refer)
        elif self._transferor.id in call.legs:
            await let_go(call, self._transferor, TRANSFERRED, transferred=call)

    async def _not_admitted(self, call: Call, leg: Leg, error: MediaError) -> None:
        """He has answered and cannot be heard: it is a transfer that failed, and the others talk on."""
        log.error("not_admitted call=%s leg=%s cause=%s", call.id, leg.id, error.text)
        over = failure(error)
        await call.drop(leg, over)
        if self._transferor.id in call.legs:
            await call.take_back(self._transferor)
        await self.failed(call, leg, over)

    async def failed(self, call: Call, leg: Leg, termination: Termination) -> None:
        """The original parties get each other back; with nobody to go back to it is the end."""
        if self._refer is not None:
            self._refer.notify(termination.sip_code, final=True)
        await self._note(call, "failed", code=termination.sip_code)
        call.ringback.discard(self._waits or leg.id)
        call.away.discard(self._transferor.id)
        await call.after_departure(termination)

    async def stranded(self, call: Call, leg: Leg, termination: Termination) -> None:
        """The one who was to be transferred hung up: nobody is left to talk to the target."""
        if self._refer is not None:
            self._refer.notify(487, final=True)
        await call.end(termination)

    async def _note(self, call: Call, outcome: str, leg: Leg | None = None, code: int = 0) -> None:
        log.info("transfer call=%s leg=%s mode=%s outcome=%s code=%d",
                 call.id, self._transferor.id, self._mode, outcome, code)  # fmt: skip
        target, new = self._target.user or self._target.host, leg.id if leg is not None else None
        await call.records.transferred(self._transferor.id, self._mode, target, outcome, new=new, code=code)


def let_linger(call: Call, transferor: Leg, refer: Referred) -> None:
    """The transferor hangs up itself; if it does not, our BYE goes out after the final NOTIFY's answer
    (T18).
    """
    if transferor.id not in call.legs:
        return

    async def over() -> None:
        if transferor.id in call.legs:
            done = Termination(Result.COMPLETED, "transferred", 200, 16, ReleasedBy.SYSTEM)
            await call.drop(transferor, done)

    async def linger() -> None:
        await refer.finished.wait()
        await asyncio.sleep(TRANSFEROR_LINGERS)
        call.post(Command(over))

    call.keep(asyncio.get_running_loop().create_task(linger(), name=f"transferor-{transferor.id}"))
