"""The agents' journal: every change of state and every call's end, on the disk before anybody is told.

The same log files as the calls' journal (`gateway.cdr.segments`), with a rule of its own for what may go: a
record is kept until its activity rows are in the database, and the last record of each agent for good, since
that is the state he is in.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from gateway.agents.events import AgentEvent, AgentStateChanged, from_dict, to_dict
from gateway.cdr.segments import Disk, SegmentLog, Stored
from gateway.errors import JournalError

log = logging.getLogger("tandem.agents")

_BACKLOG = 20_000


class AgentEntry(NamedTuple):
    """A durable event and its place in the agents' journal."""

    seq: int
    event: AgentEvent


Listener = Callable[[AgentEntry], None]


class AgentJournal:
    """One writer. `open` returns what the disk has."""

    def __init__(self, *, segment_bytes: int = 1 << 20, disk: Disk | None = None) -> None:
        self._segment_bytes, self._disk = segment_bytes, disk
        self._log: SegmentLog | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._seq = 0
        self._unwritten: list[AgentEntry] = []
        self._last: dict[str, int] = {}
        self._listeners: list[Listener] = []
        self._fault = ""

    @property
    def fault(self) -> str:
        """Why it cannot be written, "" when it can."""
        return self._fault

    @property
    def last_seq(self) -> int:
        return self._seq

    async def open(self, directory: Path) -> list[AgentEntry]:
        """JournalError: the directory cannot be used, or another gateway has it."""
        self._log = SegmentLog(directory, "agents", segment_bytes=self._segment_bytes, disk=self._disk)
        self._thread = ThreadPoolExecutor(1, "agents-journal")
        found: list[AgentEntry] = []

        def visit(stored: Stored) -> None:
            entry = _decode(stored)
            if entry is not None:
                found.append(entry)

        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._log.open, visit)
        except JournalError:
            self._thread.shutdown()
            self._thread = None
            raise
        self._seq = self._log.last_seq
        for entry in found:
            self._remember(entry)
        return found

    async def close(self) -> None:
        if self._thread is None or self._log is None:
            return
        if self._unwritten:
            await self._write(())
        if self._unwritten:
            log.error("agents_journal_lost events=%d cause=%s", len(self._unwritten), self._fault)
        thread, self._thread = self._thread, None
        thread.shutdown()
        self._log.close()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener` gets every event once, in the loop, in order; returns the way to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def read(self, after: int = 0) -> Iterator[AgentEntry]:
        """Replay the durable events with a sequence number above `after`; blocking, safe in a thread."""
        assert self._log is not None
        for stored in self._log.read():
            entry = _decode(stored) if stored.seq > after else None
            if entry is not None:
                yield entry

    async def append(self, *events: AgentEvent, must: bool = True) -> None:
        """Return when they are durable and the listeners know.

        must: JournalError when the disk does not take them, and they are dropped: the change did not happen.
              False for what has happened anyhow (a call): it is told at once, kept and written first when
              the disk takes it.
        """
        entries = []
        for event in events:
            self._seq += 1
            entries.append(AgentEntry(self._seq, event))
        written = await self._write(entries)
        if not written:
            if must:
                raise JournalError(f"the agents' journal cannot be written: {self._fault}")
            if len(self._unwritten) + len(entries) > _BACKLOG:
                log.critical("agents_backlog_full lost=%d", len(entries))
            else:
                self._unwritten += entries
        for entry in entries:
            self._tell(entry)

    async def retry(self) -> None:
        """Write what a broken disk refused."""
        if self._fault:
            await self._write(())

    async def _write(self, entries: Sequence[AgentEntry]) -> bool:
        if self._thread is None or self._log is None:
            raise JournalError("the agents' journal is not open")
        batch = [*self._unwritten, *entries]
        if not batch:
            self._fault = ""
            return True
        records = [(entry.seq, _encode(entry.event)) for entry in batch]
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._log.append, records)
        except OSError as error:
            if not self._fault:
                log.error("agents_journal_failed cause=%s", error)
            self._fault = str(error)
            return False
        if self._fault:
            log.warning("agents_journal_recovered after=%s", self._fault)
        self._fault = ""
        self._unwritten.clear()
        for entry in batch:
            self._remember(entry)
        return True

    def _remember(self, entry: AgentEntry) -> None:
        if isinstance(entry.event, AgentStateChanged):
            self._last[entry.event.login] = entry.seq

    def _tell(self, entry: AgentEntry) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(entry)
            except Exception:
                log.exception("agents_listener_failed seq=%d", entry.seq)

    async def compact(self, upto: int) -> None:
        """Drop what is reported: records up to `upto` that are nobody's present state."""
        if self._thread is None or self._log is None:
            return
        keep = frozenset(self._last.values())
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, _shrink, self._log, upto, keep)
        except OSError as error:
            log.warning("agents_compaction_failed cause=%s", error)


def _shrink(segments: SegmentLog, upto: int, keep: frozenset[int]) -> None:
    def needed(stored: Stored) -> bool:
        return stored.seq > upto or stored.seq in keep

    for number in segments.numbers():
        if number >= segments.current:
            return
        records = list(segments.read_segment(number))
        kept = [stored for stored in records if needed(stored)]
        if not kept:
            segments.remove(number)
        elif len(kept) < len(records):
            segments.rewrite(number, needed)


def _encode(event: AgentEvent) -> bytes:
    text = json.dumps(to_dict(event), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _decode(stored: Stored) -> AgentEntry | None:
    try:
        return AgentEntry(stored.seq, from_dict(json.loads(stored.body)))
    except (ValueError, TypeError) as error:
        log.warning("agents_record_unknown seq=%d cause=%s", stored.seq, error)
        return None
