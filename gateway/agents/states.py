"""What state an agent is in, and what comes next: one table, one pure decision.

    Logged Out <--> Ready <--> Not Ready          what the agent chooses (facts/call-detail.md 3)
         \\________ | _________/
                  Busy --> After Call Work        what the calls make of it
                  Supervising                     listening to somebody else's call

A choice made while Busy or Supervising takes effect when that is over: it is kept in `after`. Moments are
milliseconds since the epoch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.errors import IllegalTransition
from gateway.model import CallId

log = logging.getLogger("tandem.agents")

NO_CALL = CallId("")
EXTERNAL_BUSY = "Busy in an External System"
"""Not Ready reason that the presence in Teams sets (Microsoft Teams integration overview, busy sync)."""


class AgentState(StrEnum):
    LOGGED_OUT = "logged_out"
    READY = "ready"
    NOT_READY = "not_ready"
    BUSY = "busy"
    AFTER_CALL_WORK = "after_call_work"
    SUPERVISING = "supervising"


class Trigger(StrEnum):
    """What may change a state."""

    SET_READY = "set_ready"
    SET_NOT_READY = "set_not_ready"
    LOG_OUT = "log_out"
    CALL_BEGAN = "call_began"
    CALLS_OVER = "calls_over"
    WORK_OVER = "work_over"
    SUPERVISION_BEGAN = "supervision_began"
    SUPERVISION_OVER = "supervision_over"


_OUT, _READY, _NOT = AgentState.LOGGED_OUT, AgentState.READY, AgentState.NOT_READY
_BUSY, _WORK, _OVER = AgentState.BUSY, AgentState.AFTER_CALL_WORK, AgentState.SUPERVISING
SETTLED = frozenset({_OUT, _READY, _NOT})
"""The states an agent chooses; the others pass by themselves."""
WISHES = {Trigger.SET_READY: _READY, Trigger.SET_NOT_READY: _NOT, Trigger.LOG_OUT: _OUT}

_CHOOSE = {trigger: frozenset({state}) for trigger, state in WISHES.items()}


def _stay(state: AgentState) -> dict[Trigger, frozenset[AgentState]]:
    return dict.fromkeys(WISHES, frozenset({state}))


TABLE: dict[AgentState, dict[Trigger, frozenset[AgentState]]] = {
    **{
        state: {
            **_CHOOSE,
            Trigger.CALL_BEGAN: frozenset({_BUSY}),
            Trigger.SUPERVISION_BEGAN: frozenset({_OVER}),
        }
        for state in (_OUT, _READY, _NOT)
    },
    _BUSY: {
        **_stay(_BUSY),
        Trigger.CALL_BEGAN: frozenset({_BUSY}),
        Trigger.CALLS_OVER: SETTLED | {_WORK, _OVER},
        Trigger.SUPERVISION_BEGAN: frozenset({_BUSY}),
        Trigger.SUPERVISION_OVER: frozenset({_BUSY}),
    },
    _WORK: {
        **_CHOOSE,
        Trigger.CALL_BEGAN: frozenset({_BUSY}),
        Trigger.WORK_OVER: SETTLED,
        Trigger.SUPERVISION_BEGAN: frozenset({_OVER}),
    },
    _OVER: {
        **_stay(_OVER),
        Trigger.CALL_BEGAN: frozenset({_BUSY}),
        Trigger.SUPERVISION_BEGAN: frozenset({_OVER}),
        Trigger.SUPERVISION_OVER: SETTLED,
    },
}
"""state -> trigger -> the states it may lead to; what is not here is an IllegalTransition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """All that is known of one agent's state.

    reason:  why not ready, "" otherwise
    since:   when the state began
    after, after_reason: what follows Busy, After Call Work and Supervising
    call:    the call that After Call Work belongs to, "" in other states
    until:   when After Call Work ends by itself, None in other states
    signed_in: Ready or Not Ready was chosen, and Logged Out not yet reached
    restore: state and reason that a system's reason took the place of, None when the agent chose this one
    """

    login: str
    state: AgentState = AgentState.LOGGED_OUT
    reason: str = ""
    since: int = 0
    after: AgentState = AgentState.LOGGED_OUT
    after_reason: str = ""
    call: CallId = NO_CALL
    until: int | None = None
    signed_in: bool = False
    restore: tuple[AgentState, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a decision needs besides state and trigger.

    reason:      for SET_NOT_READY
    work_ms:     how long After Call Work takes, 0 = there is none
    call:        for CALLS_OVER, the call that was left last
    supervising: for CALLS_OVER, whether the agent still listens to somebody else's call
    """

    reason: str = ""
    work_ms: int = 0
    call: CallId = NO_CALL
    supervising: bool = False


def decide(status: AgentStatus, trigger: Trigger, at: int, facts: Facts | None = None) -> AgentStatus:
    """The status after `trigger`; equal to `status` when nothing changes. IllegalTransition."""
    facts = facts or Facts()
    if trigger not in TABLE[status.state]:
        raise IllegalTransition(f"agent {status.login}", status.state, trigger)
    if trigger in WISHES:
        return _wish(status, trigger, at, WISHES[trigger], facts.reason)
    match trigger:
        case Trigger.CALL_BEGAN:
            return _engage(status, trigger, at, AgentState.BUSY)
        case Trigger.SUPERVISION_BEGAN:
            busy = status.state is AgentState.BUSY
            return _engage(status, trigger, at, AgentState.BUSY if busy else AgentState.SUPERVISING)
        case Trigger.SUPERVISION_OVER if status.state is AgentState.BUSY:
            return status
        case Trigger.CALLS_OVER if facts.supervising:
            return _advance(status, trigger, at, AgentState.SUPERVISING)
        case Trigger.CALLS_OVER if facts.work_ms > 0 and status.after is not AgentState.LOGGED_OUT:
            work = _advance(status, trigger, at, AgentState.AFTER_CALL_WORK)
            return replace(work, call=facts.call, until=at + facts.work_ms)
    return _settle(status, trigger, at)


def _wish(status: AgentStatus, trigger: Trigger, at: int, state: AgentState, reason: str) -> AgentStatus:
    reason = reason if state is AgentState.NOT_READY else ""
    if status.state in (AgentState.BUSY, AgentState.SUPERVISING):
        return replace(status, after=state, after_reason=reason, restore=None)
    if (status.state, status.reason) == (state, reason):
        return replace(status, restore=None)
    found = _advance(status, trigger, at, state)
    return replace(found, reason=reason, after=state, after_reason=reason)


def _engage(status: AgentStatus, trigger: Trigger, at: int, state: AgentState) -> AgentStatus:
    if status.state is state:
        return status
    found = _advance(status, trigger, at, state)
    if status.state in SETTLED:
        return replace(found, after=status.state, after_reason=status.reason, restore=status.restore)
    return replace(found, restore=status.restore)


def _settle(status: AgentStatus, trigger: Trigger, at: int) -> AgentStatus:
    found = _advance(status, trigger, at, status.after)
    return replace(found, reason=status.after_reason, restore=status.restore)


def _advance(status: AgentStatus, trigger: Trigger, at: int, state: AgentState) -> AgentStatus:
    if state not in TABLE[status.state][trigger]:
        raise IllegalTransition(f"agent {status.login}", status.state, f"{trigger} to {state}")
    log.info("agent_state login=%s from=%s to=%s on=%s", status.login, status.state, state, trigger)
    return AgentStatus(
        login=status.login,
        state=state,
        since=max(at, status.since),
        after=status.after,
        after_reason=status.after_reason,
        signed_in=state in (_READY, _NOT) or (status.signed_in and state is not _OUT),
    )


def overlay(status: AgentStatus, reason: str, at: int) -> AgentStatus:
    """A system says the agent is not ready, for `reason`: Ready and Not Ready give way, and are kept.

    In Logged Out and After Call Work nothing changes. While Busy or Supervising it takes effect afterwards.
    """
    if status.restore is not None or status.state in (AgentState.LOGGED_OUT, AgentState.AFTER_CALL_WORK):
        return status
    if status.state in SETTLED:
        kept = (status.state, status.reason)
    elif status.after in (AgentState.READY, AgentState.NOT_READY):
        kept = (status.after, status.after_reason)
    else:
        return status
    return replace(decide(status, Trigger.SET_NOT_READY, at, Facts(reason=reason)), restore=kept)


def lift(status: AgentStatus, reason: str, at: int) -> AgentStatus:
    """The system takes `reason` back: the state before comes again, if the agent is still in this one."""
    if status.restore is None:
        return status
    if status.reason != reason and status.after_reason != reason:
        return status
    state, why = status.restore
    trigger = next(trigger for trigger, wish in WISHES.items() if wish is state)
    return decide(status, trigger, at, Facts(reason=why))
