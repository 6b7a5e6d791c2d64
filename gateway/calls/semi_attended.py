"""A transfer to somebody who is still being rung: his ringing leg changes calls.

Telephones do it all the time: hold, call a colleague, hear it ring, press transfer. By REFER it names a
dialog that nobody has answered yet (RFC 5589 7.6 would have the telephone give it up and transfer blind), by
command it completes a consultation that rings. From then on it is a blind transfer that rings already: the
one who waits hears ringing, and when nobody takes the call it is as it was before.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.calls.call_task import CallState
from gateway.calls.consultation import BACK, TRANSFERRED, consulting, twin
from gateway.calls.first_callee import FirstCallee
from gateway.calls.handover import give_back, taken
from gateway.calls.leg import Leg, LegState
from gateway.calls.refer_to import ReferTarget
from gateway.calls.second_party import SecondParty
from gateway.calls.signals import HandedOver
from gateway.calls.transfer_target import TransferTarget, transferring
from gateway.errors import SipError
from gateway.model import Role
from gateway.sip.refer import Referred
from gateway.trunks.reasons import SipAnswer

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")

GIVEN_UP = SipAnswer(487, "Request Terminated", (("Reason", TRANSFERRED.reason_header),))
"""What the transferor's telephone is told of its call that still rang."""


def rung(call: Call) -> Leg | None:
    """The party that `call`, which nobody has answered yet, is ringing."""
    if call.state is not CallState.SETUP:
        return None
    legs = (
        call.legs.get(leg)
        for leg, (_, p) in call.dialling.items()
        if isinstance(p, FirstCallee | SecondParty)
    )
    return next((leg for leg in legs if leg is not None), None)


async def complete_ringing(consultation: Call, primary: Call, ringing: Leg) -> HandedOver:
    """In the consultation's task, by command: the agent is back in the held call until the other answers.

    SipError: nothing has changed, but that the consultation may have ended.
    """
    agent = consulting(consultation)
    place = agent if agent is not None and agent.id in consultation.borrowed else _twin(primary, agent)
    if place is None:
        raise SipError(481, "the agent is in no consultation")
    _check(primary)
    await give_back(consultation)
    try:
        return await pass_on(consultation, primary, ringing, place, None)
    except SipError:
        # the agent is back already, and nobody is left for whom it rings
        await consultation.end(BACK)
        raise


def _twin(primary: Call, agent: Leg | None) -> Leg | None:
    return twin(primary, agent) if agent is not None else None


async def pass_on(
    source: Call, target: Call, ringing: Leg, transferor: Leg, refer: Referred | None
) -> HandedOver:
    """In `source`'s task: `ringing` is the target of a transfer in `target` from now on, and `source` ends.

    transferor: a leg of `target` for whom it is. SipError: nothing has changed.
    """
    _check(target)
    dialling, _ = source.dialling.pop(ringing.id)
    purpose = TransferTarget(transferor, refer, ReferTarget("", ringing.number, ""), attended=True)

    async def accept() -> None:
        ringing.moves += 1
        target.add_leg(ringing)
        dialling.moved(target.id, target.records.write)
        dialling.remembered = target.remembered
        target.dialling[ringing.id] = (dialling, purpose)
        await purpose.start(target)
        if ringing.state is LegState.RINGING:
            await purpose.rang(target, ringing)

    async def refuse() -> None:
        signal.error = "the call has ended"
        dialling.stop()
        if refer is not None:
            refer.notify(481, final=True)
        await ringing.release(TRANSFERRED)
        signal.settled.set()

    signal = HandedOver((ringing,), accept, refuse)
    source.forget(ringing)
    source.passing[ringing.id] = ringing
    # what it has been heard of so far was for the transferor; the one who waits hears ringing
    ringing.early, ringing.role, ringing.post = False, Role.PARTICIPANT, target.post
    target.post(signal)
    for leg in source.legs.values():
        if leg.state is LegState.INCOMING:
            leg.refusal = GIVEN_UP
    await taken(source, target, signal)
    await source.end(TRANSFERRED)
    return signal


def _check(target: Call) -> None:
    if target.state is not CallState.UP:
        raise SipError(481, "the call it was to go to has ended")
    if transferring(target):
        raise SipError(491, "A transfer is under way")
