"""From the calls' journal to activity rows: who talked when, split at quarter-hours. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agents.activity import INTERVAL, Activity, ActivityFold, ActivityName, Who, rows
from gateway.agents.call_tracker import CallTracker, Joined, Left
from gateway.agents.events import AgentCallEnded, AgentStateChanged, Direction, from_dict, to_dict
from gateway.agents.states import AgentState, AgentStatus, Facts, Trigger, decide
from gateway.cdr.call_state import fold
from gateway.events import (
    CallEnded,
    CallStarted,
    Event,
    LegAnswered,
    LegCreated,
    LegEnded,
    LegHeld,
    LegJoined,
    LegLeft,
    LegResumed,
    Noted,
)
from gateway.model import CallId, InteractionId, LegId, PartyType, ReleasedBy, Result, Role, Termination

CALL, ANNA, PETER = CallId("c1"), LegId("l1"), LegId("l2")
OVER = Termination(Result.COMPLETED, "hangup", 200, 16, ReleasedBy.CALLER)


def call_of_anna(role: Role = Role.CALLER, *, other: str = "") -> list[Event]:
    """Anna and +49301 talk from 3 s to 20 s; she holds from 5 s to 8 s."""
    far = Role.CALLEE if role is Role.CALLER else Role.CALLER
    return [
        CallStarted(
            call=CALL, at=1000, interaction=InteractionId("i1"), from_number="601", to_number="+49301"
        ),
        LegCreated(
            call=CALL, at=1000, leg=ANNA, trunk="cc", party=PartyType.AGENT, role=role, number="601",
            login="anna",
        ),
        LegCreated(
            call=CALL, at=1500, leg=PETER, trunk="cc", party=PartyType.EXTERNAL, role=far, number="+49301",
            login=other,
        ),
        LegAnswered(call=CALL, at=3000, leg=PETER, codec="PCMA"),
        LegAnswered(call=CALL, at=3000, leg=ANNA, codec="PCMA"),
        LegJoined(call=CALL, at=3000, leg=ANNA),
        LegJoined(call=CALL, at=3000, leg=PETER),
        LegHeld(call=CALL, at=5000, leg=ANNA, by=PartyType.AGENT),
        LegResumed(call=CALL, at=8000, leg=ANNA, by=PartyType.AGENT),
        LegLeft(call=CALL, at=20_000, leg=ANNA),
        LegEnded(call=CALL, at=20_000, leg=ANNA, termination=OVER),
        LegEnded(call=CALL, at=20_000, leg=PETER, termination=OVER),
        CallEnded(call=CALL, at=20_000, termination=OVER),
    ]  # fmt: skip


def told(tracker: CallTracker, events: Sequence[Event]) -> list[Joined | Left]:
    return [change for event in events for change in tracker.observe(event)]


# ---------------------------------------------------------------------------------- who talks when


def test_an_agents_leg_counts_from_joining_to_leaving() -> None:
    tracker = CallTracker()
    joined, left = told(tracker, call_of_anna())
    assert joined == Joined("anna", CALL, 3000, supervision=False)
    assert isinstance(left, Left)
    assert not left.calling
    assert left.ended == AgentCallEnded(
        login="anna", at=20_000, call=CALL, interaction=InteractionId("i1"), direction=Direction.OUTBOUND,
        joined=3000, holds=((5000, 8000),), number="+49301",
    )  # fmt: skip
    assert tracker.calls_of("anna") == frozenset(), "nothing is kept of a call that is over"


def test_whom_an_agent_reached_inside_is_the_detail_of_his_call() -> None:
    changes = told(CallTracker(), call_of_anna(other="bert"))
    by_login = {c.ended.login: c.ended for c in changes if isinstance(c, Left)}
    assert by_login["anna"].detail == "bert"
    assert (by_login["bert"].direction, by_login["bert"].detail) == (Direction.INBOUND, "")


def others_first(events: list[Event]) -> list[Event]:
    """The same call, but the other party hangs up first."""
    ends = [event for event in events if isinstance(event, LegEnded)]
    rest = [event for event in events if not isinstance(event, LegEnded | LegLeft | CallEnded)]
    left = LegLeft(call=CALL, at=20_000, leg=PETER)
    return [*rest, left, *reversed(ends), events[-1]]


@pytest.mark.parametrize("role", [Role.CALLER, Role.CALLEE])
@pytest.mark.parametrize("other", ["", "bert"])
@pytest.mark.parametrize("restarted", [False, True])
def test_who_hangs_up_first_is_remembered_as_the_other_party(role: Role, other: str, restarted: bool) -> None:
    """His number and login were gone from the row, and from those of the quarter-hours written before."""
    events = others_first(call_of_anna(role, other=other))
    tracker, cut = CallTracker(), 0
    if restarted:
        cut = next(place for place, event in enumerate(events) if isinstance(event, LegEnded)) + 1
        tracker.restore(fold(events[:cut]).values())
    changes = told(tracker, events[cut:])
    (left,) = [c.ended for c in changes if isinstance(c, Left) and c.ended.login == "anna"]
    assert left.number == "+49301"
    assert left.detail == (other if role is Role.CALLER else "")


def test_a_supervisor_is_nobodys_other_party() -> None:
    events, chief = call_of_anna(), LegId("l3")
    events[1:1] = [
        LegCreated(
            call=CALL, at=1000, leg=chief, trunk="cc", party=PartyType.AGENT, role=Role.PARTICIPANT,
            number="699", login="chief",
        ),
        Noted(call=CALL, at=1000, what="supervision", leg=chief, detail={"mode": "listen"}),
    ]  # fmt: skip
    events.insert(-3, LegJoined(call=CALL, at=9000, leg=chief))
    found = {c.ended.login: c.ended for c in told(CallTracker(), events) if isinstance(c, Left)}
    assert (found["anna"].number, found["anna"].detail) == ("+49301", "")
    assert (found["chief"].number, found["chief"].detail) == ("601", "")


def test_one_who_joins_later_does_not_pass_for_the_one_who_answered() -> None:
    events, clara = call_of_anna(), LegId("l3")
    events[9:9] = [
        LegCreated(
            call=CALL, at=9000, leg=clara, trunk="cc", party=PartyType.AGENT, role=Role.PARTICIPANT,
            number="603", login="clara",
        ),
        LegJoined(call=CALL, at=9500, leg=clara),
    ]  # fmt: skip
    found = {c.ended.login: c.ended for c in told(CallTracker(), events) if isinstance(c, Left)}
    assert (found["anna"].number, found["anna"].detail) == ("+49301", "")
    assert found["clara"].number == "601"


def test_a_call_that_nobody_answered_is_no_activity_but_rings_at_the_agents() -> None:
    tracker = CallTracker()
    assert told(tracker, call_of_anna()[:3]) == []
    assert tracker.calls_of("anna") == {CALL}
    assert tracker.engaged("anna") == (False, False)


def test_a_call_cut_off_without_its_legs_ends_for_the_agent_too() -> None:
    events = [event for event in call_of_anna() if not isinstance(event, LegEnded | LegLeft)]
    left = told(CallTracker(), events)[-1]
    assert isinstance(left, Left)
    assert left.ended.at == 20_000


def test_a_hold_still_open_at_the_end_closes_there() -> None:
    events = [event for event in call_of_anna() if not isinstance(event, LegResumed)]
    left = told(CallTracker(), events)[-1]
    assert isinstance(left, Left)
    assert left.ended.holds == ((5000, 20_000),)


@pytest.mark.parametrize("joins", [False, True])
def test_a_supervisor_supervises_until_his_leg_ends_whatever_the_mode(joins: bool) -> None:
    events = call_of_anna()
    events.insert(3, Noted(call=CALL, at=2500, what="supervision", leg=ANNA, detail={"mode": "listen"}))
    if not joins:
        # Who only listens is no member for the records.
        events = [e for e in events if not (isinstance(e, LegJoined | LegLeft) and e.leg == ANNA)]
    else:
        # He barged in, and then went back to listening.
        events.insert(9, LegLeft(call=CALL, at=6000, leg=ANNA))
    joined, left = told(CallTracker(), events)
    assert joined == Joined("anna", CALL, 2500, supervision=True)
    assert isinstance(left, Left)
    assert left.ended.supervision
    assert (left.ended.joined, left.ended.at) == (2500, 20_000)


def test_with_another_call_left_the_agent_is_still_calling() -> None:
    tracker = CallTracker()
    other = [
        CallStarted(call=CallId("c2"), at=1, interaction=InteractionId("i"), from_number="", to_number=""),
        LegCreated(
            call=CallId("c2"), at=1, leg=LegId("x"), trunk="cc", party=PartyType.AGENT, role=Role.CALLEE,
            number="601", login="anna",
        ),
        LegJoined(call=CallId("c2"), at=2, leg=LegId("x")),
    ]  # fmt: skip
    left = told(tracker, [*other, *call_of_anna()])[-1]
    assert isinstance(left, Left)
    assert left.calling


def test_a_restarted_tracker_goes_on_where_the_journal_is() -> None:
    events = call_of_anna()
    tracker = CallTracker()
    (joined,) = tracker.restore(fold(events[:8]).values())
    assert joined == Joined("anna", CALL, 3000, supervision=False)
    (left,) = told(tracker, events[8:])
    whole = told(CallTracker(), events)[-1]
    assert left == whole


@pytest.mark.parametrize("barges", [False, True])
def test_a_supervisor_goes_on_supervising_after_a_restart(barges: bool) -> None:
    events = call_of_anna()
    events.insert(3, Noted(call=CALL, at=2500, what="supervision", leg=ANNA, detail={"mode": "listen"}))
    if not barges:
        events = [e for e in events if not (isinstance(e, LegJoined | LegLeft) and e.leg == ANNA)]
    cut = next(place for place, event in enumerate(events) if event.at > 5000)
    tracker = CallTracker()
    (joined,) = tracker.restore(fold(events[:cut]).values())
    assert joined == Joined("anna", CALL, 2500, supervision=True)
    assert tracker.engaged("anna") == (False, True)
    (left,) = told(tracker, events[cut:])
    assert left == told(CallTracker(), events)[-1]


# --------------------------------------------------------------------------------------- activities


class Desk:
    """Anna's events, as the agents' room writes them."""

    def __init__(self) -> None:
        self.status, self.fold, self.seq = AgentStatus(login="anna", since=0), ActivityFold(), 0
        self.found: list[Activity] = []

    def do(self, trigger: Trigger, at: int, facts: Facts | None = None) -> None:
        before, self.status = self.status, decide(self.status, trigger, at, facts)
        self.tell(
            AgentStateChanged(
                login="anna", at=at, status=self.status, before=before.state, before_since=before.since,
                before_reason=before.reason, before_call=before.call,
            )
        )  # fmt: skip

    def tell(self, event: AgentStateChanged | AgentCallEnded) -> None:
        assert from_dict(to_dict(event)) == event
        self.seq += 1
        self.found += self.fold.observe(self.seq, event)


def hour(minutes: float) -> int:
    """Milliseconds since the epoch: 12:00 and so many minutes."""
    return int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp() * 1000 + minutes * 60_000)


def a_call(begin: int, end: int) -> AgentCallEnded:
    return AgentCallEnded(
        login="anna", at=end, call=CALL, interaction=InteractionId("i1"), direction=Direction.INBOUND,
        joined=begin, holds=((begin + 1000, begin + 61_000),), number="+49301",
    )  # fmt: skip


def test_a_day_in_activities() -> None:
    desk = Desk()
    desk.do(Trigger.SET_NOT_READY, hour(0), Facts(reason="Meeting"))
    desk.do(Trigger.SET_READY, hour(20))
    desk.do(Trigger.CALL_BEGAN, hour(25))
    desk.tell(a_call(hour(25), hour(40)))
    desk.do(Trigger.CALLS_OVER, hour(40), Facts(work_ms=360_000, call=CALL))
    assert desk.fold.oldest_needed == 4, "the work after the call is still to be added to it"
    desk.do(Trigger.WORK_OVER, hour(46))
    assert desk.fold.oldest_needed is None
    desk.do(Trigger.LOG_OUT, hour(50))
    assert [(a.name, (a.end - a.start) / 60_000, a.detail) for a in desk.found] == [
        (ActivityName.LOGIN, 0, ""),
        (ActivityName.NOT_READY, 20, "Meeting"),
        (ActivityName.READY, 5, ""),
        (ActivityName.INBOUND_CALL, 15, ""),
        (ActivityName.INBOUND_CALL, 21, ""),
        (ActivityName.READY, 4, ""),
        (ActivityName.LOGOUT, 0, ""),
    ]
    assert desk.found[3].id == desk.found[4].id, "the second is the first with its work"


def test_rows_are_split_at_quarter_hours_and_share_their_activity() -> None:
    desk = Desk()
    desk.do(Trigger.SET_READY, hour(0))
    desk.do(Trigger.CALL_BEGAN, hour(25))
    desk.tell(a_call(hour(25), hour(40)))
    desk.do(Trigger.CALLS_OVER, hour(40), Facts(work_ms=360_000, call=CALL))
    desk.do(Trigger.WORK_OVER, hour(46))
    found = rows(desk.found[-1], Who.of("Anna Maria Example", "Sales"))
    shown = [
        (f"{r.start_time:%H:%M}", r.duration, r.talk_time, r.hold_time, r.acw_time, r.activity) for r in found
    ]
    assert shown == [
        ("12:25", 300, 240, 60, 0, "INBOUND_CALL"),
        ("12:30", 900, 600, 0, 300, "INBOUND_CALL"),
        ("12:45", 60, 0, 0, 60, "INBOUND_CALL"),
    ]
    assert len({row.activity_id for row in found}) == 1
    assert len({row.id for row in found}) == 3
    assert (found[0].first_name, found[0].last_name, found[0].team_name) == ("Anna Maria", "Example", "Sales")
    assert (found[0].other_party_phone, found[0].global_interaction_id) == ("+49301", "i1")


def test_of_what_still_runs_only_complete_intervals_are_told() -> None:
    desk = Desk()
    desk.do(Trigger.SET_READY, hour(7))
    (running,) = desk.fold.running(hour(31))
    told_now = rows(running, Who(), complete_at=hour(31))
    assert [row.duration for row in told_now] == [480, 900]
    desk.do(Trigger.LOG_OUT, hour(40))
    (ready,) = [activity for activity in desk.found if activity.name is ActivityName.READY]
    whole = rows(ready, Who())
    assert whole[:2] == told_now, "the same rows again, so that writing them twice changes nothing"
    assert whole[2].duration == 600


def test_a_call_of_one_who_never_signed_in_is_an_activity_too() -> None:
    desk = Desk()
    desk.do(Trigger.CALL_BEGAN, hour(1))
    desk.tell(a_call(hour(1), hour(3)))
    desk.do(Trigger.CALLS_OVER, hour(3))
    assert [activity.name for activity in desk.found] == [ActivityName.INBOUND_CALL]
    assert desk.status.state is AgentState.LOGGED_OUT


MOMENT = st.integers(0, 3 * INTERVAL)


@given(st.lists(MOMENT, min_size=3, max_size=3), st.lists(st.tuples(MOMENT, MOMENT), max_size=4))
def test_the_rows_of_a_call_add_up_to_it(moments: list[int], spans: list[tuple[int, int]]) -> None:
    start, talked, end = sorted(moments)
    holds = tuple((min(span), max(span)) for span in spans)
    activity = Activity(
        id="x", login="anna", name=ActivityName.INBOUND_CALL, start=start, end=end, talked_until=talked,
        holds=holds, media_type="VOICE",
    )  # fmt: skip
    found = rows(activity, Who())
    assert sum(row.duration for row in found) == (end - start + 500) // 1000
    for row in found:
        assert row.duration == row.talk_time + row.hold_time + row.acw_time
        assert min(row.duration, row.talk_time, row.hold_time, row.acw_time) >= 0
        assert row.duration <= INTERVAL // 1000 + 1
