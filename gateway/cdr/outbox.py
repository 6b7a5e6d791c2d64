"""Rows on their way to the sinks: a log on disk, and how far each sink has come in it.

A row's sequence number is that of its call's CallEnded in the journal, so the log's end also says which
calls of the journal are already rows. Blocking; for use in threads, `append` from one at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.cdr.call_detail import CallDetail
from gateway.cdr.segments import Disk, SegmentLog, Stored

log = logging.getLogger("tandem.cdr")

_RECENT = 2000


class Waiting(NamedTuple):
    """A row and its place."""

    seq: int
    row: CallDetail


class Outbox:
    """The log of rows; the newest ones are kept in memory too, for sinks that are up to date."""

    def __init__(self, directory: Path, *, segment_bytes: int = 4 << 20, disk: Disk | None = None) -> None:
        self._log = SegmentLog(directory, "outbox", segment_bytes=segment_bytes, disk=disk)
        self._directory = directory
        self._first: dict[int, int] = {}
        self._recent: deque[Waiting] = deque(maxlen=_RECENT)
        self._recent_from = 0
        self._last = 0

    def open(self) -> None:
        """JournalError when another process has it."""
        self._log.open(self._found)
        self._last = self._recent_from = self._log.last_seq

    def _found(self, stored: Stored) -> None:
        self._first.setdefault(stored.segment, stored.seq)

    def close(self) -> None:
        self._log.close()

    @property
    def last_seq(self) -> int:
        """The place of the newest row; 0 when there never was one."""
        return self._last

    def append(self, rows: Sequence[Waiting]) -> None:
        """Durable on return; OSError when not, then none of them is in."""
        bodies = [
            (w.seq, json.dumps(w.row.to_dict(), ensure_ascii=False, separators=(",", ":")).encode())
            for w in rows
        ]
        segment = self._log.append(bodies)
        self._first.setdefault(segment, rows[0].seq)
        overflow = len(self._recent) + len(rows) - _RECENT
        if overflow > 0:
            self._recent_from = [*self._recent, *rows][overflow - 1].seq
        self._recent.extend(rows)
        self._last = rows[-1].seq

    def after(self, seq: int, limit: int) -> list[Waiting]:
        """Up to `limit` rows after place `seq`, in order; a row that cannot be read is named and skipped."""
        # Taken before its beginning is looked at: an `append` in between evicts rows, never from this copy.
        recent = tuple(self._recent)
        if seq >= self._recent_from:
            return [waiting for waiting in recent if waiting.seq > seq][:limit]
        found: list[Waiting] = []
        begin = max((n for n, first in tuple(self._first.items()) if first <= seq + 1), default=0)
        for stored in self._log.read(from_segment=begin):
            if stored.seq <= seq:
                continue
            try:
                found.append(Waiting(stored.seq, CallDetail.from_dict(json.loads(stored.body))))
            except (ValueError, KeyError, TypeError) as error:
                log.error("outbox_row_unreadable seq=%d cause=%s", stored.seq, error)
            if len(found) >= limit:
                break
        return found

    @property
    def files(self) -> int:
        """How many segment files there are."""
        return len(self._first)

    def drop(self, seq: int) -> None:
        """Remove files whose rows are all at or before `seq`; the newest stays, it carries the last place."""
        order = sorted(self._first)
        for number, following in itertools.pairwise(order):
            if self._first[following] <= seq + 1:
                try:
                    self._log.remove(number)
                except OSError as error:
                    log.warning("outbox_not_dropped segment=%d cause=%s", number, error)
                    return
                del self._first[number]

    # -- positions --

    def position(self, sink: str) -> int:
        """Where `sink` has got to; 0 when unknown, so that it is given everything there is again."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads(self._position_path(sink).read_text())["seq"])
        return 0

    def set_position(self, sink: str, seq: int) -> None:
        path = self._position_path(sink)
        temporary = path.with_suffix(".new")
        with open(temporary, "w") as file:
            json.dump({"seq": seq}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def _position_path(self, sink: str) -> Path:
        return self._directory / f"position-{sink}.json"

    def rejected_path(self, sink: str) -> Path:
        """Where rows go that `sink` will never take."""
        return self._directory / f"rejected-{sink}.jsonl"
