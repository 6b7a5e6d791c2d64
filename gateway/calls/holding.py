"""Hold, resume, mute: what changes in a call's data and its journal; `audibility` says what it means.

A party holds by its description (re-INVITE, UPDATE) or by command; both are the same hold, and a second one
changes nothing. Nothing of it is ever signalled to another party.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.calls.audibility import Hold
from gateway.calls.leg import Leg
from gateway.model import LegId

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")


def holds_anything(call: Call, leg: LegId) -> bool:
    """Whether the leg holds the call or somebody in it: for the records that is one and the same."""
    return any(hold.by == leg for hold in call.holds)


async def set_hold(call: Call, leg: Leg, held: bool) -> bool:
    """`leg` holds or resumes the call; False when it did already. A `rewire` follows."""
    return await _change(call, leg, Hold(leg.id), held)


async def set_party_hold(call: Call, leg: Leg, by: Leg, held: bool) -> bool:
    """`by` puts one participant on hold, or takes him back whoever it was that held him."""
    if held:
        return await _change(call, by, Hold(by.id, leg.id), held)
    changed = False
    for hold in [hold for hold in call.holds if hold.of == leg.id]:
        changed = await _change(call, _holder(call, hold) or by, hold, held) or changed
    return changed


def _holder(call: Call, hold: Hold) -> Leg | None:
    if hold.by in call.lent:
        return call.lent[hold.by].leg
    return call.legs.get(hold.by) if hold.by is not None else None


async def no_longer_holding(call: Call, holders: Sequence[Leg]) -> None:
    """Those whose last hold has gone with the party they held, as `forget_holds` tells."""
    for holder in holders:
        if not call.aloof(holder.id):
            await call.records.resumed(holder)


async def _change(call: Call, holder: Leg, hold: Hold, held: bool) -> bool:
    if held == (hold in call.holds):
        return False
    before = holds_anything(call, holder.id)
    counts = not call.aloof(holder.id)
    call.holds = call.holds | {hold} if held else call.holds - {hold}
    after = holds_anything(call, holder.id)
    if after and not before:
        call.held_at[holder.id] = call.now()
        if counts:
            await call.records.held(holder)
    elif before and not after:
        call.held_at.pop(holder.id, None)
        if counts:
            await call.records.resumed(holder)
    log.info(
        "leg_hold call=%s leg=%s trunk=%s of=%s held=%s",
        call.id, holder.id, holder.trunk.name, hold.of or "call", held,
    )  # fmt: skip
    return True


async def hold_as_described(call: Call, leg: Leg) -> None:
    """`leg` has come to the call: its telephone may hold already."""
    if leg.anchored and leg.anchor.held:
        leg.held = True
        await set_hold(call, leg, True)


async def follow_description(call: Call, leg: Leg) -> bool:
    """Its party has described itself anew: whether it holds or retrieves by that. A `rewire` follows."""
    if leg.held == leg.anchor.held:
        return False
    leg.held = leg.anchor.held
    await set_hold(call, leg, leg.held)
    return True


def forget_holds(call: Call, leg: LegId) -> list[Leg]:
    """The leg takes no part any more: its holds fall, and those of others on it. Who holds nobody any more
    by that: for `no_longer_holding`.
    """
    on_it = [hold for hold in call.holds if hold.of == leg and hold.by != leg]
    call.holds = {hold for hold in call.holds if leg not in (hold.by, hold.of)}
    call.held_at.pop(leg, None)
    holders = {holder.id: holder for hold in on_it if (holder := _holder(call, hold)) is not None}
    free = [holders[one] for one in sorted(holders) if not holds_anything(call, one)]
    for holder in free:
        call.held_at.pop(holder.id, None)
    return free


async def set_muted(call: Call, leg: Leg, muted: bool) -> bool:
    """False when it was so already. A `rewire` follows."""
    if muted == (leg.id in call.muted):
        return False
    (call.muted.add if muted else call.muted.discard)(leg.id)
    await call.records.muted(leg, muted=muted)
    return True


async def restore(call: Call, holds: set[Hold], muted: set[LegId]) -> None:
    """Everything as it was: what was asked for cannot be heard."""
    for hold in call.holds ^ holds:
        holder = _holder(call, hold)
        if holder is not None:
            await _change(call, holder, hold, hold in holds)
    for leg in call.muted ^ muted:
        await set_muted(call, call.legs[leg], leg in muted)
    await call.settle()
