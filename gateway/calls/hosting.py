"""The host of a conference: the agent who brought the third party in, one at a time.

He may disconnect the others and end it for all; any other agent may leave (facts/call-detail.md 2). When he
has left, the agent who has been there longest is the host.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.calls.call_task import CallState
from gateway.model import PartyType

if TYPE_CHECKING:
    from gateway.calls.call import Call
    from gateway.calls.leg import Leg

log = logging.getLogger("tandem.calls")

CONFERENCE_FROM = 3


def host_of(call: Call, *, but: Leg | None = None) -> Leg | None:
    """`but`: another one than this."""
    return next((leg for leg in _members(call) if leg.host and leg is not but), None)


def may_disconnect(call: Call, login: str) -> bool:
    """Whether this agent may disconnect others: in a conference its host alone, or anybody who has none."""
    there = [leg for leg in participants(call) if not call.aloof(leg.id)]
    host = host_of(call)
    if len(there) < CONFERENCE_FROM or host is None or host.identity.party is not PartyType.AGENT:
        return True
    return host.identity.login == login


async def make_host(call: Call, leg: Leg) -> None:
    """In `call`'s task: `leg` brings somebody in; whoever is the host already remains it."""
    if host_of(call) is None:
        leg.host = True
        log.info("host call=%s leg=%s trunk=%s", call.id, leg.id, leg.trunk.name)
        await call.records.noted("host", leg)


async def host_left(call: Call, gone: Leg) -> None:
    """In `call`'s task, when `gone` takes no part in it any more: the role goes on if it was his."""
    if not gone.host or call.state is CallState.ENDED:
        return
    agents = [leg for leg in _members(call) if leg.identity.party is PartyType.AGENT and leg is not gone]
    if agents:
        await make_host(call, min(agents, key=lambda leg: (call.answered_at.get(leg.id, 0), leg.id)))


def participants(call: Call) -> list[Leg]:
    """Every leg of the call, answered or not, and those that are away in a consultation."""
    return [*call.legs.values(), *(loan.leg for loan in call.lent.values())]


def _members(call: Call) -> list[Leg]:
    here = call.joined - call.away
    return [leg for leg in participants(call) if leg.id in here and not call.aloof(leg.id)]
