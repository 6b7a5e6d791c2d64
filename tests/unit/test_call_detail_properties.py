"""Call detail over random histories, checked against a second, slower way to count."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cdr.call_detail import STAGES, CallDetail, call_detail, largest_remainder
from gateway.cdr.call_state import CallState, apply, closing_events, fold, new_state
from gateway.cdr.columns import COLUMNS, Kind, json_schema
from gateway.events import (
    CallEnded,
    Event,
    LegAnswered,
    LegDialled,
    LegEnded,
    LegHeld,
    LegLeft,
    LegResumed,
    StageEntered,
    Waited,
    from_dict,
)
from gateway.model import LegId, PartyType
from tests.cdr.floor import Floor
from tests.cdr.histories import Step, histories, history, minutes

MANY = settings(max_examples=150, deadline=None)
SOME = settings(max_examples=50, deadline=None)


class Oracle:
    """Counts hold and talk by looking at every stretch between two events, with plain sets."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.answer: int | None = None
        self.hold_ms = self.other_ms = self.connected_ms = 0
        self.inside: list[bool] = []
        self.sent = False
        up: set[LegId] = set()
        holding: set[tuple[LegId, PartyType]] = set()
        before: int | None = None
        for event in events:
            if before is not None and self.answer is not None:
                stretch = event.at - before
                agents = any(by is PartyType.AGENT for _, by in holding)
                self.connected_ms += stretch
                self.hold_ms += stretch if agents else 0
                self.other_ms += stretch if any(by is not PartyType.AGENT for _, by in holding) else 0
                if stretch:
                    self.inside.append(agents)
            before = event.at
            match event:
                case LegDialled():
                    self.sent = True
                case LegAnswered():
                    self.sent = True
                    up.add(event.leg)
                    if len(up) >= 2 and self.answer is None:
                        self.answer = event.at
                case LegHeld():
                    holding.add((event.leg, event.by))
                case LegResumed():
                    holding.discard((event.leg, event.by))
                case LegLeft() | LegEnded():
                    holding = {item for item in holding if item[0] != event.leg}
                    if isinstance(event, LegEnded):
                        up.discard(event.leg)
                case _:
                    pass


def random_steps(seed: int) -> list[Step]:
    dice = random.Random(seed)
    spread = (4, 3000, 4_000_000)
    count = dice.randrange(60)
    return [
        (dice.randrange(spread[dice.randrange(3)]), dice.randrange(23), dice.randrange(10_000))
        for _ in range(count)
    ]


def test_five_thousand_random_calls_keep_the_rules() -> None:
    answered = held = 0
    for seed in range(5000):
        events = history("0" * 32, random_steps(seed))
        check(events)
        for row in call_detail(events):
            answered += row.answer_time is not None
            held += row.hold_count > 1
    assert answered > 1000, "the histories are worth checking"
    assert held > 300


@MANY
@given(histories())
def test_every_row_keeps_the_rules(events: list[Event]) -> None:
    check(events)


def check(events: list[Event]) -> None:
    rows, truth = call_detail(events), Oracle(events)
    assert len(rows) == (1 if truth.sent else 0)
    for row in rows:
        assert row.duration == (row.end_time - row.start_time).total_seconds()
        parts = row.ivr_time + row.queue_time + row.pending_time + row.talk_time + row.hold_time
        assert row.duration == parts
        assert min(row.pending_time, row.talk_time, row.hold_time, row.hold_count, row.max_hold) >= 0
        assert (row.answer_time is None) == (truth.answer is None)
        if row.answer_time is None:
            assert row.talk_time == row.hold_time == row.hold_count == 0
        else:
            assert row.talk_time + row.hold_time == (row.end_time - row.answer_time).total_seconds()
        assert row.detail["hold_ms"] == truth.hold_ms
        assert row.detail["talk_ms"] + row.detail["hold_ms"] == truth.connected_ms
        assert row.detail.get("external_hold", {"ms": 0})["ms"] == truth.other_ms
        assert abs(row.hold_time * 1000 - truth.hold_ms) < 2000
        assert (truth.hold_ms > 0) >= (row.hold_time > 0)
        assert (row.hold_count > 0) == (truth.hold_ms > 0)
        assert row.max_hold <= row.hold_time
        assert row.hold_count != 1 or row.max_hold == row.hold_time
        assert row.hold_time <= row.max_hold * row.hold_count + row.hold_count


@MANY
@given(histories())
def test_holds_of_others_change_no_number(events: list[Event]) -> None:
    def without(event: Event) -> bool:
        return not (isinstance(event, LegHeld | LegResumed) and event.by is not PartyType.AGENT)

    def numbers(row: CallDetail) -> dict[str, object]:
        return {k: v for k, v in row.values().items() if k != "detail"}

    assert [numbers(row) for row in call_detail(events)] == [
        numbers(row) for row in call_detail(filter(without, events))
    ]


@SOME
@given(minutes())
def test_one_row_per_ended_interaction_whatever_happens_beside_it(events: list[Event]) -> None:
    mixed = {row.id: row for row in call_detail(events)}
    assert len(mixed) == len(call_detail(events))
    for call in {event.call for event in events}:
        mine = [event for event in events if event.call == call]
        expected = call_detail(mine)
        assert [mixed[call]] == expected if call in mixed else expected == []
        assert bool(expected) <= any(isinstance(event, CallEnded) for event in mine)


def test_any_prefix_of_a_floor_tells_who_talks_and_who_holds() -> None:
    """Against what the floor knew at each moment that lasted, not against another run of the same code."""
    told = 0
    for seed in range(400):
        floor = Floor(seed)
        floor.run(25)
        states: dict[str, CallState] = {}
        known = 0
        for moment in floor.moments:
            for event in floor.journal[known : moment.events]:
                if event.call not in states:
                    states[event.call] = new_state(event)
                apply(states[event.call], event)
            known = moment.events
            running = {call: state for call, state in states.items() if state.end is None}
            assert {call: set(state.members) for call, state in running.items()} == moment.talking
            assert {
                call: {hold.leg for hold in state.holds if hold.end is None}
                for call, state in running.items()
            } == moment.holding
            told += sum(map(len, moment.holding.values()))
    assert told > 1000, "somebody held"


@SOME
@given(histories(ended=False), st.data())
def test_a_call_cut_anywhere_gets_a_right_end(events: list[Event], data: st.DataObject) -> None:
    known = events[: data.draw(st.integers(1, len(events)))]
    (state,) = fold(known).values()
    found = max(known[-1].at, state.last) + data.draw(st.integers(0, 100_000))
    closing = closing_events(state, found)
    rows = call_detail([*known, *closing])
    assert len(rows) == (1 if Oracle(known).sent else 0)
    for row in rows:
        assert row.detail["end_ms"] == found
        assert row.reason == "gateway_restart"
        assert row.released_by == "system"
        assert all(leg["ended_ms"] is not None for leg in row.detail["legs"])
    (ended,) = fold([*known, *closing]).values()
    assert closing_events(ended, found + 1) == []


@SOME
@given(histories(), st.data())
def test_a_lost_record_or_a_clock_set_back_is_never_fatal(events: list[Event], data: st.DataObject) -> None:
    damaged = [event for event in events if data.draw(st.integers(0, 9)) != 0]
    if len(damaged) > 3:
        at = data.draw(st.integers(1, len(damaged) - 2))
        damaged[at:] = [from_dict(e.to_dict() | {"at": e.at - 5_000_000}) for e in damaged[at:]]
    for row in call_detail(damaged):
        assert row.talk_time >= 0
        assert row.duration == row.pending_time + row.talk_time + row.hold_time
        assert row.global_interaction_id


@SOME
@given(histories())
def test_a_row_is_what_its_columns_say(events: list[Event]) -> None:
    schema = json_schema()
    for row in call_detail(events):
        record = json.loads(json.dumps(row.to_dict()))
        assert list(record) == [column.name for column in COLUMNS] == schema["required"]
        assert CallDetail.from_dict(record) == row
        for column in COLUMNS:
            value = record[column.name]
            if value is None:
                assert column.nullable
                continue
            shape = {Kind.INTEGER: int, Kind.REAL: float, Kind.JSON: dict}.get(column.kind, str)
            assert isinstance(value, shape), column.name
            assert not column.values or value in column.values, column.name


@MANY
@given(st.integers(0, 10_000), st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_largest_remainder_shares_everything_and_nothing_else(total: int, parts: list[int]) -> None:
    shares = largest_remainder(total, parts)
    assert sum(shares) == total
    if sum(parts):
        for share, part in zip(shares, parts, strict=True):
            assert abs(share - total * part / sum(parts)) < 1
            assert part or not share


def test_two_thousand_floors_have_the_truth_in_their_rows() -> None:
    """Conferences, consultations, transfers, supervision and crashes, against what was counted beside it."""
    seen: Counter[str] = Counter()
    for seed in range(2000):
        floor = Floor(seed)
        floor.run(25)
        seen += floor.seen
        agree(floor)
    for what in (
        "hold by agent", "hold by teams_expert", "hold by external", "consultation", "merge",
        "attended transfer", "blind transfer", "party added", "supervision", "barge", "cut by a crash",
        "restored", "no INVITE left", "after-call work",
    ):  # fmt: skip
        assert seen[what] > 100, f"{what}: {seen}"


def agree(floor: Floor) -> None:
    rows = {row.id: row for row in call_detail(floor.journal)}
    ended = [truth for truth in floor.calls.values() if truth.ended is not None]
    assert len(rows) == len(call_detail(floor.journal))
    assert set(rows) == {truth.call for truth in ended if truth.sent}, "one row an interaction, rule 10"
    for truth in ended:
        if not truth.sent:
            continue
        row, detail = rows[truth.call], rows[truth.call].detail
        assert truth.ended is not None
        assert (detail["start_ms"], detail["answer_ms"], detail["end_ms"]) == (
            truth.began, truth.answered, truth.ended
        )  # fmt: skip
        assert (detail["hold_ms"], detail.get("external_hold", {"ms": 0})["ms"]) == (
            truth.hold, truth.others_hold
        )  # fmt: skip
        talk = 0 if truth.answered is None else truth.ended - truth.answered - truth.hold
        assert detail["talk_ms"] == talk
        if row.answer_time is not None:
            assert row.talk_time + row.hold_time == (row.end_time - row.answer_time).total_seconds()
        assert row.duration == row.pending_time + row.talk_time + row.hold_time
        assert row.global_interaction_id == truth.interaction
        if truth.primary is not None:
            assert detail["consultation_of"] == truth.primary
            assert row.global_interaction_id == floor.calls[truth.primary].interaction
        assert row.reason == truth.reason
        assert set(row.agents) == truth.logins
        assert row.acw_time == (truth.work + 500) // 1000
        assert max((len(part["members"]) for part in detail["segments"]), default=0) == truth.largest
        assert (row.disposition == "transferred") == truth.transferred
        assert (row.disposition == "conferenced") == (truth.largest > 2 and not truth.transferred)
        for before, after in itertools.pairwise(detail["segments"]):
            assert before["end_ms"] <= after["start_ms"]
            assert before["end_ms"] < after["start_ms"] or before["members"] != after["members"]


@SOME
@given(st.integers(0, 1 << 30), st.data())
def test_what_is_read_back_tells_what_was_written(seed: int, data: st.DataObject) -> None:
    """Of calls that run and of those whose row may still change; the recorder has a test of its own."""
    floor = Floor(seed)
    floor.run(20)
    cut = data.draw(st.integers(0, len(floor.journal)))
    live: dict[str, CallState] = {}
    for event in floor.journal[:cut]:
        if event.call not in live:
            live[event.call] = new_state(event)
        apply(live[event.call], event)
    assert fold(from_dict(json.loads(json.dumps(event.to_dict()))) for event in floor.journal[:cut]) == live


@MANY
@given(histories(), st.data())
def test_what_a_contact_center_tells_splits_the_wait_and_adds_none(
    events: list[Event], data: st.DataObject
) -> None:
    """However it tells: a stage told at any moment, in any order, again and again, or never."""
    call, told = events[0].call, list(events)
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(1, len(told) - 1))
        stage = data.draw(st.sampled_from(STAGES))
        told.insert(at, StageEntered(call=call, at=told[at - 1].at, stage=stage))
    ivr, queue = data.draw(st.tuples(st.integers(0, 90_000), st.integers(0, 90_000)))
    told.insert(1, Waited(call=call, at=told[0].at, ivr_ms=ivr, queue_ms=queue))
    for plain, row in zip(call_detail(events), call_detail(told), strict=True):
        parts = (row.pending_time, row.ivr_time, row.queue_time, row.talk_time, row.hold_time)
        assert min(parts) >= 0
        assert sum(parts) == row.duration == (row.end_time - row.start_time).total_seconds()
        assert row.detail["start_ms"] == plain.detail["start_ms"] - ivr - queue
        assert row.end_time == plain.end_time
        until = row.detail["answer_ms"] or row.detail["end_ms"]
        spent = {"ivr": ivr, "queue": queue}
        where = ""
        for now, after in itertools.pairwise(told):
            where = now.stage if isinstance(now, StageEntered) else where
            if where in spent:
                spent[where] += max(min(after.at, until) - now.at, 0)
        assert abs(row.ivr_time * 1000 - spent["ivr"]) < 2000
        assert abs(row.queue_time * 1000 - spent["queue"]) < 2000
        if row.answer_time is None:
            assert row.talk_time == row.hold_time == 0
        else:
            assert row.talk_time + row.hold_time == (row.end_time - row.answer_time).total_seconds()
            assert row.detail["answer_ms"] >= plain.detail["answer_ms"]
