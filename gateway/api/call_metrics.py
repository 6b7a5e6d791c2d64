"""Figures about calls, read off the journal's events as they become durable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.api.metrics import Histogram, Reading
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
    LegTransferred,
)
from gateway.model import CallId, LegId, Role

SETUP_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
DURATION_BOUNDS = (10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 14400.0)
MOS_BOUNDS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.2, 4.4)


@dataclass
class _Call:
    started: int
    trunks: dict[LegId, str] = field(default_factory=dict)
    roles: dict[LegId, Role] = field(default_factory=dict)
    live: set[LegId] = field(default_factory=set)
    answered: int = 0
    rang: bool = False

    def trunk_of(self, role: Role) -> str:
        return next((self.trunks[leg] for leg, its in self.roles.items() if its is role), "none")


class CallMetrics:
    """Counts by trunk, result and reason; all of them bounded words. Feed it every event once."""

    def __init__(self) -> None:
        self._calls: dict[CallId, _Call] = {}
        self._ended: Counter[tuple[str, str, str, str]] = Counter()
        self._legs_ended: Counter[tuple[str, str, str]] = Counter()
        self._attempts_failed: Counter[tuple[str, str]] = Counter()
        self._dialled: Counter[str] = Counter()
        self._transfers: Counter[tuple[str, str]] = Counter()
        self._holds: Counter[str] = Counter()
        self._lost = 0
        self.ringing = Histogram(
            "tandem_call_ringing_seconds", "From a call's start to the first 18x.", SETUP_BOUNDS
        )
        self.duration = Histogram("tandem_call_duration_seconds", "Answered calls.", DURATION_BOUNDS)
        self.mos = Histogram("tandem_leg_mos", "Mean opinion score a leg reported, 1 to 4.5.", MOS_BOUNDS)

    def observe(self, event: Event) -> None:
        if isinstance(event, CallStarted):
            self._calls[event.call] = _Call(event.at)
            return
        call = self._calls.get(event.call)
        if call is None:
            return
        match event:
            case LegCreated():
                call.trunks[event.leg], call.roles[event.leg] = event.trunk, event.role
                call.live.add(event.leg)
            case LegDialled():
                self._dialled[call.trunks.get(event.leg, "none")] += 1
            case LegAttemptFailed():
                self._attempts_failed[(call.trunks.get(event.leg, "none"), str(event.sip_code))] += 1
            case LegRinging() if not call.rang:
                call.rang = True
                self.ringing.observe((event.at - call.started) / 1000)
            case LegAnswered():
                if call.roles.get(event.leg) is not Role.CALLER or not call.answered:
                    call.answered = call.answered or event.at
            case LegHeld():
                self._holds[str(event.by)] += 1
            case LegTransferred():
                self._transfers[(event.mode, event.outcome)] += 1
            case LegMedia():
                self._lost += event.lost or 0
                if event.mos is not None:
                    self.mos.observe(event.mos)
            case LegEnded():
                call.live.discard(event.leg)
                ending = event.termination
                self._legs_ended[(call.trunks.get(event.leg, "none"), str(ending.result), ending.reason)] += 1
            case CallEnded():
                del self._calls[event.call]
                ending = event.termination
                key = (
                    call.trunk_of(Role.CALLER),
                    call.trunk_of(Role.CALLEE),
                    str(ending.result),
                    ending.reason,
                )
                self._ended[key] += 1
                if call.answered:
                    self.duration.observe((event.at - call.answered) / 1000)

    def readings(self) -> Iterator[Reading]:
        calls = self._calls.values()
        yield Reading("tandem_calls", len(calls), "Calls that are up, ringing ones included.")
        yield Reading(
            "tandem_calls_answered", sum(1 for call in calls if call.answered), "Calls that are answered."
        )
        live: Counter[str] = Counter(call.trunks[leg] for call in calls for leg in call.live)
        for trunk, number in live.items():
            yield Reading("tandem_legs", number, "Legs that are up.", labels={"trunk": trunk})
        for (source, target, result, reason), number in self._ended.items():
            labels = {"from_trunk": source, "to_trunk": target, "result": result, "reason": reason}
            yield Reading("tandem_calls_ended", number, "Calls that are over.", "counter", labels)
        for (trunk, result, reason), number in self._legs_ended.items():
            labels = {"trunk": trunk, "result": result, "reason": reason}
            yield Reading("tandem_legs_ended", number, "Legs that are over.", "counter", labels)
        for trunk, number in self._dialled.items():
            yield Reading("tandem_dials", number, "INVITEs for new legs.", "counter", {"trunk": trunk})
        for (trunk, code), number in self._attempts_failed.items():
            labels = {"trunk": trunk, "code": code}
            yield Reading(
                "tandem_dials_failed", number, "INVITEs that failed, by SIP code.", "counter", labels
            )
        for (mode, outcome), number in self._transfers.items():
            labels = {"mode": mode, "outcome": outcome}
            yield Reading("tandem_transfers", number, "Transfers.", "counter", labels)
        for party, number in self._holds.items():
            yield Reading("tandem_holds", number, "Holds, by who held.", "counter", {"by": party})
        yield Reading("tandem_rtp_lost_packets", self._lost, "RTP packets reported lost.", "counter")
