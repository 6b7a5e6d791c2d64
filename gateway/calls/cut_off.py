"""What a kill cut off half-way in a call: finished where its parties have seen the end, else taken back.

The journal is durable at once, the record of a call is written a moment later: the two may be a step apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Set
from typing import Final

from gateway.calls.call import Call
from gateway.calls.consultation import MERGED, TRANSFERRED, note_transfer, same_agent
from gateway.calls.handover import lender
from gateway.calls.holding import hold_as_described, holds_anything, set_hold
from gateway.calls.leg import Leg
from gateway.calls.remember import Remembered
from gateway.calls.takeover import REPLACED, note_replaced
from gateway.cdr.call_state import CallState as Told
from gateway.errors import SipError
from gateway.events import LegLeft
from gateway.model import CallId, LegId
from gateway.sip.session import Session

log = logging.getLogger("tandem.calls")

NOTIFY_LIMIT: Final = 8.0


def successors(call: Call, told: Told, leg: LegId, fresh: Set[LegId]) -> set[LegId]:
    """Members who came when `leg` stepped aside for them: what it stepped aside for is done.

    fresh: members of whom the journal does not know as such
    """
    new = fresh - {leg}
    if leg not in told.members:
        beside = next((one.members for one in reversed(told.segments) if leg in one.members), None)
        if beside is not None:
            new |= call.joined & set(told.members) - set(beside)
    return set(new)


def settle_loans(found: Remembered, told: Told) -> set[CallId]:
    """Before any call goes on: whoever had stepped down here while he is in his consultation has been
    replaced by its other party, or is a member on hold again. The consultations of the former, which end.
    """
    call, over = found.call, set()
    done = _transferors(told)
    for leg in sorted(call.away & call.lent.keys()):
        loan = call.lent[leg]
        if leg not in done and not successors(call, told, leg, found.fresh):
            call.away.discard(leg)
            call.joined.add(leg)
            continue
        call.forget(loan.leg)
        if lender(loan.to, loan.leg) is None:
            loan.to.borrowed.discard(leg)
        found.replaced[leg] = loan.leg
        over.add(loan.to.id)
    return over


async def mend(found: Remembered, told: Told) -> None:
    """Make the journal and the restored call agree; in the call's task, before its sound is connected.

    told: the call by the journal, which goes on with what is written here
    """
    call = found.call
    stepped = {*call.away, *found.replaced, *(one.leg for one in told.transfers if one.outcome == "started")}
    # who takes over from a member has not come for anybody else
    taking = {new for new, old in call.replacing.items() if old in call.joined}
    new = {leg: successors(call, told, leg, found.fresh - taking) for leg in stepped}
    await _end_takeovers(call, told)
    for leg in [call.legs[leg] for leg in sorted(stepped & call.legs.keys()) if new[leg]]:
        # before those who replace him are members: they never were in the call together
        await call.step_down(leg)
    await _write_gone(call, told)
    await _write_missing(call, told)
    await _mend_loans(call, told)
    await _end_transfers(found, told, new)
    for leg in found.replaced.values():
        if leg.id not in _transferors(told):
            await note_transfer(call, leg.id, _legs(call, new[leg.id]))
        await call.records.leg_ended(leg, TRANSFERRED)
    for leg_id in {hold.leg for hold in told.holds if hold.end is None} & call.legs.keys():
        if not holds_anything(call, leg_id):
            # the one he held has left, and the end of that hold was not written
            await call.records.resumed(call.legs[leg_id])


def _transferors(told: Told) -> set[LegId]:
    return {one.leg for one in told.transfers if one.outcome == "completed"}


def _legs(call: Call, ids: Set[LegId]) -> list[Leg]:
    """Those of them who have their leg here, the last one who answered first."""
    legs = [call.legs[leg] for leg in sorted(ids) if leg in call.legs]
    return sorted(legs, key=lambda leg: call.answered_at.get(leg.id, 0), reverse=True)


async def _end_takeovers(call: Call, told: Told) -> None:
    """The peer has our 200 to its Replaces: for it the old leg is gone."""
    for new_id, old_id in call.replacing.items():
        new, old = call.legs.get(new_id), call.legs.get(old_id)
        if new is None or old is None or new.id not in call.joined:
            continue
        call.inherit(old, new)
        if old.id not in _transferors(told):
            await note_replaced(call, old, new)
        await call.drop(old, REPLACED)
    call.replacing.clear()


async def _write_missing(call: Call, told: Told) -> None:
    """A call that was being answered may be up by its record, and not yet by the journal."""
    for leg in [leg for leg in call.legs.values() if leg.id in call.joined]:
        if told.legs[leg.id].answered is None:
            await call.records.answered(leg)
        call.answered_at.setdefault(leg.id, call.now())
        if leg.id in call.away:
            continue
        if leg.id not in told.members and not call.aloof(leg.id):
            await call.records.joined(leg)
        elif leg.id in told.members and call.aloof(leg.id):
            # his change of mode was cut off: he listens, and is none of the others'
            await call.records.left(leg)


async def _write_gone(call: Call, told: Told) -> None:
    """Members for the journal who have stepped down, or have gone back to where they had just come from."""
    for leg in [leg for leg in told.members if leg not in call.joined and told.legs[leg].ended is None]:
        await call.record(LegLeft(call=call.id, at=call.now(), leg=leg))


async def _mend_loans(call: Call, told: Told) -> None:
    """A merge or transfer that was cut off half-way has not been: who is still in his consultation is a
    member on hold here.
    """
    for loan in call.lent.values():
        if loan.leg.id not in told.members and not call.aloof(loan.leg.id):
            await call.records.joined(loan.leg)
        await set_hold(call, loan.leg, True)


async def _end_transfers(found: Remembered, told: Told, new: Mapping[LegId, set[LegId]]) -> None:
    """One whose target has answered is done; any other that was under way has failed, and the transferor
    is a party again.
    """
    call, over = found.call, _transferors(told)
    for transfer in [one for one in told.transfers if one.outcome == "started"]:
        here = _legs(call, new[transfer.leg])
        if not here and transfer.leg not in call.legs:
            continue
        outcome, new_leg, code = ("completed", here[0].id, 0) if here else ("failed", None, 503)
        await call.records.transferred(
            transfer.leg, transfer.mode, transfer.target, outcome, new=new_leg, code=code
        )
        over |= {transfer.leg} if here else set()
        leg = call.legs.get(transfer.leg)
        if leg is not None:
            await (call.step_down(leg) if here else _take_back(found, told, leg))
    for leg in [call.legs[leg] for leg in sorted(call.away) if leg in call.legs]:
        if leg.id not in over and not new.get(leg.id):
            # it has failed, and only the record does not say so yet
            await _take_back(found, told, leg)
            continue
        if leg.id in found.referred:
            await _tell_transferor(leg, "200 OK")
        here = _legs(call, new.get(leg.id, set()))
        again = next((one for one in here if same_agent(one, leg.identity)), None)
        if again is not None:
            call.inherit(leg, again)
        elif leg.id not in over:
            await note_transfer(call, leg.id, here)
        await call.drop(leg, MERGED if again is not None else TRANSFERRED)


async def _take_back(found: Remembered, told: Told, leg: Leg) -> None:
    """The transferor is a party again."""
    call = found.call
    call.away.discard(leg.id)
    call.joined.add(leg.id)
    if leg.id not in told.members:
        await call.records.joined(leg)
    if leg.id not in found.doubtful:
        await hold_as_described(call, leg)
    if leg.id in found.referred:
        await _tell_transferor(leg, "503 Service Unavailable")


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
