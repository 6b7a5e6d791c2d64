"""Which agents talk in which calls, read off the calls' journal. Pure: an event in, what it means out.

A leg is an agent's when its LegCreated carries a login. It counts from LegJoined to LegLeft or LegEnded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.agents.events import AgentCallEnded, Direction
from gateway.cdr.call_state import CallState
from gateway.events import (
    CallEnded,
    CallStarted,
    Event,
    LegCreated,
    LegEnded,
    LegHeld,
    LegJoined,
    LegLeft,
    LegResumed,
    Noted,
)
from gateway.model import CallId, InteractionId, LegId, Role

SUPERVISION = "supervision"
"""`Noted.what` that makes its leg a supervisor's, from then to its LegEnded.

One who listens or whispers never gets LegJoined; one who goes from barging in to listening gets LegLeft.
"""


@dataclass(frozen=True, slots=True)
class Joined:
    """An agent's leg talks (or, with `supervision`, listens in) from now on."""

    login: str
    call: CallId
    at: int
    supervision: bool


@dataclass(frozen=True, slots=True)
class Left:
    """It no longer does. calling, supervising: whether other legs of this agent do."""

    ended: AgentCallEnded
    calling: bool
    supervising: bool


@dataclass(slots=True, eq=False)
class _Leg:
    """other: whom it talked with first since it joined, kept though that one leaves; no supervisor"""

    login: str
    role: Role
    number: str
    joined: int | None = None
    supervision: bool = False
    held: int | None = None
    holds: list[tuple[int, int]] = field(default_factory=list)
    other: _Leg | None = None

    @property
    def talks(self) -> bool:
        return self.joined is not None and not self.supervision


@dataclass(slots=True)
class _Call:
    interaction: InteractionId
    legs: dict[LegId, _Leg] = field(default_factory=dict)


class CallTracker:
    """Feed it every event once, in order; begin with `restore` where calls are up already."""

    def __init__(self) -> None:
        self._calls: dict[CallId, _Call] = {}

    def calls_of(self, login: str) -> frozenset[CallId]:
        """The calls in which the agent has a leg, ringing ones included."""
        return frozenset(
            call for call, its in self._calls.items() if any(leg.login == login for leg in its.legs.values())
        )

    def engaged(self, login: str) -> tuple[bool, bool]:
        """Whether the agent talks, and whether he supervises."""
        legs = [
            leg
            for call in self._calls.values()
            for leg in call.legs.values()
            if leg.login == login and leg.joined is not None
        ]
        return any(not leg.supervision for leg in legs), any(leg.supervision for leg in legs)

    def restore(self, states: Iterable[CallState]) -> list[Joined]:
        """Take over the calls that were running when the gateway stopped."""
        found = []
        for state in states:
            call = self._calls[state.call] = _Call(state.interaction)
            everybody = {leg.leg: _Leg(leg.login, leg.role, leg.number) for leg in state.legs.values()}
            for leg in state.legs.values():
                if leg.ended is not None:
                    continue
                mine = call.legs[leg.leg] = everybody[leg.leg]
                for hold in state.holds:
                    if hold.leg == leg.leg and hold.end is not None:
                        mine.holds.append((hold.start, hold.end))
                    elif hold.leg == leg.leg:
                        mine.held = hold.start
                if leg.supervising is not None:
                    mine.joined, mine.supervision = leg.supervising, True
                elif leg.leg in state.members:
                    since = [part.start for part in state.segments if leg.leg in part.members]
                    mine.joined = min([*since, state.member_since])
                if mine.joined is not None and (other := _first_other(state, leg.leg)) is not None:
                    mine.other = everybody[other]
                if mine.joined is not None and leg.login:
                    found.append(Joined(leg.login, state.call, mine.joined, mine.supervision))
        return found

    def observe(self, event: Event) -> list[Joined | Left]:
        """What the event means for agents; mostly nothing."""
        if isinstance(event, CallStarted):
            self._calls[event.call] = _Call(event.interaction)
            return []
        call = self._calls.get(event.call)
        if call is None:
            return []
        if isinstance(event, LegCreated):
            call.legs[event.leg] = _Leg(event.login, event.role, event.number)
        elif isinstance(event, CallEnded):
            left = [found for leg in list(call.legs) for found in self._left(event, call, leg)]
            del self._calls[event.call]
            return left
        elif isinstance(event, LegLeft | LegEnded):
            leg = call.legs.get(event.leg)
            if isinstance(event, LegLeft) and leg is not None and leg.supervision:
                return []
            found = self._left(event, call, event.leg)
            if isinstance(event, LegEnded):
                call.legs.pop(event.leg, None)
            return found
        elif isinstance(event, LegJoined | LegHeld | LegResumed | Noted) and event.leg in call.legs:
            changes = _changed(event, call.legs[event.leg])
            _meet(call)
            return changes
        return []

    def running(self, now: int) -> list[AgentCallEnded]:
        """Every agent's part in the calls that last, as if it ended at `now`."""
        found = []
        for call_id, call in self._calls.items():
            for leg in call.legs.values():
                if leg.login and leg.joined is not None and leg.joined < now:
                    held = [] if leg.held is None else [(leg.held, max(now, leg.held))]
                    found.append(_ended(leg, call_id, call, now, (*leg.holds, *held)))
        return found

    def _left(self, event: Event, call: _Call, leg_id: LegId) -> list[Joined | Left]:
        leg = call.legs.get(leg_id)
        if leg is None or leg.joined is None:
            return []
        at = max(event.at, leg.joined)
        _resume(leg, at)
        ended = _ended(leg, event.call, call, at, tuple(leg.holds))
        leg.joined, leg.holds, leg.other = None, [], None
        return [Left(ended, *self.engaged(leg.login))] if leg.login else []


def _ended(
    leg: _Leg, call_id: CallId, call: _Call, at: int, holds: tuple[tuple[int, int], ...]
) -> AgentCallEnded:
    outbound = leg.role is Role.CALLER
    present = (other for other in call.legs.values() if other is not leg and not other.supervision)
    other = leg.other or next(present, None)
    return AgentCallEnded(
        login=leg.login,
        at=at,
        call=call_id,
        interaction=call.interaction,
        direction=Direction.OUTBOUND if outbound else Direction.INBOUND,
        joined=at if leg.joined is None else leg.joined,
        holds=holds,
        number=other.number if other is not None else "",
        detail=leg.other.login if outbound and leg.other is not None else "",
        supervision=leg.supervision,
    )


def _meet(call: _Call) -> None:
    """Who talks, or listens in, has met the first of the others who talk."""
    talking = [leg for leg in call.legs.values() if leg.talks]
    for leg in call.legs.values():
        if leg.joined is not None and leg.other is None:
            leg.other = next((other for other in talking if other is not leg), None)


def _first_other(state: CallState, leg: LegId) -> LegId | None:
    """Whom the leg talked with first, of legs that are over too."""
    for members in [*(part.members for part in state.segments), state.members]:
        talking = [one for one in state.legs if one in members and state.legs[one].supervising is None]
        if leg in members or state.legs[leg].supervising is not None:
            for one in talking:
                if one != leg:
                    return one
    return None


def _changed(event: LegJoined | LegHeld | LegResumed | Noted, leg: _Leg) -> list[Joined | Left]:
    match event:
        case Noted() if event.what == SUPERVISION and leg.joined is None:
            leg.supervision = True
            return _join(event, leg)
        case LegJoined() if leg.joined is None:
            return _join(event, leg)
        case LegHeld() if leg.held is None:
            leg.held = event.at
        case LegResumed():
            _resume(leg, event.at)
    return []


def _join(event: Event, leg: _Leg) -> list[Joined | Left]:
    leg.joined = event.at
    return [Joined(leg.login, event.call, event.at, leg.supervision)] if leg.login else []


def _resume(leg: _Leg, at: int) -> None:
    if leg.held is not None:
        leg.holds.append((leg.held, max(at, leg.held)))
        leg.held = None
