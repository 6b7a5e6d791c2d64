"""Call figures from events: what went up comes down, and labels stay bounded."""

from __future__ import annotations

from gateway.api.call_metrics import CallMetrics
from gateway.events import (
    CallEnded,
    CallStarted,
    Event,
    LegAnswered,
    LegAttemptFailed,
    LegCreated,
    LegDialled,
    LegEnded,
    LegHeld,
    LegMedia,
    LegRinging,
)
from gateway.model import CallId, InteractionId, LegId, PartyType, ReleasedBy, Result, Role, Termination

CALL, A, B = CallId("c" * 32), LegId("a" * 32), LegId("b" * 32)
DONE = Termination(Result.COMPLETED, "normal", 200, 16, ReleasedBy.CALLER)


def created(leg: LegId, trunk: str, party: PartyType, role: Role) -> Event:
    return LegCreated(call=CALL, at=1000, leg=leg, trunk=trunk, party=party, role=role, number="1")


def story() -> list[Event]:
    return [
        CallStarted(call=CALL, at=1000, interaction=InteractionId("i"), from_number="1", to_number="2"),
        created(A, "cc", PartyType.AGENT, Role.CALLER),
        LegCreated(
            call=CALL,
            at=1001,
            leg=B,
            trunk="teams",
            party=PartyType.TEAMS_EXPERT,
            role=Role.CALLEE,
            number="2",
        ),
        LegDialled(call=CALL, at=1002, leg=B, peer="sip", attempt=1),
        LegAttemptFailed(call=CALL, at=1100, leg=B, peer="sip", attempt=1, sip_code=503),
        LegDialled(call=CALL, at=1101, leg=B, peer="sip2", attempt=2),
        LegRinging(call=CALL, at=1200, leg=B, sip_code=180),
        LegAnswered(call=CALL, at=3000, leg=B, codec="PCMA"),
        LegAnswered(call=CALL, at=3001, leg=A, codec="PCMA"),
        LegHeld(call=CALL, at=4000, leg=B, by=PartyType.TEAMS_EXPERT),
        LegMedia(call=CALL, at=23000, leg=B, lost=7, mos=4.3),
        LegEnded(call=CALL, at=23000, leg=A, termination=DONE),
        LegEnded(call=CALL, at=23000, leg=B, termination=DONE),
        CallEnded(call=CALL, at=23000, termination=DONE),
    ]


def values(metrics: CallMetrics) -> dict[str, float]:
    return {
        f"{reading.name}{sorted(reading.labels.items()) if reading.labels else ''}": reading.value
        for reading in metrics.readings()
    }


def test_a_call_is_up_and_then_counted_by_trunk_result_and_reason() -> None:
    metrics = CallMetrics()
    events = story()
    for event in events[:9]:
        metrics.observe(event)
    now = values(metrics)
    assert (now["tandem_calls"], now["tandem_calls_answered"]) == (1, 1)
    assert now["tandem_legs[('trunk', 'cc')]"] == now["tandem_legs[('trunk', 'teams')]"] == 1
    for event in events[9:]:
        metrics.observe(event)
    now = values(metrics)
    assert (now["tandem_calls"], now["tandem_calls_answered"]) == (0, 0)
    assert not [name for name in now if name.startswith("tandem_legs[")]
    ended = [reading.labels for reading in metrics.readings() if reading.name == "tandem_calls_ended"]
    assert ended == [{"from_trunk": "cc", "to_trunk": "teams", "result": "completed", "reason": "normal"}]
    assert now["tandem_dials[('trunk', 'teams')]"] == 2
    assert now["tandem_dials_failed[('code', '503'), ('trunk', 'teams')]"] == 1
    assert now["tandem_holds[('by', 'teams_expert')]"] == 1
    assert now["tandem_rtp_lost_packets"] == 7
    [sample] = [s for s in metrics.duration.family().samples if s.name.endswith("_sum")]
    assert sample.value == 20.0
    [sample] = [s for s in metrics.ringing.family().samples if s.name.endswith("_sum")]
    assert sample.value == 0.2


def test_events_of_a_call_that_began_before_us_are_passed_over() -> None:
    metrics = CallMetrics()
    for event in story()[1:]:
        metrics.observe(event)
    assert values(metrics) == {"tandem_calls": 0, "tandem_calls_answered": 0, "tandem_rtp_lost_packets": 0}
