"""One log line a minute for each address that has no business here (T22), or cannot prove that it has."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable

from gateway.clock import Clock

log = logging.getLogger("tandem.sip.transport")

_WINDOW = 60.0
_MAX_KEYS = 4096


class Strangers:
    """Counts attempts by address; a scanner with many addresses costs bounded memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def note(self, address: str, what: str) -> None:
        """Log the first attempt of `address` in each minute, with how many there were since the last line."""
        if attempts := self._due(address):
            log.warning("event=stranger address=%s kind=%s attempts=%s answer=none", address, what, attempts)

    def refused(self, remote: tuple[str, int], why: str, reason: str) -> None:
        """As `note`, of TLS handshakes that failed for the reason `why`: also an admitted address may try
        without end (a load balancer's probe, a peer with an expired certificate).
        """
        if attempts := self._due((remote[0], why)):
            log.warning(
                "event=tls-refused peer=%s:%s why=%s attempts=%s reason=%r", *remote, why, attempts, reason
            )

    def _due(self, key: Hashable) -> int:
        """One more of `key`: how many since its last line when another one is due, else 0."""
        now = self._clock.now()
        since, count = self._seen.get(key, (now - _WINDOW, 0))
        count += 1
        due = count if now - since >= _WINDOW else 0
        self._seen[key] = (now, 0) if due else (since, count)
        self._seen.move_to_end(key)
        if len(self._seen) > _MAX_KEYS:
            self._seen.popitem(last=False)
        return due
