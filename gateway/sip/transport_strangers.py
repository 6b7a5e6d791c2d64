"""One log line a minute for each address that has no business here (T22)."""

from __future__ import annotations

import logging
from collections import OrderedDict

from gateway.clock import Clock

log = logging.getLogger("tandem.sip.transport")

_WINDOW = 60.0
_MAX_ADDRESSES = 4096


class Strangers:
    """Counts attempts by address; a scanner with many addresses costs bounded memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, address: str, what: str) -> None:
        """Log the first attempt of `address` in each minute, with how many there were since the last line."""
        now = self._clock.now()
        since, count = self._seen.get(address, (now - _WINDOW, 0))
        count += 1
        if now - since >= _WINDOW:
            log.warning("event=stranger address=%s kind=%s attempts=%s answer=none", address, what, count)
            since, count = now, 0
        self._seen[address] = since, count
        self._seen.move_to_end(address)
        if len(self._seen) > _MAX_ADDRESSES:
            self._seen.popitem(last=False)
