"""The agents' state machine: every edge of the table, and what is kept over a call."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agents.states import (
    EXTERNAL_BUSY,
    SETTLED,
    TABLE,
    WISHES,
    AgentState,
    AgentStatus,
    Facts,
    Trigger,
    decide,
    lift,
    overlay,
)
from gateway.errors import IllegalTransition
from gateway.model import CallId

OUT = AgentStatus(login="anna", since=1000)
WORK = Facts(work_ms=30_000, call=CallId("c1"))


def ready() -> AgentStatus:
    return decide(OUT, Trigger.SET_READY, 2000)


def lunch() -> AgentStatus:
    return decide(OUT, Trigger.SET_NOT_READY, 2000, Facts(reason="Lunch"))


def busy(before: AgentStatus | None = None) -> AgentStatus:
    return decide(before or ready(), Trigger.CALL_BEGAN, 3000)


def test_every_state_knows_what_an_agent_may_choose() -> None:
    assert set(TABLE) == set(AgentState)
    for edges in TABLE.values():
        assert set(WISHES) <= set(edges)


@pytest.mark.parametrize(
    ("state", "trigger"),
    [(s, t) for s, t in itertools.product(AgentState, Trigger) if t not in TABLE[s]],
)
def test_an_edge_that_the_table_lacks_is_refused(state: AgentState, trigger: Trigger) -> None:
    with pytest.raises(IllegalTransition, match=r"agent anna: no edge from"):
        decide(replace(OUT, state=state), trigger, 2000)


def test_a_call_makes_busy_then_work_then_what_was_before() -> None:
    talking = busy(lunch())
    assert (talking.state, talking.reason, talking.since) == (AgentState.BUSY, "", 3000)
    work = decide(talking, Trigger.CALLS_OVER, 9000, WORK)
    assert (work.state, work.call, work.until) == (AgentState.AFTER_CALL_WORK, "c1", 39_000)
    after = decide(work, Trigger.WORK_OVER, 39_000)
    assert (after.state, after.reason, after.since, after.until) == (
        AgentState.NOT_READY, "Lunch", 39_000, None
    )  # fmt: skip


def test_without_after_call_work_the_state_before_comes_straight_back() -> None:
    assert decide(busy(), Trigger.CALLS_OVER, 9000).state is AgentState.READY


def test_who_is_logged_out_has_no_work_after_a_call() -> None:
    assert decide(busy(OUT), Trigger.CALLS_OVER, 9000, WORK).state is AgentState.LOGGED_OUT


def test_a_choice_while_busy_takes_effect_after_the_call_and_its_work() -> None:
    asked = decide(busy(), Trigger.SET_NOT_READY, 4000, Facts(reason="Break"))
    assert (asked.state, asked.since) == (AgentState.BUSY, 3000)
    work = decide(asked, Trigger.CALLS_OVER, 9000, WORK)
    assert work.state is AgentState.AFTER_CALL_WORK
    after = decide(work, Trigger.WORK_OVER, 39_000)
    assert (after.state, after.reason) == (AgentState.NOT_READY, "Break")


def test_a_choice_during_after_call_work_ends_it() -> None:
    work = decide(busy(), Trigger.CALLS_OVER, 9000, WORK)
    chosen = decide(work, Trigger.SET_NOT_READY, 10_000, Facts(reason="Break"))
    assert (chosen.state, chosen.reason, chosen.until, chosen.call) == (
        AgentState.NOT_READY, "Break", None, ""
    )  # fmt: skip


def test_the_next_call_interrupts_the_work_and_the_first_choice_survives() -> None:
    work = decide(busy(lunch()), Trigger.CALLS_OVER, 9000, WORK)
    again = decide(decide(work, Trigger.CALL_BEGAN, 10_000), Trigger.CALLS_OVER, 11_000)
    assert (again.state, again.reason) == (AgentState.NOT_READY, "Lunch")


def test_a_supervisor_goes_back_to_listening_when_his_own_call_ends() -> None:
    listening = decide(ready(), Trigger.SUPERVISION_BEGAN, 3000)
    talking = decide(listening, Trigger.CALL_BEGAN, 4000)
    back = decide(talking, Trigger.CALLS_OVER, 5000, replace(WORK, supervising=True))
    assert back.state is AgentState.SUPERVISING
    assert decide(back, Trigger.SUPERVISION_OVER, 6000).state is AgentState.READY


def test_a_repeated_choice_changes_nothing() -> None:
    assert decide(lunch(), Trigger.SET_NOT_READY, 5000, Facts(reason="Lunch")) == lunch()
    assert decide(ready(), Trigger.SET_READY, 5000) == ready()


# ------------------------------------------------------------------------- the presence in Teams


@pytest.mark.parametrize("before", [ready(), lunch()])
def test_busy_in_an_external_system_gives_way_to_what_was_before(before: AgentStatus) -> None:
    away = overlay(before, EXTERNAL_BUSY, 5000)
    assert (away.state, away.reason) == (AgentState.NOT_READY, EXTERNAL_BUSY)
    assert overlay(away, EXTERNAL_BUSY, 5500) == away
    back = lift(away, EXTERNAL_BUSY, 6000)
    assert (back.state, back.reason, back.restore) == (before.state, before.reason, None)


def test_it_does_not_come_back_when_the_agent_chose_otherwise_meanwhile() -> None:
    away = overlay(ready(), EXTERNAL_BUSY, 5000)
    chosen = decide(away, Trigger.SET_NOT_READY, 5500, Facts(reason="Lunch"))
    assert lift(chosen, EXTERNAL_BUSY, 6000) == chosen


def test_the_same_reason_chosen_by_hand_is_the_agents_own_from_then_on() -> None:
    away = overlay(ready(), EXTERNAL_BUSY, 5000)
    own = decide(away, Trigger.SET_NOT_READY, 5500, Facts(reason=EXTERNAL_BUSY))
    assert lift(own, EXTERNAL_BUSY, 6000).state is AgentState.NOT_READY


def test_it_outlasts_a_call_that_came_in_between() -> None:
    talking = busy(overlay(lunch(), EXTERNAL_BUSY, 2500))
    over = decide(talking, Trigger.CALLS_OVER, 4000)
    assert (over.state, over.reason) == (AgentState.NOT_READY, EXTERNAL_BUSY)
    assert lift(over, EXTERNAL_BUSY, 5000).reason == "Lunch"


def test_it_may_begin_and_end_during_a_call() -> None:
    asked = overlay(busy(), EXTERNAL_BUSY, 3500)
    assert (asked.state, asked.after_reason) == (AgentState.BUSY, EXTERNAL_BUSY)
    assert decide(lift(asked, EXTERNAL_BUSY, 3600), Trigger.CALLS_OVER, 4000).state is AgentState.READY
    waiting = decide(asked, Trigger.CALLS_OVER, 4000)
    assert lift(waiting, EXTERNAL_BUSY, 5000).state is AgentState.READY


@pytest.mark.parametrize("status", [OUT, decide(busy(), Trigger.CALLS_OVER, 9000, WORK)])
def test_who_is_out_or_at_work_is_left_alone(status: AgentStatus) -> None:
    assert overlay(status, EXTERNAL_BUSY, 10_000) == status


# ------------------------------------------------------------------------------------ any order

STEPS = st.lists(
    st.tuples(st.sampled_from([*Trigger, "overlay", "lift"]), st.sampled_from(["", "Lunch"]), st.booleans()),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_the_status_makes_sense(steps: list[tuple[str, str, bool]]) -> None:
    status, at = OUT, 1000
    for step, reason, flag in steps:
        at += 1000
        before = status
        if step == "overlay":
            status = overlay(status, EXTERNAL_BUSY, at)
        elif step == "lift":
            status = lift(status, EXTERNAL_BUSY, at)
        elif Trigger(step) in TABLE[status.state]:
            facts = Facts(
                reason=reason, work_ms=5000 if flag else 0, call=CallId("c"), supervising=bool(reason)
            )
            status = decide(status, Trigger(step), at, facts)
        working = status.state is AgentState.AFTER_CALL_WORK
        assert status.after in SETTLED
        assert status.reason == "" or status.state is AgentState.NOT_READY
        assert (status.until is not None) == working
        assert (status.call != "") == working
        assert status.state is before.state or status.since == at
        if status.state in SETTLED:
            assert (status.after, status.after_reason) == (status.state, status.reason)
