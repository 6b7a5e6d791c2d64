"""Which peer a call is offered to next, and when it must not be offered again. Pure.

A trunk has peers in order (Teams: sip, sip2, sip3); each peer has one or more addresses, known only when its
turn comes (live DNS). The rules (facts/direct-routing.md 3.5, T23, T24):

| the attempt ended with | next |
|---|---|
| connection refused, TLS failed, name unknown | next address of the same peer, then the next peer |
| no response in time (`silence`, `patience`), 408 | the same |
| 503 | Direct Routing: next peer at once (next data centre); plain trunk: next address (RFC 3263 4.3) |
| 502, 504 (plain trunks only) | next address or peer |
| every other final answer: 486, 600, 603, 404, 403, 488 ... | nobody: it is the answer |
| anything after an 18x was heard | nobody: nothing rings twice |

Peers known to be in hold-down, then peers that are down, come after all others, but they are tried: our
knowledge may be old. The whole hunt ends after `limit` seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from gateway.errors import IllegalTransition
from gateway.trunks.health import PeerState

log = logging.getLogger("tandem.trunks")

MOST_ADDRESSES = 4
"""Addresses tried of one peer; a name with twenty A records must not use up the caller's patience."""
SILENCE = 4.0
"""Seconds without any response, not even 100, after which the next peer is tried: Teams answers 100 at
once, and its own fail-over toward us allows ten (FailoverTimeSeconds)."""
PATIENCE = 10.0
"""Seconds without an 18x although a 100 came; what Teams itself waits by default (T24)."""

_LAST = {PeerState.UNKNOWN: 0, PeerState.UP: 0, PeerState.HOLD_DOWN: 1, PeerState.DOWN: 2}

AddressT = TypeVar("AddressT")


class HuntRule(StrEnum):
    DIRECT_ROUTING = "direct-routing"
    SIP = "sip"


class HuntState(StrEnum):
    CHOOSING = "choosing"
    RESOLVING = "resolving"
    TRYING = "trying"
    RINGING = "ringing"
    OVER = "over"


class HuntEvent(StrEnum):
    ASK = "ask"
    ADDRESSES = "addresses"
    DIAL = "dial"
    RANG = "rang"
    FAILED = "failed"
    STOP = "stop"


_EDGES: dict[tuple[HuntState, HuntEvent], HuntState] = {
    (HuntState.CHOOSING, HuntEvent.ASK): HuntState.RESOLVING,
    (HuntState.CHOOSING, HuntEvent.DIAL): HuntState.TRYING,
    (HuntState.CHOOSING, HuntEvent.STOP): HuntState.OVER,
    (HuntState.RESOLVING, HuntEvent.ADDRESSES): HuntState.CHOOSING,
    (HuntState.RESOLVING, HuntEvent.STOP): HuntState.OVER,
    (HuntState.TRYING, HuntEvent.FAILED): HuntState.CHOOSING,
    (HuntState.TRYING, HuntEvent.RANG): HuntState.RINGING,
    (HuntState.TRYING, HuntEvent.STOP): HuntState.OVER,
    (HuntState.RINGING, HuntEvent.RANG): HuntState.RINGING,
    (HuntState.RINGING, HuntEvent.STOP): HuntState.OVER,
    (HuntState.OVER, HuntEvent.STOP): HuntState.OVER,
}


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find the addresses of `peer` now and hand them to `Hunt.resolved`."""

    peer: str


@dataclass(frozen=True, slots=True)
class Attempt(Generic[AddressT]):
    """Send the INVITE to `target`; `number` counts from 1.

    silence:  seconds without any response, not even 100, after which to give this attempt up
    patience: seconds without an 18x or final answer after which to give it up although a 100 came
    Giving up is: CANCEL (the session sends it once it may), then `Hunt.failed(0)`.
    """

    peer: str
    target: AddressT
    number: int
    silence: float
    patience: float


def order_of(peers: Iterable[tuple[str, PeerState]]) -> list[str]:
    """Peers in the configured order; those in hold-down after the others, those that are down last."""
    return [peer for peer, _ in sorted(peers, key=lambda item: _LAST[item[1]])]


class Hunt(Generic[AddressT]):
    """One call's way through a trunk's peers.

    Loop: `step(now)` says Resolve (answer with `resolved`), Attempt (make it) or None (no more; `code` and
    `text` tell the last failure). During an attempt: `provisional(code)`, `failed(code)`, `answered()`.
    """

    def __init__(
        self,
        peers: Sequence[str],
        *,
        rule: HuntRule,
        started: float,
        limit: float,
        silence: float = SILENCE,
        patience: float = PATIENCE,
    ) -> None:
        """`peers` as `order_of` gives them; `limit` (whole hunt), `silence` and `patience` in seconds."""
        self._waiting = list(peers)
        self._rule = rule
        self._deadline = started + limit
        self._silence = silence
        self._patience = patience
        self._peer = ""
        self._addresses: list[AddressT] = []
        self.state = HuntState.CHOOSING
        self.attempts = 0
        self.rang = False
        self.code = 0
        self.text = ""

    def step(self, now: float) -> Resolve | Attempt[AddressT] | None:
        """What to do next; None when the hunt is over."""
        if self.state is HuntState.OVER:
            return None
        left = self._deadline - now
        if left <= 0:
            self._stop("time is up")
            return None
        if self._addresses:
            target = self._addresses.pop(0)
            self.attempts += 1
            self._advance(HuntEvent.DIAL)
            return Attempt(
                self._peer, target, self.attempts, min(self._silence, left), min(self._patience, left)
            )
        if not self._waiting:
            self._stop("no peer left")
            return None
        self._peer = self._waiting.pop(0)
        self._advance(HuntEvent.ASK)
        return Resolve(self._peer)

    def resolved(self, addresses: Sequence[AddressT], error: str = "") -> None:
        """The addresses of the peer asked for; none (with the `error` in words) counts as unreachable."""
        self._advance(HuntEvent.ADDRESSES)
        self._addresses = list(addresses[:MOST_ADDRESSES])
        if not self._addresses:
            self.code, self.text = self.code or 503, error or f"{self._peer} has no address"

    def provisional(self, code: int) -> None:
        """A provisional response; from the first 18x on nobody else is tried."""
        if code > 100 and self.state in (HuntState.TRYING, HuntState.RINGING):
            self.rang = True
            self._advance(HuntEvent.RANG)

    def answered(self) -> None:
        """A 2xx: the hunt has done its work."""
        self._stop("answered")

    def failed(self, code: int, text: str = "") -> bool:
        """The attempt is over: `code` is the final status, 0 for no connection or no response at all.

        True when the hunt goes on (call `step` again), False when this was the answer for the caller.
        """
        if self.state is HuntState.OVER:
            return False
        self.code, self.text = code or 408, text
        if self.rang or not self._goes_on(code):
            self._stop("final answer")
            return False
        if code == 503 and self._rule is HuntRule.DIRECT_ROUTING:
            self._addresses.clear()
        if not self._addresses and not self._waiting:
            self._stop("no peer left")
            return False
        self._advance(HuntEvent.FAILED)
        return True

    def unreachable(self, text: str) -> bool:
        """The attempt never got through to the peer; as `failed`, remembered as 503 for the caller."""
        on = self.failed(0, text)
        self.code = 503
        return on

    def abandon(self) -> None:
        """The caller gave up, or the call has no use for another attempt."""
        self._stop("abandoned")

    def _goes_on(self, code: int) -> bool:
        if code in (0, 408, 503):
            return True
        return self._rule is HuntRule.SIP and code in (502, 504)

    def _stop(self, why: str) -> None:
        if self.state is not HuntState.OVER:
            log.debug(
                "hunt over peer=%s attempts=%d code=%d why=%r", self._peer, self.attempts, self.code, why
            )
        self._addresses.clear()
        self._waiting.clear()
        self._advance(HuntEvent.STOP)

    def _advance(self, event: HuntEvent) -> None:
        target = _EDGES.get((self.state, event))
        if target is None:
            raise IllegalTransition("hunt", self.state, event)
        log.debug("hunt peer=%s from=%s to=%s event=%s", self._peer, self.state, target, event)
        self.state = target
