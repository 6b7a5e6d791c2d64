"""How often sign-in may fail: a sliding window by key, in bounded memory; the time comes from outside."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable


def source(address: str) -> str:
    """Whom to count under: a host of IPv6 has a whole /64 to come from (RFC 4291 2.5.4)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


class FailureLimit:
    """At most `most` failures of a key in `window` seconds; beyond `keys` keys the quietest are forgotten."""

    def __init__(
        self, now: Callable[[], float], *, most: int, window: float = 900.0, keys: int = 10_000
    ) -> None:
        self._now, self._most, self._window, self._keys = now, most, window, keys
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until the key may try again; 0 = now."""
        failures = self._failures.get(key)
        if failures is None:
            return 0.0
        while failures and failures[0] <= self._now() - self._window:
            failures.popleft()
        if not failures:
            del self._failures[key]
            return 0.0
        return failures[0] + self._window - self._now() if len(failures) >= self._most else 0.0

    def failed(self, key: str) -> None:
        failures = self._failures.setdefault(key, deque(maxlen=self._most))
        failures.append(self._now())
        self._failures.move_to_end(key)
        while len(self._failures) > self._keys:
            self._failures.popitem(last=False)

    def forget(self, key: str) -> None:
        """It succeeded: nothing counts any more."""
        self._failures.pop(key, None)

    def forgive(self, key: str) -> None:
        """Its last failure was none; those before still count."""
        failures = self._failures.get(key)
        if failures:
            failures.pop()

    def __len__(self) -> int:
        return len(self._failures)
