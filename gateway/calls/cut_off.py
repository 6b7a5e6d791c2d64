"""What a kill cut off half-way in a call: finished where its parties have seen the end, else taken back.

The journal is durable at once, the record of a call is written a moment later: the two may be a step apart.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway.calls.call import Call
from gateway.calls.consultation import TRANSFERRED
from gateway.calls.holding import set_hold
from gateway.calls.leg import Leg
from gateway.calls.remember import Remembered
from gateway.cdr.call_state import CallState as Told
from gateway.errors import SipError
from gateway.events import LegLeft, LegTransferred
from gateway.sip.session import Session

log = logging.getLogger("tandem.calls")

NOTIFY_LIMIT: Final = 8.0


async def mend(found: Remembered, told: Told) -> None:
    """Make the journal and the restored call agree; in the call's task, before its sound is connected.

    told: the call by the journal, which goes on with what is written here
    """
    await _write_missing(found.call, told)
    await _mend_loans(found.call, told)
    await _end_transfers(found, told)


async def _write_missing(call: Call, told: Told) -> None:
    """A call that was being answered may be up by its record, and not yet by the journal."""
    for leg in [leg for leg in call.legs.values() if leg.id in call.joined]:
        if told.legs[leg.id].answered is None:
            await call.records.answered(leg)
        call.answered_at.setdefault(leg.id, call.now())
        if leg.id not in told.members and not call.aloof(leg.id):
            await call.records.joined(leg)
        elif leg.id in told.members and call.aloof(leg.id):
            # his change of mode was cut off: he listens, and is none of the others'
            await call.records.left(leg)


async def _mend_loans(call: Call, told: Told) -> None:
    """A merge or transfer that was cut off half-way has not been: who is still in his consultation is a
    member on hold here, and those who had just come from there are none.
    """
    gone = [leg for leg in told.members if leg not in call.joined and told.legs[leg].ended is None]
    for loan in call.lent.values():
        if loan.leg.id not in told.members and not call.aloof(loan.leg.id):
            await call.records.joined(loan.leg)
        await set_hold(call, loan.leg, True)
    for leg in gone:
        await call.record(LegLeft(call=call.id, at=call.now(), leg=leg))


async def _end_transfers(found: Remembered, told: Told) -> None:
    """One whose target has answered is done; any other that was under way has failed, and the transferor
    is a party again.
    """
    call = found.call
    for transfer in [one for one in told.transfers if one.outcome == "started"]:
        new = next(iter(sorted(found.fresh - {transfer.leg})), None)
        if new is None and transfer.leg not in call.legs:
            continue
        done = LegTransferred(
            call=call.id,
            at=call.now(),
            leg=transfer.leg,
            mode=transfer.mode,
            target=transfer.target,
            outcome="failed" if new is None else "completed",
            new_leg=new,
            sip_code=503 if new is None else 0,
        )
        await call.record(done)
        leg = call.legs.get(transfer.leg)
        if leg is None:
            continue
        if new is not None:
            await call.step_down(leg)
            continue
        call.away.discard(leg.id)
        if leg.id not in call.joined:
            call.joined.add(leg.id)
            await call.records.joined(leg)
        if leg.id in found.referred:
            await _tell_transferor(leg, "503 Service Unavailable")
    for leg in [call.legs[leg] for leg in sorted(call.away) if leg in call.legs]:
        if leg.id in found.referred:
            await _tell_transferor(leg, "200 OK")
        await call.drop(leg, TRANSFERRED)


async def _tell_transferor(leg: Leg, status: str) -> None:
    """The final NOTIFY of a REFER whose subscription died with the last gateway (T18: before any BYE)."""
    if not isinstance(leg.session, Session):
        return
    headers = [("Event", "refer"), ("Subscription-State", "terminated;reason=noresource")]
    body = f"SIP/2.0 {status}\r\n".encode()
    try:
        async with asyncio.timeout(NOTIFY_LIMIT):
            await leg.session.send("NOTIFY", headers, body, "message/sipfrag")
    except (SipError, TimeoutError) as error:
        log.info("notify_failed leg=%s cause=%s", leg.id, type(error).__name__)
