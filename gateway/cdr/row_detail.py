"""The `detail` of a row: milliseconds, segments, all holds, legs, transfers, and what others told. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.cdr.call_state import CallState, LegState, Span
from gateway.cdr.columns import SCHEMA_VERSION


def lengths(spans: Iterable[Span], start: int, end: int) -> list[int]:
    """Milliseconds of each span inside start..end, without those that have none there."""
    clipped = (min(end if s.end is None else s.end, end) - max(s.start, start) for s in spans)
    return [length for length in clipped if length > 0]


def detail_of(
    state: CallState, begin: int, answered: int | None, talk_ms: int, hold_ms: int
) -> dict[str, Any]:
    """`begin`, `answered`: milliseconds, as the row has them in seconds; the call has ended."""
    assert state.end is not None
    detail: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "start_ms": begin,
        "answer_ms": answered,
        "end_ms": state.end,
        "talk_ms": talk_ms,
        "hold_ms": hold_ms,
        "segments": [
            {"id": f"{state.call}-{n}", "start_ms": s.start, "end_ms": s.end, "members": list(s.members)}
            for n, s in enumerate(state.segments, 1)
        ],
        "legs": [_leg_detail(leg) for leg in state.legs.values()],
    }
    if state.consultation_of:
        detail["consultation_of"] = state.consultation_of
    if state.holds:
        detail["holds"] = [
            {"leg": h.leg, "by": h.by.value, "start_ms": h.start, "end_ms": h.end}
            | ({"player": h.player} if h.player is not None else {})
            for h in state.holds
        ]
    if answered is not None:
        others = sum(lengths(state.other_spans, answered, state.end))
        if others:
            detail["external_hold"] = {"ms": others, "part_of_call_detail": False}
    if state.transfers:
        detail["transfers"] = [
            {
                "leg": t.leg,
                "mode": t.mode,
                "target": t.target,
                "outcome": t.outcome,
                "at_ms": t.at,
                "new_leg": t.new_leg,
                "sip_code": t.sip_code,
            }
            for t in state.transfers
        ]
    if state.moves:
        detail["media_moves"] = [{"at_ms": m.at, "to": m.to, "cause": m.cause} for m in state.moves]
    if state.waited_ivr or state.waited_queue:
        detail["waited_before"] = {"ivr_ms": state.waited_ivr, "queue_ms": state.waited_queue}
    if state.stages:
        detail["stages"] = [{"stage": stage.name, "at_ms": stage.at} for stage in state.stages]
    if state.work:
        detail["after_call_work"] = [
            {"login": w.login, "start_ms": w.start, "end_ms": w.end} for w in state.work
        ]
    if state.revisions:
        detail["revision"] = state.revisions + 1
    if state.incomplete:
        detail["incomplete"] = True
    return detail


def _leg_detail(leg: LegState) -> dict[str, Any]:
    found: dict[str, Any] = {
        "leg": leg.leg,
        "trunk": leg.trunk,
        "party": leg.party.value,
        "role": leg.role.value,
        "number": leg.number,
        "login": leg.login,
        "host": leg.host,
        "sip_call_id": leg.sip_call_id,
        "created_ms": leg.created,
        "ringing_ms": leg.ringing,
        "early_media": leg.early_media,
        "answered_ms": leg.answered,
        "ended_ms": leg.ended,
        "codec": leg.codec,
        "srtp": leg.srtp,
        "attempts": [
            {"peer": a.peer, "attempt": a.attempt, "at_ms": a.at, "sent": a.sent}
            | {"sip_code": a.sip_code, "text": a.text}
            for a in leg.attempts
        ],
        "correlation": leg.correlation,
    }
    if leg.termination is not None:
        found["termination"] = {
            "result": leg.termination.result.value,
            "reason": leg.termination.reason,
            "sip_code": leg.termination.sip_code,
            "q850": leg.termination.q850,
            "released_by": leg.termination.released_by.value,
            "text": leg.termination.text,
        }
    if leg.media is not None:
        media = leg.media.to_dict()
        found["media"] = {k: v for k, v in media.items() if k not in ("kind", "call", "at", "leg")}
    return found
