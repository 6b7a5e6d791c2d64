"""How much the gateway takes on: whether a new call may begin, and whether one may go out by a trunk."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.calls.context import CallContext
from gateway.errors import Overloaded
from gateway.model import CallId
from gateway.trunks.trunk import Trunk

if TYPE_CHECKING:
    from gateway.calls.call import Call

TRUNK_FULL = "trunk_max_calls"


class Limits:
    """Judges by the calls there are.

    draining: set by the operator's SIGTERM; no new calls then
    refused:  calls answered 503, by cause
    """

    def __init__(self, context: CallContext, calls: Mapping[CallId, Call]) -> None:
        self._context, self._calls = context, calls
        self.draining = False
        self.refused: Counter[str] = Counter()
        self._recent: deque[float] = deque()
        self._entering: deque[tuple[float, CallId]] = deque()

    def entering(self, call: CallId) -> None:
        """This call's caller is about to be anchored: how long that takes says how busy we are."""
        self._forget_entered()
        self._entering.append((self._context.clock.now(), call))

    @property
    def delay(self) -> float:
        """Seconds that the longest waiting of the callers without media has waited; 0 when none waits.

        The loop's own lateness would not tell: an overloaded gateway's loop turns quickly, but each call's
        next step is many turns away.
        """
        self._forget_entered()
        return self._context.clock.now() - self._entering[0][0] if self._entering else 0.0

    def refusal(self, trunk: Trunk) -> str:
        """Why no new call from this trunk can be taken now, one word; "" when it can, and it counts then."""
        config, now = self._context.config, self._context.clock.now()
        while self._recent and now - self._recent[0] > 1.0:
            self._recent.popleft()
        rate = config.limits.calls_per_second
        limit = trunk.settings.max_calls
        if self.draining:
            return "draining"
        if not self._context.journal.can_accept:
            return "no_disk"
        if len(self._calls) >= config.max_calls:
            return "max_calls"
        if limit is not None and self._calls_on(trunk) >= limit:
            return TRUNK_FULL
        if rate and len(self._recent) >= rate:
            return "calls_per_second"
        if config.limits.max_setup_delay and self.delay > config.limits.max_setup_delay:
            return "overloaded"
        self._recent.append(now)
        return ""

    def check_outgoing(self, trunk: Trunk) -> None:
        """For a call that has just got a leg on the trunk, and is about to dial it: Overloaded when that is
        one call too many over there."""
        limit = trunk.settings.max_calls
        if limit is not None and self._calls_on(trunk) > limit:
            self.refused[TRUNK_FULL] += 1
            raise Overloaded(TRUNK_FULL, f"trunk {trunk.name} has its {limit} calls")

    def _calls_on(self, trunk: Trunk) -> int:
        return sum(any(leg.trunk is trunk for leg in call.legs.values()) for call in self._calls.values())

    def _forget_entered(self) -> None:
        while self._entering and self._has_entered(self._entering[0][1]):
            self._entering.popleft()

    def _has_entered(self, call_id: CallId) -> bool:
        call = self._calls.get(call_id)
        caller = next(iter(call.legs.values()), None) if call is not None else None
        return call is None or (caller is not None and caller.anchored)
