"""Which segment of the journal which call needs: pure book-keeping, no I/O."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field

from gateway.cdr.segments import Stored
from gateway.events import LATE_KINDS, CallEnded
from gateway.model import CallId


@dataclass(slots=True)
class _Segment:
    first_seq: int
    records: int = 0
    open: dict[CallId, int] = field(default_factory=dict)
    """Records of each call that has not ended."""
    ended_seq: int = 0
    """The highest sequence number of a CallEnded, or of what came after one, among calls with records here; 0
    when none has ended."""
    waits: dict[CallId, set[int]] = field(default_factory=dict)
    """Calls that ended here, with the older segments that still have records of them: without its end such a
    call would be taken for an open one after a restart."""


class JournalIndex:
    """A segment may go when its calls have ended and their rows are reported (`released`)."""

    def __init__(self) -> None:
        self.open_calls: dict[CallId, set[int]] = {}
        self.released = 0
        self._segments: dict[int, _Segment] = {}

    def loaded(self, stored: Stored) -> None:
        """Take a record found on disk at start."""
        try:
            record = json.loads(stored.body)
            call, kind = CallId(str(record["call"])), str(record["kind"])
        except (ValueError, KeyError, TypeError):
            return
        self.add(stored.segment, stored.seq, call, kind)

    def add(self, segment: int, seq: int, call: CallId, kind: str) -> None:
        """A record of `call` became durable in `segment`."""
        ended = kind == CallEnded.kind
        here = self._segments.get(segment)
        if here is None:
            here = self._segments[segment] = _Segment(first_seq=seq)
        here.records += 1
        if kind in LATE_KINDS and call not in self.open_calls:
            here.ended_seq = max(here.ended_seq, seq)
            return
        here.open[call] = here.open.get(call, 0) + 1
        self.open_calls.setdefault(call, set()).add(segment)
        if ended:
            older = set()
            for number in self.open_calls.pop(call):
                if number in self._segments:
                    self._segments[number].open.pop(call, None)
                    self._segments[number].ended_seq = max(self._segments[number].ended_seq, seq)
                    older.add(number)
            if older := older - {segment}:
                here.waits[call] = older

    def segment_after(self, seq: int) -> int:
        """The oldest segment that can hold a sequence number above `seq`."""
        older = [number for number, found in self._segments.items() if found.first_seq <= seq + 1]
        return max(older, default=0)

    def droppable(self) -> list[tuple[int, frozenset[CallId]]]:
        """Segments worth compacting with the calls to keep in each; the newest is never among them.

        The newest stays because it carries the highest sequence number over a restart.
        """
        newest = max(self._segments, default=0)
        done = {
            number: found
            for number, found in sorted(self._segments.items())
            if number != newest and found.ended_seq <= self.released
        }
        waited_for = {
            older for found in done.values() for several in found.waits.values() for older in several
        }
        return [
            (number, frozenset(found.open))
            for number, found in done.items()
            if not found.waits and (sum(found.open.values()) * 2 < found.records or number in waited_for)
        ]

    def dropped(self, number: int, records: int, kept: Collection[CallId]) -> None:
        """Compaction of `number` is done; `records` are left in it, all of calls `kept`; 0: it is gone."""
        for found in self._segments.values():
            for call in found.waits.keys() - kept:
                found.waits[call].discard(number)
                if not found.waits[call]:
                    del found.waits[call]
        if records:
            self._segments[number].records = records
        else:
            del self._segments[number]
