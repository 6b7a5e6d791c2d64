"""The peer whose SRTP packets carry an MKI that its description did not announce, or the other way round.

rtpengine takes the description at its word and hears nothing then (facts media-prototype 5). While packets
come that cannot be authenticated and none that can, the other readings are tried, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

Mki = tuple[int, int] | None
"""(value, length in bytes), or none in the packets."""

REFUSED = 3
"""Packets refused in a row before another reading is tried."""


class MkiSearch:
    """Pure: told the counters after each look, it says which reading to use next."""

    def __init__(self, announced: Mki) -> None:
        self.announced = announced
        self._readings: Sequence[Mki] = (announced, None) if announced else (None, (1, 1), (1, 4))
        self._index = 0
        self._packets = -1
        self._errors = 0

    @property
    def reading(self) -> Mki:
        return self._readings[self._index]

    def settle(self, reading: Mki) -> None:
        """What was found out before: go on with it, if it is one of ours."""
        if reading in self._readings:
            self._index = self._readings.index(reading)

    def restart(self) -> None:
        """A new key or address was described: counters are compared from the next look on."""
        self._packets = -1

    def look(self, packets: int, errors: int) -> bool | None:
        """Counters of the party's stream. True: heard, over; False: `reading` has changed; else None."""
        if self._packets < 0:
            self._packets, self._errors = packets, errors
            return None if packets == 0 or errors else True
        if packets > self._packets:
            return True
        if errors - self._errors < REFUSED:
            return None
        self._errors = errors
        self._index = (self._index + 1) % len(self._readings)
        return False
