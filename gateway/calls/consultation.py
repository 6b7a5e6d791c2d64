"""A consultation: an agent holds a call and talks aside, then comes back, merges the two, or transfers.

The consultation is a call of its own with the interaction of the held one (facts/call-detail.md 5.5). Placed
by command it borrows the agent's leg; an agent who places it from the telephone has a second leg, which is
recognised as the same agent's. Merge and transfer bring its other party into the held call and end it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.calls.call import Call
from gateway.calls.dialling import Order
from gateway.calls.handover import hand_over, lend
from gateway.calls.hosting import make_host
from gateway.calls.leg import Leg
from gateway.calls.routing import PartyIdentity
from gateway.calls.second_party import SecondParty
from gateway.errors import SipError
from gateway.model import LegId, ReleasedBy, Result, Role, Termination

if TYPE_CHECKING:
    from gateway.calls.signals import HandedOver

log = logging.getLogger("tandem.calls")

MERGED = Termination(Result.COMPLETED, "merged", 200, 16, ReleasedBy.CALLER)
TRANSFERRED = Termination(Result.COMPLETED, "transferred", 200, 16, ReleasedBy.CALLER)
BACK = Termination(Result.COMPLETED, "consultation_ended", 200, 16, ReleasedBy.CALLER)


def same_agent(leg: Leg, identity: PartyIdentity) -> bool:
    """Whether the leg is this agent's. A number alone proves nothing: a whole center may present one."""
    return bool(identity.login) and leg.identity.login == identity.login


def consulting(consultation: Call) -> Leg | None:
    """The consulting agent's leg in his consultation."""
    primary = consultation.primary
    if primary is None:
        return None
    for leg in consultation.legs.values():
        if leg.id in consultation.borrowed:
            return leg
    legs = [consultation.legs[leg] for leg in sorted(consultation.joined) if leg in consultation.legs]
    return next((leg for leg in legs if twin(primary, leg) is not None), None)


def twin(call: Call, leg: Leg) -> Leg | None:
    """Another leg of the same agent in `call`."""
    joined = [other for other in call.legs.values() if other.id in call.joined and other is not leg]
    return next((other for other in joined if same_agent(other, leg.identity)), None)


def other_leg(primary: Call, consultation: Call) -> Leg | None:
    """The leg with which an agent holds `primary` who has another one in the consultation, perhaps not
    answered yet.
    """
    found = (twin(primary, leg) for leg in consultation.legs.values() if leg.role is Role.CALLER)
    return next((leg for leg in found if leg is not None), None)


async def consult(call: Call, other: Call, agent: Leg, target: Leg, order: Order) -> None:
    """In `call`'s task: `agent` holds it and calls `target` in `other`, which starts with that.

    MediaError: nothing has changed, and `other` was not started.
    """

    async def first() -> None:
        other.begin(agent.number, target.number)
        other.add_leg(agent)
        await other.records.answered(agent)
        await other.sit_down(agent)
        await other.dial(target, order, SecondParty(agent), like=agent)

    await lend(call, agent, other)
    other.start(first)


async def merge(consultation: Call, primary: Call) -> HandedOver:
    """In the consultation's task: all of it moves into the held call, whose hold ends with that."""
    agent = consulting(consultation)
    legs = [consultation.legs[leg] for leg in sorted(consultation.joined) if leg in consultation.legs]
    if agent is None:
        raise SipError(481, "the agent is in no consultation")

    second = twin(primary, agent)

    async def then(error: str) -> None:
        if error:
            return
        if second is not None and second.id in primary.legs:
            primary.inherit(second, agent)
            await primary.leave(second, MERGED)
        await make_host(primary, agent)

    return await hand_over(consultation, primary, legs, MERGED, instead_of=second, then=then)


async def complete_transfer(consultation: Call, primary: Call) -> HandedOver:
    """In the consultation's task: its other party takes the agent's place in the held call."""
    agent = consulting(consultation)
    if agent is None:
        raise SipError(481, "the agent is in no consultation")
    place = agent if agent.id in consultation.borrowed else twin(primary, agent)
    here = [consultation.legs[leg] for leg in sorted(consultation.parties) if leg in consultation.legs]
    legs = [leg for leg in here if leg is not agent]

    async def then(error: str) -> None:
        if place is not None and not error:
            await note_transfer(primary, place.id, legs)
            if place is not agent and place.id in primary.legs:
                await primary.leave(place, TRANSFERRED)

    return await hand_over(
        consultation, primary, legs, TRANSFERRED, leaving=agent, instead_of=place, then=then
    )


async def note_transfer(call: Call, transferor: LegId, new: list[Leg]) -> None:
    """An attended transfer is done: into the journal with it."""
    number = next((leg.number for leg in new), "")
    log.info("transfer call=%s leg=%s mode=attended outcome=completed code=0", call.id, transferor)
    await call.records.transferred(
        transferor, "attended", number, "completed", new=new[0].id if new else None
    )
