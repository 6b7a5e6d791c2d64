"""Legs that change calls: lent to a consultation and given back, or moved for good (merge, transfer).

Two calls are two tasks, so nothing here waits for the other one: the giver lets go of a leg and posts it to
the taker in one breath, without an await in between. From that moment on the leg's news go to the taker and
find it there; those that were in the giver's inbox already are passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.calls.audibility import Supervision
from gateway.calls.endings import failure
from gateway.calls.holding import set_hold, set_muted
from gateway.calls.hosting import host_left, host_of
from gateway.calls.leg import Leg, LegState
from gateway.calls.signals import Command, HandedOver
from gateway.errors import MediaError, SipError
from gateway.model import LegId, ReleasedBy, Result, Role, Termination

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")

TAKEN_WITHIN = 5.0
"""Seconds for which a call and its room stay for legs that are on their way to another call: until that one
has written down that it has them, a restart gives them back."""
_NOWHERE = Termination(Result.COMPLETED, "call_gone", 200, 16, ReleasedBy.SYSTEM)


async def lend(call: Call, leg: Leg, to: Call) -> None:
    """In `call`'s task, before `to` starts: `leg` holds `call` and takes part in `to` from now on.

    MediaError: nothing has changed.
    """
    from gateway.calls.call import Loan

    held = await set_hold(call, leg, True)
    try:
        await call.rewire()
    except MediaError:
        if held:
            await set_hold(call, leg, False)
        raise
    call.lent[leg.id] = Loan(leg, to, leg.role)
    leg.moves += 1
    del call.legs[leg.id]
    leg.role = Role.CALLER
    to.legs[leg.id] = leg
    to.borrowed.add(leg.id)
    leg.post = to.post
    await call.settle()


def lender(call: Call, leg: Leg) -> Call | None:
    """The nearest call above `call` that has lent this leg: the one it goes back to."""
    return next((above for above in call.above() if leg.id in above.lent), None)


async def give_back(call: Call) -> None:
    """In `call`'s task: borrowed legs are their lender's again; it stays on hold until retrieved."""
    given = []
    for leg in list(call.legs.values()):
        holder = lender(call, leg)
        if leg.id in call.borrowed and leg.state is LegState.UP and holder is not None:
            _return(call, holder, leg)
            given.append(leg)
    if given:
        await call.records.left(*given)


async def let_go(call: Call, leg: Leg, over: Termination, *, transferred: Call) -> None:
    """In `call`'s task: `leg` has no part in `transferred` any more. It is hung up, unless its party holds
    another call besides: it goes back there.
    """
    holder = lender(transferred, leg)
    if holder is None:
        await call.drop(leg, over)
        return
    signal = _return(call, holder, leg)
    if call is transferred:
        await call.records.leg_ended(leg, over)
        await host_left(call, leg)
    else:
        transferred.post(Command(functools.partial(transferred.parted, leg, over)))
    await taken(call, holder, signal)


def _return(call: Call, holder: Call, leg: Leg) -> HandedOver:
    async def accept() -> None:
        _returned(holder, leg)
        await holder.settle()

    return _pass_on(call, holder, [leg], accept)


async def hand_over(
    source: Call,
    target: Call,
    legs: Sequence[Leg],
    over: Termination,
    *,
    leaving: Leg | None = None,
    instead_of: Leg | None = None,
    then: Callable[[str], Awaitable[None]] | None = None,
) -> HandedOver:
    """In `source`'s task: `legs` take part in `target` from now on, and `source` ends with `over`.

    Legs that `target` had lent end their hold there. A supervisor among them remains one, and those who only
    listen or whisper to one of them come along unasked: they keep hearing his conversation.
    leaving:    a leg of `source` to hang up even if `target` has lent it (`let_go`)
    instead_of: a leg of `target` that steps down for them; it comes back when they cannot be heard
    then:       runs in `target`'s task once all are in, or with the cause why they are not
    SipError(481), and nothing is changed, when `target` has ended.
    """
    from gateway.calls.call import CallState

    if target.state is CallState.ENDED:
        raise SipError(481, "the call they were to go to has ended")
    legs = [*legs, *_hidden(source, legs)]
    ids = {leg.id for leg in legs}
    muted = source.muted & ids
    supervisors = {leg: how for leg, how in source.supervisors.items() if leg in ids}
    holding = {hold.by for hold in source.holds if hold.of is None and hold.by in ids}

    async def accept() -> None:
        if instead_of is not None:
            await target.step_down(instead_of)
        signal.error = await _receive(target, legs, holding, muted, supervisors)
        if signal.error and instead_of is not None and instead_of.id in target.legs:
            await target.take_back(instead_of)
        if then is not None:
            await then(signal.error)
        await target.dismiss()

    signal = _pass_on(source, target, legs, accept)
    await source.records.left(*legs)
    await taken(source, target, signal)
    if leaving is not None:
        await let_go(source, leaving, over, transferred=target)
    await source.end(over)
    return signal


def _hidden(call: Call, legs: Sequence[Leg]) -> list[Leg]:
    """Supervisors of these whom nobody knows of, unless they are among them already."""
    ids = {leg.id for leg in legs}
    return [
        call.legs[leg]
        for leg, how in call.supervisors.items()
        if how.of in ids and leg in call.joined - ids and leg in call.legs and call.aloof(leg)
    ]


async def taken(source: Call, target: Call, signal: HandedOver) -> None:
    """In `source`'s task, before it ends: wait until `target` has written down that it has what it was given.

    A restart before that moment gives the legs back to `source`.
    """
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(signal.settled.wait(), TAKEN_WITHIN)
    await target.remembered()
    source.passing.clear()


def _pass_on(
    source: Call, target: Call, legs: Sequence[Leg], accept: Callable[[], Awaitable[None]]
) -> HandedOver:
    async def refuse() -> None:
        signal.error = "the call has ended"
        for leg in legs:
            holder = lender(target, leg)
            if holder is not None:
                _return(source, holder, leg)
            else:
                await leg.release(_NOWHERE)
        signal.settled.set()

    signal = HandedOver(tuple(legs), accept, refuse)
    for leg in legs:
        how = source.supervisors.get(leg.id)
        source.forget(leg)
        if how is not None:
            # whom a restart gives back is still no party to the others
            source.supervisors[leg.id] = how
        source.passing[leg.id] = leg
        leg.post = target.post
    target.post(signal)
    return signal


async def _receive(
    target: Call,
    legs: Sequence[Leg],
    holding: set[LegId],
    muted: set[LegId],
    supervisors: Mapping[LegId, Supervision],
) -> str:
    """Take them in; why they cannot be heard, "" when they can: then newcomers are hung up."""
    newcomers = [leg for leg in legs if leg.id not in target.lent]
    for leg in newcomers:
        leg.role = Role.PARTICIPANT
        leg.moves += 1
        how = supervisors.get(leg.id)
        if how is not None:
            # in one breath with the leg: a record between the two would make a party of him
            target.supervisors[leg.id] = how
        leg.host = leg.host and host_of(target) is None
        target.add_leg(leg)
        await target.records.answered(leg)
        if how is not None:
            await target.records.supervising(leg, how)
    for leg in legs:
        if leg not in newcomers:
            _returned(target, leg)
            if not leg.held:
                await set_hold(target, leg, False)
        elif leg.id in holding:
            await set_hold(target, leg, True)
        if leg.id in muted:
            await set_muted(target, leg, True)
    try:
        await target.admit(*newcomers)
    except MediaError as error:
        log.error("not_admitted call=%s legs=%d cause=%s", target.id, len(newcomers), error.text)
        for leg in newcomers:
            await target.drop(leg, failure(error))
        await target.settle()
        return error.text
    return ""


def _returned(call: Call, leg: Leg) -> None:
    leg.moves += 1
    loan = call.lent.pop(leg.id, None)
    if loan is not None:
        leg.role = loan.role
    call.legs[leg.id] = leg
    leg.host = leg.host and host_of(call, but=leg) is None
