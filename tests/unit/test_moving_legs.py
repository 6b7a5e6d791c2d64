"""Legs that were on their way from one call to another when the gateway was killed: each is in exactly one
call afterwards, whichever of the two records had been written.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.calls.remember import VERSION, readable, untangle, waiting
from gateway.cdr.call_state import CallState, fold
from gateway.events import CallStarted, Event, LegCreated, LegEnded
from gateway.model import (
    CallId,
    InteractionId,
    LegId,
    PartyType,
    ReleasedBy,
    Result,
    Role,
    Termination,
)

GIVER, BETWEEN, TAKER = CallId("giver"), CallId("between"), CallId("taker")
AGENT, EXPERT, THIRD = LegId("agent"), LegId("expert"), LegId("third")
OVER = Termination(Result.COMPLETED, "hangup", 200, 16, ReleasedBy.CALLEE)


def booked(call: CallId, *legs: LegId) -> list[Event]:
    begun = CallStarted(
        call=call, at=1, interaction=InteractionId("i"), from_number="1", to_number="2", consultation_of=None
    )
    created = [
        LegCreated(
            call=call,
            at=1,
            leg=leg,
            trunk="t",
            party=PartyType.AGENT,
            role=Role.CALLER,
            number="1",
            host=False,
        )
        for leg in legs
    ]
    return [begun, *created]


def told(*events: list[Event]) -> dict[CallId, CallState]:
    return fold(event for group in events for event in group)


def leg(name: LegId, moves: int = 0) -> dict[str, Any]:
    return {"id": name, "moves": moves}


def record(
    *legs: dict[str, Any], passing: list[dict[str, Any]] | None = None, **lent: list[Any]
) -> dict[str, Any]:
    joined = [*(one["id"] for one in legs), *lent]
    return {
        "version": VERSION,
        "legs": list(legs),
        "joined": joined,
        "away": [],
        "lent": lent,
        "passing": passing or [],
    }


def where(records: dict[CallId, dict[str, Any]]) -> dict[str, set[LegId]]:
    return {call: {one["id"] for one in found["legs"]} for call, found in records.items()}


def test_a_leg_that_was_lent_to_a_call_nobody_wrote_down_is_taken_back() -> None:
    records = {GIVER: record(leg(EXPERT), agent=[TAKER, "caller", leg(AGENT, 1)])}
    untangle(records, told(booked(GIVER, AGENT, EXPERT)))
    assert where(records) == {GIVER: {AGENT, EXPERT}}
    assert records[GIVER]["lent"] == {}
    assert AGENT in records[GIVER]["joined"]


def test_a_leg_that_was_lent_stays_where_it_is() -> None:
    records = {
        GIVER: record(leg(EXPERT), agent=[TAKER, "caller", leg(AGENT, 1)]),
        TAKER: record(leg(AGENT, 1), leg(THIRD)),
    }
    untangle(records, told(booked(GIVER, AGENT, EXPERT), booked(TAKER, AGENT, THIRD)))
    assert where(records) == {GIVER: {EXPERT}, TAKER: {AGENT, THIRD}}
    assert list(records[GIVER]["lent"]) == [AGENT]


def test_a_leg_that_the_journal_does_not_know_in_its_new_call_is_taken_back() -> None:
    """Its record there had been written, its LegCreated not."""
    records = {
        GIVER: record(leg(EXPERT), agent=[TAKER, "caller", leg(AGENT, 1)]),
        TAKER: record(leg(AGENT, 1)),
    }
    untangle(records, told(booked(GIVER, AGENT, EXPERT), booked(TAKER)))
    assert where(records) == {GIVER: {AGENT, EXPERT}, TAKER: set()}


@pytest.mark.parametrize("calls", [(GIVER, BETWEEN, TAKER), (TAKER, BETWEEN, GIVER)])
def test_a_leg_that_was_lent_on_is_taken_back_by_the_one_who_lent_it_on(calls: tuple[CallId, ...]) -> None:
    """A consultation in a consultation that nobody has written down; all three know of the same moves."""
    made = {
        GIVER: record(leg(EXPERT), agent=[BETWEEN, "caller", leg(AGENT, 2)]),
        BETWEEN: record(leg(THIRD), agent=[TAKER, "caller", leg(AGENT, 2)]) | {"above": [GIVER]},
        TAKER: record() | {"above": [BETWEEN, GIVER]},
    }
    records = {call: made[call] for call in calls}
    untangle(records, told(booked(GIVER, AGENT, EXPERT), booked(BETWEEN, AGENT, THIRD), booked(TAKER)))
    assert where(records) == {GIVER: {EXPERT}, BETWEEN: {AGENT, THIRD}, TAKER: set()}
    assert list(records[GIVER]["lent"]) == [AGENT]
    assert records[BETWEEN]["lent"] == {}


def test_a_party_passed_on_is_in_neither_call_for_a_moment_and_not_lost() -> None:
    records = {
        GIVER: record(passing=[leg(THIRD)]),
        TAKER: record(leg(EXPERT)),
    }
    untangle(records, told(booked(GIVER, THIRD), booked(TAKER, EXPERT)))
    assert where(records) == {GIVER: {THIRD}, TAKER: {EXPERT}}
    assert THIRD in records[GIVER]["joined"]


def test_a_party_that_has_arrived_is_no_longer_its_givers() -> None:
    records = {
        GIVER: record(passing=[leg(THIRD)]),
        TAKER: record(leg(EXPERT), leg(THIRD, 1)),
    }
    untangle(records, told(booked(GIVER, THIRD), booked(TAKER, EXPERT, THIRD)))
    assert where(records) == {GIVER: set(), TAKER: {EXPERT, THIRD}}


@pytest.mark.parametrize(("giver", "taker"), [(0, 1), (2, 1)])
def test_of_two_records_the_one_after_more_moves_is_right(giver: int, taker: int) -> None:
    """Killed between the writing of the two: there and back."""
    records = {GIVER: record(leg(EXPERT), leg(AGENT, giver)), TAKER: record(leg(AGENT, taker))}
    untangle(records, told(booked(GIVER, AGENT, EXPERT), booked(TAKER, AGENT)))
    assert where(records)[GIVER if giver > taker else TAKER] >= {AGENT}
    assert sum(AGENT in legs for legs in where(records).values()) == 1


def test_a_party_that_hung_up_on_its_way_is_not_brought_back() -> None:
    ended: list[Event] = [LegEnded(call=TAKER, at=2, leg=AGENT, termination=OVER, correlation="")]
    records = {GIVER: record(leg(EXPERT), agent=[TAKER, "caller", leg(AGENT, 1)]), TAKER: record(leg(THIRD))}
    untangle(records, told(booked(GIVER, AGENT, EXPERT), booked(TAKER, AGENT, THIRD), ended))
    assert where(records) == {GIVER: {EXPERT}, TAKER: {THIRD}}


def test_a_record_of_a_gateway_before_lent_legs_were_in_it_is_read() -> None:
    records = {GIVER: record(leg(EXPERT), agent=[TAKER, "caller"]), TAKER: record(leg(AGENT))}
    del records[GIVER]["passing"]
    untangle(records, told(booked(GIVER, AGENT, EXPERT), booked(TAKER, AGENT)))
    assert where(records) == {GIVER: {EXPERT}, TAKER: {AGENT}}


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"version": VERSION + 1},
        {**record(leg(AGENT)), "legs": "none"},
        {**record(leg(AGENT)), "legs": [{}]},
        {**record(leg(AGENT)), "lent": None},
        {**record(leg(AGENT)), "above": None},
    ],
)
def test_what_has_another_form_is_not_read(broken: dict[str, Any]) -> None:
    assert not readable(broken)
    assert waiting(broken) == []


def test_those_who_wait_in_a_call_that_the_journal_never_got_are_known() -> None:
    calling, called = {"way": "in", "request": "INVITE"}, {"way": "out", "request": "INVITE"}
    legs: list[dict[str, Any]] = [
        {"id": AGENT, "invite": calling},
        {"id": EXPERT, "invite": called},
        {"id": THIRD},
        {"id": "answered", "invite": {"way": "in", "answer": "200"}},
    ]
    assert waiting(record(*legs)) == [calling, called]


def test_a_merge_that_was_cut_off_is_not_split() -> None:
    """Both were on their way from the consultation: what was lent had come back alone, to music."""
    records = {
        GIVER: record(leg(EXPERT), agent=[TAKER, "callee", leg(AGENT, 1)]),
        TAKER: {**record(passing=[leg(AGENT, 1), leg(THIRD)]), "above": [GIVER]},
    }
    untangle(records, told(booked(GIVER, AGENT, EXPERT), booked(TAKER, AGENT, THIRD)))
    assert where(records) == {GIVER: {EXPERT}, TAKER: {AGENT, THIRD}}
    assert list(records[GIVER]["lent"]) == [AGENT]


def test_what_was_lent_comes_back_in_the_role_it_had() -> None:
    records = {
        GIVER: record(leg(EXPERT), agent=[TAKER, "callee", {**leg(AGENT, 1), "role": "caller"}]),
        TAKER: record(),
    }
    untangle(records, told(booked(GIVER, AGENT, EXPERT), booked(TAKER)))
    assert [one["role"] for one in records[GIVER]["legs"] if one["id"] == AGENT] == ["callee"]
