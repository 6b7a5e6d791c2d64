"""The journal: every event of every call, durable before anyone acts on it.

`await append(...)` returns when the events are on the disk. Appends that arrive while a sync runs share the
next one (group commit), so a busy minute costs a few syncs a second and an idle one costs one an event. The
writing happens in a thread of its own: a slow disk makes calls wait, never the loop.

When the disk is full: `can_accept` goes False while there is still room for the records of running calls
(a share of free space, then a file kept for the purpose, are for them alone). When even that is used up,
`append` raises JournalError and `healthy` is False; the events of running calls are kept in memory and
written first when the disk takes them again, which is tried every `retry_seconds`. A call whose very first
event could not be written does not exist: nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from gateway.cdr.journal_index import JournalIndex
from gateway.cdr.reserve import Ballast
from gateway.cdr.segments import Disk, SegmentLog, Stored
from gateway.errors import JournalError
from gateway.events import CallStarted, Event, from_dict
from gateway.model import CallId

log = logging.getLogger("tandem.cdr")

_BATCH = 2048
_BACKLOG = 200_000
_REFUSED = 10_000


class Entry(NamedTuple):
    """A durable event and its place in the journal's order (also the id of the API's event stream)."""

    seq: int
    event: Event


class _Item(NamedTuple):
    entry: Entry
    body: bytes


class _Waiting(NamedTuple):
    items: tuple[_Item, ...]
    done: asyncio.Future[None]


Listener = Callable[[Entry], None]


class Journal:
    """One gateway's journal in one directory.

    segment_bytes:  size at which a new file begins
    reserve_bytes:  free space below which no new call may begin (`can_accept`)
    ballast_bytes:  kept on disk, given up for the records of running calls when the disk is full
    retry_seconds:  how often a broken disk is tried again and the free space looked at
    """

    def __init__(
        self,
        *,
        segment_bytes: int = 4 << 20,
        reserve_bytes: int = 64 << 20,
        ballast_bytes: int = 8 << 20,
        retry_seconds: float = 1.0,
        disk: Disk | None = None,
    ) -> None:
        self._segment_bytes, self._reserve_bytes = segment_bytes, reserve_bytes
        self._ballast_bytes, self._retry_seconds = ballast_bytes, retry_seconds
        self._disk = disk or Disk()
        self._log: SegmentLog | None = None
        self._ballast: Ballast | None = None
        self._index = JournalIndex()
        self._thread: ThreadPoolExecutor | None = None
        self._housekeeper: ThreadPoolExecutor | None = None
        self._seq = 0
        self._waiting: deque[_Waiting] = deque()
        self._backlog: deque[_Item] = deque()
        self._refused: OrderedDict[CallId, None] = OrderedDict()
        self._flushing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._listeners: list[Listener] = []
        self._compacting = asyncio.Lock()
        self._fault = ""
        self._roomy = True

    # -- life --

    async def open(self, directory: Path) -> None:
        """Take the directory, repair what a crash left, and be ready to append.

        JournalError: another gateway holds it, or it cannot be used at all.
        """
        self._log = SegmentLog(directory, "journal", segment_bytes=self._segment_bytes, disk=self._disk)
        self._ballast = Ballast(directory / "journal.reserve", self._ballast_bytes, self._disk)
        self._thread = ThreadPoolExecutor(1, "journal")
        self._housekeeper = ThreadPoolExecutor(1, "journal-compaction")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._log.open, self._index.loaded)
            self._roomy = await loop.run_in_executor(self._thread, self._look)
        except JournalError:
            self._thread.shutdown()
            self._thread = None
            raise
        self._seq = self._log.last_seq
        self._watching = asyncio.create_task(self._watch(), name="journal-watch")
        log.info(
            "journal_open dir=%s seq=%d open_calls=%d", directory, self._seq, len(self._index.open_calls)
        )

    async def close(self) -> None:
        """Write what is waiting, then give file and lock back."""
        if self._thread is None or self._log is None:
            return
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        while self._flushing is not None:
            await self._flushing
        if self._backlog:
            await self._flush_backlog()
        if self._backlog:
            log.error("journal_lost events=%d cause=%s", len(self._backlog), self._fault)
        thread, self._thread = self._thread, None
        thread.shutdown()
        if self._housekeeper is not None:
            self._housekeeper.shutdown()
        self._log.close()

    @property
    def healthy(self) -> bool:
        """The last write succeeded and nothing waits for a broken disk."""
        return not self._fault

    @property
    def fault(self) -> str:
        """What is wrong, for /readyz; "" when healthy."""
        return self._fault

    @property
    def can_accept(self) -> bool:
        """A new call may begin; False means 503, while running calls are still recorded."""
        return self._thread is not None and self._roomy and not self._fault

    @property
    def last_seq(self) -> int:
        """The highest sequence number given out."""
        return self._seq

    def continue_after(self, seq: int) -> None:
        """Give out no number up to `seq`; before the first `append`.

        A journal whose newest records were lost would count on from the oldest that are left, and rows with
        numbers that the outbox and its sinks have passed already would reach nobody.
        """
        if seq > self._seq:
            log.warning("journal_behind seq=%d counts_on_after=%d: newer records were lost", self._seq, seq)
            self._seq = seq

    @property
    def open_calls(self) -> frozenset[CallId]:
        """Calls with a durable event and no durable CallEnded."""
        return frozenset(self._index.open_calls)

    # -- writing --

    async def append(self, *events: Event) -> None:
        """Return when all `events` are durable, in this order and after everything appended before.

        JournalError: not durable (yet). The call goes on or is refused, as `can_accept` and the module's
        text say; there is nothing to undo and nothing to repeat. TypeError: an event that is not JSON.
        """
        if self._thread is None:
            raise JournalError("the journal is not open")
        items = []
        for event in events:
            if event.call in self._refused:
                continue
            body = _encode(event)
            self._seq += 1
            items.append(_Item(Entry(self._seq, event), body))
        if self._fault:
            self._keep(items)
            raise JournalError(f"journal cannot be written: {self._fault}")
        if not items:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(tuple(items), done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="journal-flush")
        await done

    async def _flush(self) -> None:
        try:
            while self._waiting and not self._fault:
                batch = [self._waiting.popleft()]
                count = len(batch[0].items)
                while self._waiting and count + len(self._waiting[0].items) <= _BATCH:
                    batch.append(self._waiting.popleft())
                    count += len(batch[-1].items)
                try:
                    await self._write([item for waiting in batch for item in waiting.items])
                except OSError as error:
                    self._failed(batch, error)
                else:
                    for waiting in batch:
                        if not waiting.done.done():
                            waiting.done.set_result(None)
        finally:
            self._flushing = None

    async def _write(self, items: Sequence[_Item]) -> None:
        """OSError when not durable; then nobody is told of the events."""
        assert self._thread is not None
        loop = asyncio.get_running_loop()
        records = [(item.entry.seq, item.body) for item in items]
        segment, roomy = await loop.run_in_executor(self._thread, self._store, records)
        self._roomy = self._roomy and roomy
        for entry, _ in items:
            self._index.add(segment, entry.seq, entry.event.call, entry.event.kind)
        for entry, _ in items:
            for listener in tuple(self._listeners):
                try:
                    listener(entry)
                except Exception:
                    log.exception("journal_listener_failed seq=%d kind=%s", entry.seq, entry.event.kind)

    def _store(self, records: Sequence[tuple[int, bytes]]) -> tuple[int, bool]:
        """In the thread: the segment written to, and whether it went without the ballast."""
        assert self._log is not None
        assert self._ballast is not None
        try:
            return self._log.append(records), True
        except OSError as error:
            if not self._ballast.give_up(error):
                raise
        return self._log.append(records), False

    def _failed(self, batch: list[_Waiting], error: OSError) -> None:
        self._fault = _cause(error)
        log.error("journal_failed cause=%s: new calls are refused", self._fault)
        batch += self._waiting
        self._waiting.clear()
        for waiting in batch:
            self._keep(waiting.items)
            if not waiting.done.done():
                waiting.done.set_exception(JournalError(f"journal cannot be written: {self._fault}"))

    def _keep(self, items: Sequence[_Item]) -> None:
        for item in items:
            event, call = item.entry.event, item.entry.event.call
            if isinstance(event, CallStarted):
                self._refused[call] = None
                if len(self._refused) > _REFUSED:
                    self._refused.popitem(last=False)
            if call in self._refused:
                continue
            if len(self._backlog) >= _BACKLOG:
                log.critical("journal_backlog_full lost kind=%s call=%s", event.kind, call)
                continue
            self._backlog.append(item)

    # -- the watch: free space, recovery, compaction --

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._retry_seconds)
            assert self._thread is not None
            if self._fault:
                writable = await loop.run_in_executor(self._thread, self._probe)
                if writable:
                    await self._flush_backlog()
            roomy = await loop.run_in_executor(self._thread, self._look)
            if roomy != self._roomy:
                log.warning(
                    "journal_space enough=%s: new calls %s", roomy, "accepted" if roomy else "refused"
                )
            self._roomy = roomy
            if not self._fault and self._index.droppable():
                await self.compact()

    async def _flush_backlog(self) -> None:
        while self._backlog:
            items = list(itertools.islice(self._backlog, _BATCH))
            try:
                await self._write(items)
            except OSError as error:
                self._fault = _cause(error)
                return
            for _ in items:
                self._backlog.popleft()
        log.warning("journal_recovered after=%s", self._fault)
        self._fault = ""

    def _probe(self) -> bool:
        """In the thread: the disk takes and keeps data again."""
        assert self._log is not None
        path = self._log.directory / "journal.probe"
        try:
            descriptor = self._disk.open(path)
            try:
                self._disk.write(descriptor, memoryview(b"\0" * 4096))
                self._disk.sync(descriptor)
            finally:
                os.close(descriptor)
            path.unlink(missing_ok=True)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return False
        return True

    def _look(self) -> bool:
        assert self._log is not None
        assert self._ballast is not None
        try:
            free = self._disk.free(self._log.directory)
        except OSError as error:
            log.error("journal_space_unknown cause=%s", error)
            return False
        return self._ballast.restore(free - self._reserve_bytes) and free >= self._reserve_bytes

    # -- reading --

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener` gets every event once it is durable, in order, in the loop; returns the way to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def read(self, after: int = 0) -> Iterator[Entry]:
        """Replay the durable events with a sequence number above `after`; blocking, safe in a thread.

        A record that today's code does not understand is named in the log and passed over.
        """
        assert self._log is not None
        for stored in self._log.read(from_segment=self._index.segment_after(after)):
            if stored.seq > after:
                event = _decode(stored)
                if event is not None:
                    yield Entry(stored.seq, event)

    # -- dropping what is done with --

    def release(self, seq: int) -> None:
        """Every call whose CallEnded has a sequence number up to `seq` is reported; its events may go."""
        self._index.released = max(self._index.released, seq)

    async def compact(self) -> None:
        """Drop segments that no open or unreported call needs; thin out those that few calls need."""
        loop = asyncio.get_running_loop()
        async with self._compacting:
            # one by one: dropping one segment can make the next one droppable
            while found := self._index.droppable():
                number, keep = found[0]
                try:
                    records = await loop.run_in_executor(self._housekeeper, self._shrink, number, keep)
                except OSError as error:
                    log.warning("journal_compaction_failed segment=%d cause=%s", number, error)
                    return
                self._index.dropped(number, records, keep)
                log.info("journal_compacted segment=%d calls_kept=%d", number, len(keep))

    def _shrink(self, number: int, keep: Collection[CallId]) -> int:
        """In a thread: the records left in the segment, whose file is gone when that is none."""
        assert self._log is not None
        if keep:
            return self._log.rewrite(number, functools.partial(_is_of, keep))
        self._log.remove(number)
        return 0


def _encode(event: Event) -> bytes:
    text = json.dumps(event.to_dict(), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _decode(stored: Stored) -> Event | None:
    try:
        return from_dict(json.loads(stored.body))
    except (ValueError, KeyError, TypeError) as error:
        log.warning("journal_record_unknown seq=%d cause=%s", stored.seq, error)
        return None


def _is_of(calls: Collection[str], stored: Stored) -> bool:
    try:
        return json.loads(stored.body).get("call") in calls
    except (ValueError, AttributeError):
        return False


def _cause(error: OSError) -> str:
    return f"{error.strerror or error} (errno {error.errno})"
