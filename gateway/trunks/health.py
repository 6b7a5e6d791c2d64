"""What we believe about one peer of a trunk: a state machine fed by OPTIONS answers and call attempts.

Pure: the moment is an argument, nothing waits and nothing is sent here. `probe.py` feeds it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gateway.errors import IllegalTransition

log = logging.getLogger("tandem.trunks")

MISSES_UNTIL_DOWN = 3
"""Unanswered probes in a row; Teams itself counts three intervals (facts 2)."""
LONGEST_HOLD_DOWN = 600.0
"""Seconds; a larger Retry-After is cut, or one bad answer would put a peer last for a day."""


class PeerState(StrEnum):
    UNKNOWN = "unknown"
    """not heard of yet, or a hold-down has just ended; tried like a peer that is up"""
    UP = "up"
    DOWN = "down"
    HOLD_DOWN = "hold-down"
    """it answered 503 with Retry-After"""


class PeerEvent(StrEnum):
    ANSWERED = "answered"
    ANSWERED_EARLY = "answered_early"
    """while a hold-down it was lost in is not over"""
    LOST = "lost"
    REFUSED = "refused"
    HELD_OUT = "held_out"


_EDGES: dict[tuple[PeerState, PeerEvent], PeerState] = {
    (PeerState.UNKNOWN, PeerEvent.ANSWERED): PeerState.UP,
    (PeerState.UNKNOWN, PeerEvent.LOST): PeerState.DOWN,
    (PeerState.UNKNOWN, PeerEvent.REFUSED): PeerState.HOLD_DOWN,
    (PeerState.UP, PeerEvent.ANSWERED): PeerState.UP,
    (PeerState.UP, PeerEvent.LOST): PeerState.DOWN,
    (PeerState.UP, PeerEvent.REFUSED): PeerState.HOLD_DOWN,
    (PeerState.DOWN, PeerEvent.ANSWERED): PeerState.UP,
    (PeerState.DOWN, PeerEvent.ANSWERED_EARLY): PeerState.HOLD_DOWN,
    (PeerState.DOWN, PeerEvent.LOST): PeerState.DOWN,
    (PeerState.DOWN, PeerEvent.REFUSED): PeerState.HOLD_DOWN,
    # an answer to another request does not shorten what Retry-After asked for
    (PeerState.HOLD_DOWN, PeerEvent.ANSWERED): PeerState.HOLD_DOWN,
    (PeerState.HOLD_DOWN, PeerEvent.LOST): PeerState.DOWN,
    (PeerState.HOLD_DOWN, PeerEvent.REFUSED): PeerState.HOLD_DOWN,
    (PeerState.HOLD_DOWN, PeerEvent.HELD_OUT): PeerState.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer as `/metrics`, the API and `tandem trunks` show it.

    rtt_ms:     round trip of the last answered OPTIONS, milliseconds
    last_code:  status of the last answer, 0 before the first
    hold_down:  seconds of hold-down left
    answered:   when it last answered; addresses: what its name resolves to now
    """

    peer: str
    state: PeerState
    misses: int
    last_code: int
    last_error: str
    rtt_ms: float | None
    hold_down: float
    answered: datetime | None
    addresses: tuple[str, ...] = ()


@dataclass(slots=True)
class PeerHealth:
    """The machine of one peer (a name or address of `peers`); all moments are monotonic seconds."""

    trunk: str
    peer: str
    misses_until_down: int = MISSES_UNTIL_DOWN
    state: PeerState = PeerState.UNKNOWN
    misses: int = 0
    last_code: int = 0
    last_error: str = ""
    rtt_ms: float | None = None
    held_until: float = 0.0
    answered: datetime | None = None
    addresses: tuple[str, ...] = field(default=())

    def reachable(self, code: int, rtt: float | None, now: float, wall: datetime) -> None:
        """Any final answer but 503: the peer is there, whatever it thinks of us (`rtt` in seconds)."""
        self.settle(now)
        self.misses, self.last_code, self.last_error, self.answered = 0, code, "", wall
        if rtt is not None:
            self.rtt_ms = rtt * 1000
        early = self.state is PeerState.DOWN and now < self.held_until
        self._advance(PeerEvent.ANSWERED_EARLY if early else PeerEvent.ANSWERED)

    def refused(self, retry_after: float | None, now: float) -> None:
        """A 503: with Retry-After (seconds) a hold-down, without it a miss (RFC 3261 21.5.4)."""
        self.settle(now)
        self.last_code, self.last_error = 503, "503 Service Unavailable"
        if retry_after is None or retry_after <= 0:
            self._miss()
            return
        self.misses = 0
        self.held_until = max(self.held_until, now + min(retry_after, LONGEST_HOLD_DOWN))
        self._advance(PeerEvent.REFUSED)

    def missed(self, error: str, now: float) -> None:
        """No answer, no connection, no address: `error` in words."""
        self.settle(now)
        self.last_error = error
        self._miss()

    def settle(self, now: float) -> None:
        """End a hold-down that is over."""
        if self.state is PeerState.HOLD_DOWN and now >= self.held_until:
            self._advance(PeerEvent.HELD_OUT)

    def status(self, now: float) -> PeerStatus:
        self.settle(now)
        held = max(0.0, self.held_until - now) if self.state is PeerState.HOLD_DOWN else 0.0
        return PeerStatus(
            self.peer,
            self.state,
            self.misses,
            self.last_code,
            self.last_error,
            self.rtt_ms,
            held,
            self.answered,
            self.addresses,
        )

    def _miss(self) -> None:
        self.misses += 1
        if self.misses >= self.misses_until_down:
            self._advance(PeerEvent.LOST)

    def _advance(self, event: PeerEvent) -> None:
        target = _EDGES.get((self.state, event))
        if target is None:
            raise IllegalTransition("peer", self.state, event)
        if target is not self.state:
            level = logging.WARNING if target in (PeerState.DOWN, PeerState.HOLD_DOWN) else logging.INFO
            log.log(
                level,
                "peer state trunk=%s peer=%s from=%s to=%s event=%s code=%d error=%r",
                self.trunk,
                self.peer,
                self.state,
                target,
                event,
                self.last_code,
                self.last_error,
            )
        self.state = target


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (`120 (back soon);duration=60`); None when absent or unreadable."""
    digits = (value or "").strip()
    for end, char in enumerate(digits):
        if not (char.isascii() and char.isdigit()):
            digits = digits[:end]
            break
    return float(digits[:9]) if digits else None
