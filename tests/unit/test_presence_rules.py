"""The busy-sync table itself: what must hold whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.agents.states import EXTERNAL_BUSY, AgentState
from gateway.teams.presence_rules import (
    IN_A_CALL,
    MARKER,
    TABLE,
    Act,
    Desk,
    Event,
    Grip,
    Memory,
    Options,
    Ours,
    Pair,
    Situation,
    decide,
)

PAIRS = [IN_A_CALL, MARKER, ("Available", "Available"), ("Away", "Away"), ("Offline", "Offline")]
DESKS = [Desk(state, before=AgentState.READY) for state in AgentState] + [
    Desk(AgentState.NOT_READY, EXTERNAL_BUSY, AgentState.READY)
]
steps = st.tuples(
    st.sampled_from(Event),
    st.sampled_from(DESKS),
    st.sampled_from([*PAIRS, None]),
    st.one_of(st.none(), st.integers(0, 5)),
    st.floats(0, 400),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=25), st.sampled_from([IN_A_CALL, MARKER]))
def test_what_holds_in_every_history(
    history: list[tuple[Event, Desk, Pair | None, int | None, float]], written: tuple[str, str]
) -> None:
    memory, now, options = Memory(), 1000.0, Options(written=written)
    for event, desk, pair, sequence, passed in history:
        now += passed
        before = memory
        situation = Situation(event, before, desk, now, options, pair, sequence)
        decision = decide(situation)
        memory = decision.memory
        if Act.WRITE_BUSY in decision.acts and event in (Event.ASKED, Event.RESUMED):
            assert (pair is not None and pair[0] == "Available") or situation.ours_now
        if Act.WRITE_BUSY in decision.acts:
            assert memory.ours is Ours.SET
        if Act.WRITE_AVAILABLE in decision.acts:
            assert situation.ours_now
            assert desk.state in (AgentState.READY, AgentState.NOT_READY, AgentState.LOGGED_OUT)
            assert memory.ours is not Ours.SET
        if Act.DESK_BUSY in decision.acts:
            assert desk.state in (AgentState.READY, AgentState.NOT_READY)
            assert memory.grip is Grip.HELD
        if Act.DESK_FREE in decision.acts:
            assert before.leaving
            assert event is Event.LEAVE_DUE
        if situation.pair is None:
            assert Act.LEAVE_LATER not in decision.acts
        if event is Event.NOTIFIED and written == IN_A_CALL and situation.ours_now:
            assert decision.acts == ()
        if desk.state is AgentState.LOGGED_OUT and event is Event.DESK:
            assert memory.ours is Ours.NONE
            assert memory.grip is Grip.NONE


def test_rules_have_names_of_their_own_and_memory_survives_its_document() -> None:
    names = [rule.name for group in TABLE for rule in group]
    assert len(names) == len(set(names))
    memory = Memory(in_call=True, grip=Grip.HELD, ours=Ours.SET, until=12.5)
    assert Memory.of(memory.document()) == memory
