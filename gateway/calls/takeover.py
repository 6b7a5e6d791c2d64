"""INVITE with Replaces from a peer: its new dialog takes the place of a leg we have (RFC 3891).

Teams does it when a queue call is picked up, after a hold with music, and in transfers (facts 6.4). It is
answered here and never sent on; the other party only hears somebody else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.calls.context import CallContext
from gateway.calls.endings import failure, refusal
from gateway.calls.leg import Leg
from gateway.cdr.call_state import REPLACES
from gateway.errors import MediaError, SipError
from gateway.model import ReleasedBy, Result, Termination
from gateway.sip.session import Session
from gateway.trunks.trunk import Recognition

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")

REPLACED = Termination(Result.COMPLETED, "replaced", 200, 16, ReleasedBy.SYSTEM)


class Takeover:
    """Work for the call's task: let the leg of `session` replace `old`."""

    def __init__(
        self, context: CallContext, call: Call, session: Session, origin: Recognition, old: Leg
    ) -> None:
        self._call, self._session, self._old = call, session, old
        who = origin.trunk.caller(session.request.headers)
        self.leg = Leg(
            context.bay,
            origin.trunk,
            tenant=origin.tenant,
            role=old.role,
            identity=old.identity,
            number=who.number or old.number,
            withheld=who.withheld or (old.withheld and not who.number),
            post=call.post,
        )
        self.leg.host = old.host

    async def __call__(self) -> None:
        call, leg, old = self._call, self.leg, self._old
        leg.take_session(self._session)
        if old.id not in call.legs:
            self._session.reject(481)
            return
        if old.id in call.borrowed:
            # its call is held and waits for this very leg; 491 lets the peer try again after the consultation
            self._session.reject(491)
            return
        call.add_leg(leg)
        call.replacing[leg.id] = old.id
        try:
            await self._replace()
        finally:
            call.replacing.pop(leg.id, None)

    async def _replace(self) -> None:
        call, leg = self._call, self.leg
        try:
            await leg.take_call()
            await self._answer()
        except SipError as error:
            log.warning("offer_refused call=%s leg=%s trunk=%s code=%d cause=%s",
                        call.id, leg.id, leg.trunk.name, error.code, error.text)  # fmt: skip
            leg.refusal = refusal(leg, error)
            await call.drop(leg, failure(error))
            return
        if self._session.over:
            # cancelled in the meantime: its news is in the inbox and ends this leg, the old one stays
            return
        await self._swap()

    async def _answer(self) -> None:
        call = self._call
        # a member whose leg is lent to a consultation has none here
        here = [call.legs[leg] for leg in sorted(call.joined) if leg in call.legs]
        others = [leg for leg in here if leg is not self._old]
        await call.records.flush()
        await self.leg.answer(others[0].codec if others else None, call.remembered)

    async def _swap(self) -> None:
        call, leg, old = self._call, self.leg, self._old
        await call.records.answered(leg)
        call.inherit(old, leg)
        ringing = call.dialling.pop(old.id, None)
        if ringing is not None:
            dialling, purpose = ringing
            dialling.stop()
            await note_replaced(call, old, leg)
            await purpose.answered(call, leg)
        else:
            await call.step_down(old)
            try:
                await call.admit(leg)
            except MediaError as error:
                log.error("not_admitted call=%s leg=%s cause=%s", call.id, leg.id, error.text)
                call.inherit(leg, old)
                await call.drop(leg, failure(error))
                await call.take_back(old)
                return
            await note_replaced(call, old, leg)
        await call.drop(old, REPLACED)


async def note_replaced(call: Call, old: Leg, new: Leg) -> None:
    """Into the journal: `new` has the place of `old`."""
    await call.records.transferred(old.id, REPLACES, new.number, "completed", new=new.id)
