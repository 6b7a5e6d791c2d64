"""Call detail: the rules of facts/call-detail.md section 5, one by one, and every column."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.calls.waiting import waited
from gateway.cdr.call_detail import CallDetail, call_detail, phone_of
from gateway.cdr.columns import COLUMNS, SCHEMA_VERSION, markdown
from gateway.config_trunk import Trunk
from gateway.events import (
    CallStarted,
    LegAttemptFailed,
    LegEnded,
    LegHeld,
    LegLeft,
    LegMedia,
    LegResumed,
    LegTransferred,
    MediaMoved,
    Noted,
    StageEntered,
    Waited,
    WorkBegan,
    WorkEnded,
)
from gateway.model import InteractionId, LegId, PartyType, ReleasedBy, Result, Role, Termination
from tests.cdr.events import HUNG_UP, START, History, simple_call

AGENT, EXPERT, EXTERNAL = PartyType.AGENT, PartyType.TEAMS_EXPERT, PartyType.EXTERNAL


def held(history: History, leg: str, by: PartyType) -> History:
    return history.add(LegHeld(call=history.call, at=history.at, leg=LegId(leg), by=by))


def resumed(history: History, leg: str, by: PartyType) -> History:
    return history.add(LegResumed(call=history.call, at=history.at, leg=LegId(leg), by=by))


def talking(*, at: int = 0) -> History:
    """An agent and a Teams user, connected for 1 s after 3 s of ringing."""
    history = History(at=at).started()
    history.leg("a", Role.CALLER, AGENT, "+15550100", login="ann")
    history.leg("b", Role.CALLEE, EXPERT, "+15550199", "teams").dialled("b").wait(500).ringing("b")
    return history.wait(2500).answered("b", "a").joined("a", "b").wait(1000)


def row(history: History) -> CallDetail:
    (found,) = call_detail(history.events)
    return found


def test_a_simple_call_fills_every_column() -> None:
    (found,) = call_detail(simple_call())
    assert {k: v for k, v in found.to_dict().items() if k != "detail"} == {
        "id": "c" * 32,
        "global_interaction_id": "11111111-2222-4333-8444-555555555555",
        "media_type": "VOICE",
        "type": "Outbound",
        "start_time": "2026-01-01T00:00:00Z",
        "answer_time": "2026-01-01T00:00:03Z",
        "end_time": "2026-01-01T00:00:13Z",
        "duration": 13,
        "ivr_time": 0,
        "queue_time": 0,
        "pending_time": 3,
        "talk_time": 10,
        "hold_time": 0,
        "hold_count": 0,
        "max_hold": 0,
        "acw_time": 0,
        "from_phone": "+15550100",
        "original_destination_phone": "+15550199",
        "connected_to_phone": "+15550199",
        "transferred_from_phone": "",
        "transferred_to_phone": "",
        "caller_party_type": "agent",
        "callee_party_type": "teams_expert",
        "caller_login_id": "ann",
        "callee_login_id": "",
        "caller_trunk": "cc",
        "callee_trunk": "teams",
        "disposition": "caller_terminated",
        "released_by": "caller",
        "sip_code": 200,
        "reason": "hangup",
        "teams_correlation_id": "",
        "mos": None,
    }
    assert found.detail["segments"] == [
        {"id": "c" * 32 + "-1", "start_ms": START + 3000, "end_ms": START + 13000, "members": ["a", "b"]}
    ]


# -- hold --


def test_rule_1_two_agents_holding_at_once_count_once() -> None:
    call = talking()
    held(call, "a", AGENT).wait(2000)
    held(call, "b", AGENT).wait(2000)
    resumed(call, "a", AGENT).wait(2000)
    resumed(call, "b", AGENT).wait(1000)
    found = row(call.ended())
    assert (found.hold_time, found.hold_count, found.max_hold, found.talk_time) == (6, 1, 6, 2)


@pytest.mark.parametrize("by", [EXPERT, EXTERNAL])
def test_rule_2_a_hold_by_anyone_but_an_agent_stays_talk_time(by: PartyType) -> None:
    call = talking()
    held(call, "b", by).wait(30_000)
    resumed(call, "b", by).wait(1000)
    found = row(call.ended())
    assert (found.hold_time, found.hold_count, found.max_hold, found.talk_time) == (0, 0, 0, 32)
    assert found.detail["external_hold"] == {"ms": 30_000, "part_of_call_detail": False}
    assert found.detail["holds"][0]["by"] == by.value


def test_rule_3_talk_and_hold_are_end_minus_answer_to_the_second() -> None:
    call = talking(at=400)
    held(call, "a", AGENT).wait(1499)
    resumed(call, "a", AGENT).wait(1499)
    found = row(call.ended())
    assert found.answer_time is not None
    assert found.talk_time + found.hold_time == (found.end_time - found.answer_time).total_seconds() == 4
    assert found.duration == found.pending_time + found.talk_time + found.hold_time


def test_rule_4_only_the_agents_part_of_overlapping_holds_counts() -> None:
    call = talking()
    held(call, "b", EXPERT).wait(5000)
    held(call, "a", AGENT).wait(5000)
    resumed(call, "b", EXPERT).wait(5000)
    resumed(call, "a", AGENT).wait(1000)
    found = row(call.ended())
    assert (found.hold_time, found.talk_time) == (10, 7)


def test_rule_4_a_hold_still_open_closes_at_hang_up() -> None:
    call = talking()
    held(call, "a", AGENT).wait(7000)
    assert row(call.ended()).hold_time == 7


def test_rule_4_holding_again_does_not_restart_the_clock() -> None:
    call = talking()
    held(call, "a", AGENT).wait(3000)
    held(call, "a", AGENT).wait(3000)
    resumed(call, "a", AGENT).wait(1000)
    found = row(call.ended())
    assert (found.hold_time, found.hold_count, found.max_hold) == (6, 1, 6)


def test_rule_4_a_late_retrieve_is_ignored() -> None:
    call = talking()
    resumed(call, "a", AGENT).wait(1000)
    held(call, "a", AGENT).wait(2000)
    resumed(call, "b", AGENT)
    resumed(call, "a", EXPERT).wait(1000)
    resumed(call, "a", AGENT).wait(1000)
    resumed(call, "a", AGENT).wait(1000)
    assert row(call.ended()).hold_time == 3


def test_a_holder_who_hangs_up_holds_no_longer() -> None:
    call = talking()
    call.leg("c", Role.PARTICIPANT, AGENT, "+15550103").answered("c").joined("c")
    held(call, "c", AGENT).wait(2000)
    call.add(LegEnded(call=call.call, at=call.at, leg=LegId("c"), termination=HUNG_UP)).wait(5000)
    assert row(call.ended()).hold_time == 2


def test_a_hold_before_the_answer_counts_from_the_answer() -> None:
    call = History().started().leg("a", Role.CALLER, AGENT, "1").answered("a")
    held(call, "a", AGENT)
    call.leg("b", Role.CALLEE, EXTERNAL, "2").dialled("b").wait(5000).answered("b").wait(2000)
    resumed(call, "a", AGENT).wait(1000)
    found = row(call.ended())
    assert (found.pending_time, found.hold_time, found.talk_time) == (5, 2, 1)


def test_max_hold_is_the_longest_of_several() -> None:
    call = talking()
    for length in (2000, 9000, 4000):
        held(call, "a", AGENT).wait(length)
        resumed(call, "a", AGENT).wait(1000)
    found = row(call.ended())
    assert (found.hold_time, found.hold_count, found.max_hold) == (15, 3, 9)


# -- interactions --


def test_rule_5_a_consultation_is_its_own_row_under_the_same_interaction() -> None:
    primary = talking()
    held(primary, "a", AGENT)
    giid = InteractionId("11111111-2222-4333-8444-555555555555")
    consult = History("d" * 32, at=primary.now)
    consult.add(
        CallStarted(
            call=consult.call,
            at=consult.at,
            interaction=giid,
            from_number="+15550100",
            to_number="+15550155",
            consultation_of=primary.call,
        )
    )
    consult.leg("a2", Role.CALLER, AGENT, "+15550100", login="ann").answered("a2")
    consult.leg("x", Role.CALLEE, AGENT, "+15550155", login="bob").dialled("x").wait(2000).answered("x")
    consult.wait(5000).ended()
    primary.wait(7000)
    resumed(primary, "a", AGENT).wait(1000).ended()
    first, second = call_detail([*primary.events, *consult.events])
    assert (first.hold_time, first.talk_time) == (7, 2)
    assert (second.type, second.pending_time, second.talk_time, second.hold_time) == ("Internal", 2, 5, 0)
    assert first.global_interaction_id == second.global_interaction_id
    assert second.detail["consultation_of"] == primary.call
    assert (second.caller_login_id, second.callee_login_id) == ("ann", "bob")


def test_rule_6_a_conference_has_a_segment_per_change_of_members() -> None:
    call = talking()
    call.leg("c", Role.PARTICIPANT, EXTERNAL, "+15550103").dialled("c").wait(1000).answered("c").joined("c")
    call.add(MediaMoved(call=call.call, at=call.at, to="room-1", cause="conference")).wait(4000)
    held(call, "b", EXPERT).wait(1000)
    call.add(LegLeft(call=call.call, at=call.at, leg=LegId("b"))).wait(2000)
    found = row(call.ended())
    assert [s["members"] for s in found.detail["segments"]] == [["a", "b"], ["a", "b", "c"], ["a", "c"]]
    assert [s["end_ms"] - s["start_ms"] for s in found.detail["segments"]] == [2000, 5000, 2000]
    assert (found.disposition, found.hold_time) == ("conferenced", 0)
    assert found.detail["media_moves"][0]["to"] == "room-1"
    assert found.connected_to_phone == "+15550199"


@pytest.mark.parametrize(
    ("caller", "callee", "expected"),
    [
        (AGENT, AGENT, "Internal"),
        (AGENT, EXPERT, "Outbound"),
        (AGENT, EXTERNAL, "Outbound"),
        (EXTERNAL, AGENT, "Inbound"),
        (EXPERT, AGENT, "Inbound"),
        (EXTERNAL, EXPERT, "External"),
        (EXPERT, EXTERNAL, "External"),
    ],
)
def test_rule_9_type_of_call(caller: PartyType, callee: PartyType, expected: str) -> None:
    call = History().started().leg("a", Role.CALLER, caller, "1").leg("b", Role.CALLEE, callee, "2")
    call.dialled("b").wait(1000)
    assert row(call.ended()).type == expected


def test_rule_9_an_agent_who_joins_later_makes_it_inbound() -> None:
    call = History().started().leg("a", Role.CALLER, EXTERNAL, "1").leg("b", Role.CALLEE, EXPERT, "2")
    call.dialled("b").answered("a", "b").leg("c", Role.PARTICIPANT, AGENT, "3")
    assert row(call.ended()).type == "Inbound"


def test_rule_10_no_row_while_the_call_runs() -> None:
    assert call_detail(talking().events) == []


def test_rule_10_no_row_when_nothing_left() -> None:
    refused = Termination(Result.REJECTED, "caller_not_allowed", 403, 21, ReleasedBy.SYSTEM)
    call = History().started().leg("a", Role.CALLER, EXTERNAL, "1")
    assert call_detail(call.wait(10).ended(refused, "a").events) == []


def test_rule_10_no_row_when_no_peer_could_even_be_tried() -> None:
    down = Termination(Result.UNREACHABLE, "trunk_down", 503, 38, ReleasedBy.SYSTEM)
    call = History().started().leg("a", Role.CALLER, AGENT, "1").leg("b", Role.CALLEE, EXPERT, "2")
    failed = LegAttemptFailed(
        call=call.call, at=call.at, leg=LegId("b"), peer="tls:x", attempt=1, sip_code=503
    )
    assert call_detail(call.add(failed).ended(down, "b", "a").events) == []


# -- ends --


@pytest.mark.parametrize(
    ("result", "code", "by", "expected"),
    [
        (Result.ABANDONED, 487, ReleasedBy.CALLER, "abandoned_ringing"),
        (Result.BUSY, 486, ReleasedBy.CALLEE, "busy"),
        (Result.DECLINED, 603, ReleasedBy.CALLEE, "declined"),
        (Result.NO_ANSWER, 408, ReleasedBy.SYSTEM, "no_answer"),
        (Result.NOT_FOUND, 404, ReleasedBy.CALLEE, "not_found"),
        (Result.REJECTED, 488, ReleasedBy.CALLEE, "rejected"),
        (Result.UNREACHABLE, 503, ReleasedBy.CALLEE, "unreachable"),
        (Result.FAILED, 500, ReleasedBy.SYSTEM, "failed"),
    ],
)
def test_an_unanswered_call_says_why(result: Result, code: int, by: ReleasedBy, expected: str) -> None:
    call = History().started().leg("a", Role.CALLER, AGENT, "1").leg("b", Role.CALLEE, EXPERT, "2")
    call.dialled("b").wait(4000)
    found = row(call.ended(Termination(result, "why", code, 16, by), "b", "a"))
    assert (found.disposition, found.sip_code, found.reason) == (expected, code, "why")
    assert (found.released_by, found.pending_time, found.duration, found.connected_to_phone) == (by, 4, 4, "")
    assert found.answer_time is None
    assert found.callee_party_type == "teams_expert"


@pytest.mark.parametrize("by", list(ReleasedBy))
def test_an_answered_call_says_who_hung_up(by: ReleasedBy) -> None:
    found = row(talking().ended(Termination(Result.COMPLETED, "hangup", 200, 16, by)))
    assert found.disposition == f"{by}_terminated"


def test_only_a_transfer_that_succeeded_is_one() -> None:
    call = talking()

    def transfer(outcome: str, **more: object) -> None:
        call.add(
            LegTransferred(
                call=call.call,
                at=call.at,
                leg=LegId("b"),
                mode="blind",
                target="sip:+15550133@x.example.test",
                outcome=outcome,
                **more,  # type: ignore[arg-type]
            )
        )

    transfer("started")
    call.wait(1000)
    transfer("failed", sip_code=486)
    failed = row(History(call.call).add(*call.events).wait(9000).ended())
    assert (failed.transferred_to_phone, failed.disposition) == ("", "caller_terminated")
    assert failed.detail["transfers"][0]["sip_code"] == 486
    transfer("started")
    transfer("completed")
    found = row(call.wait(1000).ended())
    assert (found.transferred_from_phone, found.transferred_to_phone) == ("+15550199", "+15550133")
    assert found.disposition == "transferred"
    assert found.connected_to_phone == "+15550199"
    assert [t["outcome"] for t in found.detail["transfers"]] == ["failed", "completed"]


def referred(*, retrieved: bool = True, inactive: bool = False) -> History:
    """After 1 s of talk Teams may say inactive for 1 s, then transfers its leg to its music player, which
    rings for 1 s and plays for 5 s; then the user takes the call back, and 2 s pass.
    """
    call = talking()
    if inactive:
        held(call, "b", EXPERT).wait(1000)

    def transfer(leg: str, outcome: str, mode: str, new: str, target: str) -> None:
        call.add(
            LegTransferred(
                call=call.call,
                at=call.at,
                leg=LegId(leg),
                mode=mode,
                target=target,
                outcome=outcome,
                new_leg=LegId(new) if new else None,
            )
        )

    transfer("b", "started", "blind", "", "sip.pstnhub.microsoft.com")
    call.leg("player", Role.PARTICIPANT, EXPERT, "", "teams").dialled("player").wait(1000).answered("player")
    call.add(LegLeft(call=call.call, at=call.at, leg=LegId("b"))).joined("player")
    transfer("b", "completed", "blind", "player", "sip.pstnhub.microsoft.com")
    call.wait(5000)
    if retrieved:
        call.leg("back", Role.PARTICIPANT, EXPERT, "+15550188", "teams").answered("back")
        call.add(LegLeft(call=call.call, at=call.at, leg=LegId("player"))).joined("back")
        transfer("player", "completed", "replaces", "back", "+15550188")
    return call.wait(2000)


def test_a_hold_by_transfer_to_the_music_of_teams_is_a_hold_and_no_transfer() -> None:
    found = row(referred().ended())
    assert (found.disposition, found.hold_time, found.hold_count) == ("caller_terminated", 0, 0)
    assert found.detail["external_hold"]["ms"] == 6000
    assert (found.transferred_from_phone, found.transferred_to_phone) == ("", "")
    assert "transfers" not in found.detail
    [hold] = found.detail["holds"]
    assert (hold["leg"], hold["by"], hold["player"]) == ("b", "teams_expert", "player")


def test_inactive_and_then_a_transfer_to_music_is_one_hold() -> None:
    found = row(referred(inactive=True).ended())
    assert found.detail["external_hold"]["ms"] == 7000


def test_a_hold_by_transfer_that_nobody_retrieved_is_a_transfer_to_nobody_known() -> None:
    found = row(referred(retrieved=False).ended())
    assert (found.disposition, found.transferred_from_phone) == ("transferred", "+15550199")
    assert found.transferred_to_phone == "", "the name of a proxy is no number"


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("+15550133", "+15550133"),
        ("sip:+15550133@teams.example.test:5061;transport=tls", "+15550133"),
        ('"Bob" <sip:+15550133;ext=4@h;user=phone>;x=y', "+15550133"),
        ("<sips:bob@h?Replaces=abc%3Bto-tag%3D1>", "bob"),
        ("tel:+15550133;phone-context=x", "+15550133"),
        ("room: main", "room: main"),
    ],
)
def test_the_number_in_a_transfer_target(target: str, number: str) -> None:
    assert phone_of(target) == number


def test_media_and_correlation_come_from_the_legs() -> None:
    call = talking()
    for leg, mos in (("a", 4.2), ("b", 3.1)):
        call.add(
            LegMedia(call=call.call, at=call.at, leg=LegId(leg), lost=3, jitter_ms=1.5, rtt_ms=40.0, mos=mos)
        )
    call.add(
        LegEnded(call=call.call, at=call.at, leg=LegId("b"), termination=HUNG_UP, correlation="3f2504e0-aa")
    )
    found = row(call.ended(HUNG_UP, "a"))
    assert (found.mos, found.teams_correlation_id) == (3.1, "3f2504e0-aa")
    assert found.detail["legs"][1]["media"]["rtt_ms"] == 40.0
    assert found.detail["legs"][1]["media"].keys().isdisjoint({"kind", "call", "leg"})


def test_the_document_names_every_column_once() -> None:
    text = markdown()
    for column in COLUMNS:
        assert text.count(f"\n| {column.name} | ") == 1
        assert column.unit
        assert column.rule.endswith(".")
    written = (Path(__file__).parents[2] / "docs" / "call-detail.md").read_text()
    assert text.partition("\n")[2] in written, "made anew: gateway.cdr.columns.markdown()"
    assert f"\nSchema version {SCHEMA_VERSION}\n" in written


# -- what others tell: menus and queues of the contact center, agents' after-call work --


def stage(history: History, name: str) -> History:
    return history.add(StageEntered(call=history.call, at=history.at, stage=name))


def waiting() -> History:
    """A Teams user calls the contact center, which rings an agent only after a menu and a queue."""
    history = History().started()
    history.leg("a", Role.CALLER, EXPERT, "+15550100", "teams")
    history.leg("b", Role.CALLEE, AGENT, "+15550199", login="ann").dialled("b").wait(2000)
    stage(history.answered("b", "a").joined("a", "b").wait(300), "ivr").wait(9700)
    return stage(history, "queue").wait(20_000)


def test_a_menu_and_a_queue_after_the_answer_are_neither_ringing_nor_talk() -> None:
    call = stage(waiting(), "ringing").wait(5000)
    found = row(stage(call, "connected").wait(60_000).ended())
    assert (found.ivr_time, found.queue_time, found.pending_time, found.talk_time) == (10, 20, 7, 60)
    assert found.duration == 97
    assert found.answer_time is not None
    assert (found.answer_time - found.start_time).total_seconds() == 37
    assert [one["stage"] for one in found.detail["stages"]] == ["ivr", "queue", "ringing", "connected"]


def test_who_hangs_up_in_a_queue_was_never_connected() -> None:
    found = row(waiting().ended())
    assert (found.answer_time, found.talk_time, found.connected_to_phone) == (None, 0, "")
    assert (found.ivr_time, found.queue_time, found.pending_time) == (10, 20, 2)
    assert found.disposition == "abandoned_queue"
    assert row(stage(waiting(), "ivr").wait(1000).ended()).disposition == "abandoned_ivr"
    assert row(stage(waiting(), "ringing").wait(1000).ended()).disposition == "abandoned_ringing"


def test_a_hold_before_the_connection_is_no_hold_time() -> None:
    call = held(waiting(), "b", AGENT).wait(4000)
    found = row(stage(call, "connected").wait(3000).ended())
    assert (found.queue_time, found.hold_time, found.talk_time) == (24, 3, 0)


def test_a_queue_in_the_middle_of_a_talk_is_talk() -> None:
    """Rule 3: what is connected and not held is talk."""
    call = stage(talking().wait(30_000), "queue").wait(10_000)
    found = row(stage(call, "connected").wait(1000).ended())
    assert (found.queue_time, found.talk_time, found.pending_time) == (0, 42, 3)
    assert len(found.detail["stages"]) == 2


def test_who_became_host_in_the_conference_is_one_in_the_row() -> None:
    """The row said what LegCreated had said, before there was a conference."""
    history = talking()
    history.add(Noted(call=history.call, at=history.at, what="host", leg=LegId("b"), detail={}))
    found = row(history.wait(1000).ended())
    assert {leg["leg"]: leg["host"] for leg in found.detail["legs"]} == {"a": False, "b": True}


def test_what_a_header_told_moves_the_start_back() -> None:
    history = History(at=60_000).started()
    history.add(Waited(call=history.call, at=history.at, ivr_ms=12_500, queue_ms=30_000))
    history.leg("a", Role.CALLER, AGENT, "+1", login="ann").leg("b", Role.CALLEE, EXPERT, "+2", "teams")
    found = row(history.dialled("b").wait(2500).answered("a", "b").joined("a", "b").wait(9000).ended())
    assert found.start_time.isoformat() == "2026-01-01T00:00:17+00:00"
    assert (found.ivr_time, found.queue_time, found.pending_time, found.talk_time) == (13, 30, 2, 9)
    assert found.duration == 54


def test_after_call_work_is_beside_the_duration_and_adds_up() -> None:
    call = talking().ended()
    work = [(WorkBegan, 0), (WorkEnded, 7400)]
    before = row(call)
    for login, shift in (("ann", 0), ("eve", 2000)):
        for kind, after in work:
            more = {"began": call.at + shift} if kind is WorkEnded else {}
            call.add(kind(call=call.call, at=call.at + shift + after, login=login, **more))
    found = row(call)
    assert (found.acw_time, found.duration, found.revision) == (15, before.duration, 3)
    assert found.detail["after_call_work"][0] == {
        "login": "ann", "start_ms": call.at, "end_ms": call.at + 7400
    }  # fmt: skip
    assert found.to_dict() | {"acw_time": 0, "detail": {}} == before.to_dict() | {"detail": {}}
    again = row(call.add(WorkEnded(call=call.call, at=call.at + 9999, login="ann", began=call.at)))
    assert again == found, "a piece of work ends once"


def test_a_wait_is_believed_only_as_a_number_of_seconds() -> None:
    class Headers(dict[str, list[str]]):
        def getlist(self, key: str) -> list[str]:
            return self.get(key, [])

    trunk = Trunk(name="cc", peers=("udp:127.0.0.1:5060",), ivr_time_header="X-I", queue_time_header="X-Q")
    for values, expected in (
        (["12"], 12_000), ([" 0.25 "], 250), (["86400"], 86_400_000), (["86401"], 0), (["-1"], 0), ([], 0),
        (["1", "2"], 0), (["1e9"], 0), (["\u0663"], 0), ([""], 0), (["nan"], 0), (["999999999"], 0),
    ):  # fmt: skip
        assert waited(trunk, Headers({"X-Q": values})) == (0, expected), values  # type: ignore[arg-type]
    plain = Trunk(name="cc", peers=("udp:127.0.0.1:5060",))
    assert waited(plain, Headers({"X-Q": ["5"], "": ["5"]})) == (0, 0)  # type: ignore[arg-type]
