"""Call detail: rows made of a call's events, and of nothing else (facts/call-detail.md 5, rules 1 to 10).

Decisions where the rules leave room:
- The moments of a row are whole seconds, cut, not rounded; the lengths are differences of those, so that
  duration = pending + talk + hold and talk + hold = end - answer are exact on the row itself. Talk and hold
  share end - answer by largest remainder. Milliseconds are in `detail`.
- Answered means: two legs up at once. Waiting alone in an announcement is still pending. Where the contact
  center tells, by the time the legs are up or soon after, that it has the call in a menu or a queue, then
  answered means `connected`; what it tells of a call that people talk in is in `detail.stages` and no more.
- What a caller waited before his INVITE reached us is in front of start_time, which moves so much back.
- A row needs an INVITE that left, or a leg that was answered (rule 10). A caller refused by policy, or for
  whom no peer could even be tried, leaves none.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from gateway.cdr.call_state import CallState, LegState, Transfer, fold
from gateway.cdr.columns import CallType, Disposition
from gateway.cdr.row_detail import detail_of, lengths
from gateway.events import Event
from gateway.model import PartyType, ReleasedBy, Result, Role, Termination

CONNECTED = "connected"
STAGES = ("ivr", "queue", "ringing", CONNECTED)
"""Where a contact center may tell that it has a call (`StageEntered.stage`)."""
TOLD_WITHIN = 5000
"""Milliseconds after two legs are up in which a menu or a queue must be told of to count as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDetail:
    """One row; fields are those of `columns.COLUMNS`, in that order. Times are aware UTC, whole seconds."""

    id: str
    global_interaction_id: str
    media_type: str
    type: str
    start_time: datetime
    answer_time: datetime | None
    end_time: datetime
    duration: int
    ivr_time: int
    queue_time: int
    pending_time: int
    talk_time: int
    hold_time: int
    hold_count: int
    max_hold: int
    acw_time: int
    from_phone: str
    original_destination_phone: str
    connected_to_phone: str
    transferred_from_phone: str
    transferred_to_phone: str
    caller_party_type: str
    callee_party_type: str
    caller_login_id: str
    callee_login_id: str
    caller_trunk: str
    callee_trunk: str
    disposition: str
    released_by: str
    sip_code: int
    reason: str
    teams_correlation_id: str
    mos: float | None
    detail: dict[str, Any]

    def values(self) -> dict[str, Any]:
        """Column name to value, times as datetime (what a database takes)."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: times as `2026-01-01T00:00:00Z`."""
        return {
            name: iso(value) if isinstance(value, datetime) else value
            for name, value in self.values().items()
        }

    @property
    def revision(self) -> int:
        """1 for a row as its call ended; higher when after-call work that ended later has changed it."""
        return int(self.detail.get("revision", 1))

    @property
    def agents(self) -> tuple[str, ...]:
        """Logins of all agents who had a leg in the call, each once."""
        legs = (str(leg["login"]) for leg in self.detail.get("legs", ()))
        return tuple(dict.fromkeys(filter(None, (self.caller_login_id, self.callee_login_id, *legs))))

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> CallDetail:
        """Inverse of `to_dict`; unknown keys are dropped. KeyError or ValueError when it is no row."""
        values = {field.name: record[field.name] for field in fields(cls)}
        for name in ("start_time", "answer_time", "end_time"):
            if isinstance(values[name], str):
                values[name] = datetime.fromisoformat(values[name])
        return cls(**values)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, whole seconds, with `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def call_detail(events: Iterable[Event]) -> list[CallDetail]:
    """Rows of the calls in `events` that have ended, in the order in which the calls began."""
    rows = (row_of(state) for state in fold(events).values())
    return [row for row in rows if row is not None]


def row_of(state: CallState) -> CallDetail | None:
    """The call's row; None while it runs, and for a call that leaves none (rule 10)."""
    if state.end is None or state.termination is None:
        return None
    if not any(leg.dialled or leg.answered is not None for leg in state.legs.values()):
        return None
    caller, callee = _caller(state), _callee(state)
    begin, answered = state.start - state.waited_ivr - state.waited_queue, _answered(state)
    start, end = begin // 1000, state.end // 1000
    answer = None if answered is None else answered // 1000
    held, talk_ms, hold_ms = [], 0, 0
    if answered is not None:
        held = lengths(state.agent_spans, answered, state.end)
        hold_ms = sum(held)
        talk_ms = state.end - answered - hold_ms
    talk, hold = largest_remainder(0 if answer is None else end - answer, (talk_ms, hold_ms))
    waits = _waits(state, state.end if answered is None else answered)
    pending, ivr, queue = largest_remainder((end if answer is None else answer) - start, waits)
    transfer = next((t for t in reversed(state.transfers) if t.outcome == "completed"), None)
    connected = (
        callee is not None and callee.answered is not None and (answer is not None or not state.stages)
    )
    return CallDetail(
        id=str(state.call),
        global_interaction_id=str(state.interaction) or _stand_in(state.call),
        media_type="VOICE",
        type=_type(state, caller, callee).value,
        start_time=_moment(start),
        answer_time=None if answer is None else _moment(answer),
        end_time=_moment(end),
        duration=end - start,
        ivr_time=ivr,
        queue_time=queue,
        pending_time=pending,
        talk_time=talk,
        hold_time=hold,
        hold_count=len(held),
        max_hold=max(zip(held, largest_remainder(hold, held), strict=True), default=(0, 0))[1],
        acw_time=(_work_ms(state) + 500) // 1000,
        from_phone=state.from_number,
        original_destination_phone=state.to_number,
        connected_to_phone=callee.number if callee is not None and connected else "",
        transferred_from_phone=_transferor(state, transfer),
        transferred_to_phone=_transferred_to(state, transfer),
        caller_party_type=caller.party.value if caller else "",
        callee_party_type=callee.party.value if callee else "",
        caller_login_id=caller.login if caller else "",
        callee_login_id=callee.login if callee else "",
        caller_trunk=caller.trunk if caller else "",
        callee_trunk=callee.trunk if callee else "",
        disposition=_disposition(state, state.termination, transfer, answered).value,
        released_by=state.termination.released_by.value,
        sip_code=state.termination.sip_code,
        reason=state.termination.reason,
        teams_correlation_id=_correlation(state),
        mos=_worst_mos(state),
        detail=detail_of(state, begin, answered, talk_ms, hold_ms),
    )


def _answered(state: CallState) -> int | None:
    """When two parties were connected: two legs up, and no menu or queue of the contact center between."""
    if state.answer is None or not state.stages:
        return state.answer
    first = state.stages[0]
    if first.name == CONNECTED or first.at > state.answer + TOLD_WITHIN:
        return state.answer
    connected = next((stage.at for stage in state.stages if stage.name == CONNECTED), None)
    return None if connected is None else max(connected, state.answer)


def _waits(state: CallState, until: int) -> tuple[int, int, int]:
    """Milliseconds pending, in a menu and in a queue until then."""
    spent = {"ivr": state.waited_ivr, "queue": state.waited_queue}
    ends = [*(stage.at for stage in state.stages[1:]), until]
    for stage, end in zip(state.stages, ends, strict=False):
        if stage.name in spent:
            spent[stage.name] += max(min(end, until) - stage.at, 0)
    whole = until - state.start + state.waited_ivr + state.waited_queue
    return whole - sum(spent.values()), spent["ivr"], spent["queue"]


def _work_ms(state: CallState) -> int:
    return sum(work.end - work.start for work in state.work if work.end is not None)


def largest_remainder(total: int, parts: Sequence[int]) -> list[int]:
    """Share whole `total` out in proportion to `parts`; the shares sum to it, a part of 0 gets 0.

    With nothing to go by (all parts 0) the first gets everything.
    """
    whole = sum(parts)
    if not parts or not whole:
        return [total if index == 0 else 0 for index in range(len(parts))]
    shares = [total * part // whole for part in parts]
    by_need = sorted(range(len(parts)), key=lambda i: (-(total * parts[i] % whole), -parts[i], i))
    for index in by_need[: total - sum(shares)]:
        shares[index] += 1
    return shares


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _stand_in(call: str) -> str:
    """An interaction id for a call whose first record was lost; the same at every replay."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, call))


def _caller(state: CallState) -> LegState | None:
    legs = list(state.legs.values())
    return next((leg for leg in legs if leg.role is Role.CALLER), legs[0] if legs else None)


def _callee(state: CallState) -> LegState | None:
    caller = _caller(state)
    others = [leg for leg in state.legs.values() if leg is not caller]
    answered = [leg for leg in others if leg.answered is not None]
    if answered:
        return min(answered, key=lambda leg: leg.answered or 0)
    return next((leg for leg in others if leg.role is Role.CALLEE), others[0] if others else None)


def _type(state: CallState, caller: LegState | None, callee: LegState | None) -> CallType:
    if not any(leg.party is PartyType.AGENT for leg in state.legs.values()):
        return CallType.EXTERNAL
    if caller is None or caller.party is not PartyType.AGENT:
        return CallType.INBOUND
    if callee is None or callee.party is PartyType.AGENT:
        return CallType.INTERNAL
    return CallType.OUTBOUND


_RELEASED = {
    ReleasedBy.CALLER: Disposition.CALLER_TERMINATED,
    ReleasedBy.CALLEE: Disposition.CALLEE_TERMINATED,
    ReleasedBy.PARTICIPANT: Disposition.PARTICIPANT_TERMINATED,
    ReleasedBy.SYSTEM: Disposition.SYSTEM_TERMINATED,
}
_UNANSWERED = {
    Result.ABANDONED: Disposition.ABANDONED_RINGING,
    Result.NO_ANSWER: Disposition.NO_ANSWER,
    Result.BUSY: Disposition.BUSY,
    Result.DECLINED: Disposition.DECLINED,
    Result.NOT_FOUND: Disposition.NOT_FOUND,
    Result.REJECTED: Disposition.REJECTED,
    Result.UNREACHABLE: Disposition.UNREACHABLE,
    Result.FAILED: Disposition.FAILED,
}


_ABANDONED = {
    "ivr": Disposition.ABANDONED_IVR,
    "queue": Disposition.ABANDONED_QUEUE,
    "ringing": Disposition.ABANDONED_RINGING,
}


def _disposition(
    state: CallState, termination: Termination, transfer: Transfer | None, answered: int | None
) -> Disposition:
    if transfer is not None:
        return Disposition.TRANSFERRED
    if any(len(segment.members) >= 3 for segment in state.segments):
        return Disposition.CONFERENCED
    released = _RELEASED[termination.released_by]
    if answered is None and state.stages and termination.released_by is ReleasedBy.CALLER:
        return _ABANDONED.get(state.stages[-1].name, released)
    if state.answer is not None:
        return released
    return _UNANSWERED.get(termination.result, released)


def _transferor(state: CallState, transfer: Transfer | None) -> str:
    leg = state.legs.get(transfer.leg) if transfer else None
    return leg.number if leg else ""


def _transferred_to(state: CallState, transfer: Transfer | None) -> str:
    if transfer is None:
        return ""
    leg = state.legs.get(transfer.new_leg) if transfer.new_leg else None
    # the target of a Teams user names a proxy and no number, and so does his leg
    return leg.number if leg else phone_of(transfer.target)


def phone_of(target: str) -> str:
    """The number in a transfer target: `<sip:+1555@host;user=phone>` is `+1555`; other text stays."""
    text = target.strip()
    if "<" in text:
        text = text.partition("<")[2].partition(">")[0]
    scheme, colon, rest = text.partition(":")
    if not colon or scheme.lower() not in ("sip", "sips", "tel"):
        return text
    return rest.partition("?")[0].partition("@")[0].partition(";")[0]


def _correlation(state: CallState) -> str:
    found = [leg for leg in state.legs.values() if leg.correlation]
    return max(found, key=lambda leg: leg.ended or 0).correlation if found else ""


def _worst_mos(state: CallState) -> float | None:
    found = (leg.media.mos for leg in state.legs.values() if leg.media is not None)
    return min((mos for mos in found if mos is not None), default=None)
