"""From journal to sinks: keeps the state of every running call, makes its row, sees it delivered.

journal --CallEnded--> row --> outbox (disk) --> sink, sink, sink     each at its own pace
                                   `--> positions; when all sinks have passed, journal and outbox shrink
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from gateway.cdr.call_detail import CallDetail, row_of
from gateway.cdr.call_state import CallState, Work, apply, new_state
from gateway.cdr.delivery import Backoff, Delivery, SinkStatus, until_delivered
from gateway.cdr.journal import Entry, Journal
from gateway.cdr.outbox import Outbox, Waiting
from gateway.cdr.segments import Disk
from gateway.cdr.sinks import Sink
from gateway.events import LATE_KINDS
from gateway.model import CallId
from gateway.threads import Threads

log = logging.getLogger("tandem.cdr")


_LINGER = 10_000
"""Milliseconds of the journal's time after a call's end in which an agent's work on it may begin."""
_MOST_LATE = 10_000
_THREADS = 4
"""For the outbox's files alone: rows and one sink's reading must not wait for another's."""


class _Ended(NamedTuple):
    """Of a call that has ended, or that changed after its end; seq: of the event that did it."""

    seq: int
    row: CallDetail | None


class _Late(NamedTuple):
    """A call that has ended and whose row may change: an agent works on it, or is about to."""

    seq: int
    state: CallState


class Recorder:
    """One beside each journal.

    directory:     for the outbox, its positions and rejected rows; this gateway's alone
    batch:         rows a sink gets at once, at most
    retry_seconds: how soon a full disk is tried again for rows
    """

    def __init__(
        self,
        journal: Journal,
        directory: Path,
        sinks: Sequence[Sink],
        *,
        batch: int = 200,
        backoff: Backoff | None = None,
        save_seconds: float = 1.0,
        retry_seconds: float = 1.0,
        segment_bytes: int = 4 << 20,
        disk: Disk | None = None,
    ) -> None:
        names = [sink.name for sink in sinks]
        if len(set(names)) != len(names):
            raise ValueError(f"two sinks of one name: {names}")
        self._journal = journal
        self._outbox = Outbox(directory, segment_bytes=segment_bytes, disk=disk)
        self._threads = Threads("outbox", _THREADS)
        self._retry_seconds = retry_seconds
        self._states: dict[CallId, CallState] = {}
        self._late: OrderedDict[CallId, _Late] = OrderedDict()
        self._newest = 0
        self._ended: deque[_Ended] = deque()
        self._processed = 0
        self._delivered = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._fault = ""
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._deliveries = [
            Delivery(
                sink,
                self._outbox,
                self._threads,
                batch=batch,
                backoff=backoff or Backoff(),
                save_seconds=save_seconds,
                advanced=self._advanced,
            )
            for sink in sinks
        ]

    async def start(self) -> None:
        """Replay the journal, finish the rows a crash left unmade, and begin to deliver.

        Call it after `Journal.open` and before any `append`. Afterwards `states` holds the calls that were
        running; each is picked up again or ended with `call_state.closing_events`. JournalError when another
        process has the outbox. A sink that is down is no error here.
        """
        await self._threads.run(self._outbox.open)
        self._processed = self._outbox.last_seq
        self._journal.continue_after(self._processed)
        missing = await self._threads.run(self._replay)
        self._ended.extend(missing)
        self._unsubscribe = self._journal.subscribe(self._on_entry)
        for delivery in self._deliveries:
            delivery.start()
        self._advanced()
        self._wake.set()
        self._task = asyncio.create_task(self._keep(), name="recorder")
        log.info("recorder_started running_calls=%d rows_missing=%d", len(self._states), len(missing))

    async def stop(self, seconds: float = 5.0) -> bool:
        """Store what ended, give the sinks `seconds` to catch up; True when nothing waits any more.

        What still waits then is on disk and is delivered after the next start.
        """
        self._unsubscribe()
        done = False
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
            done = await until_delivered(self._deliveries, seconds) and not self._ended
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            await asyncio.gather(*(delivery.stop() for delivery in self._deliveries))
        self._threads.close()
        self._outbox.close()
        return done

    @property
    def states(self) -> Mapping[CallId, CallState]:
        """The running calls as the journal tells them."""
        return MappingProxyType(self._states)

    @property
    def worked_on(self) -> list[tuple[CallId, Work]]:
        """After-call work that lasts, as far as the journal tells."""
        states = [*self._states.values(), *(late.state for late in self._late.values())]
        return [(state.call, work) for state in states for work in state.work if work.end is None]

    @property
    def sinks(self) -> list[SinkStatus]:
        return [delivery.status for delivery in self._deliveries]

    @property
    def fault(self) -> str:
        """Why rows cannot be stored, "" when they can (their calls stay in the journal meanwhile)."""
        return self._fault

    # -- journal to outbox --

    def _replay(self) -> list[_Ended]:
        missing = []
        for entry in self._journal.read():
            ended = self._fold(entry)
            if ended is not None and ended.seq > self._processed:
                missing.append(ended)
        return missing

    def _fold(self, entry: Entry) -> _Ended | None:
        event = entry.event
        self._newest = max(self._newest, event.at)
        if event.kind in LATE_KINDS and event.call not in self._states:
            return self._fold_late(entry)
        state = self._states.get(event.call)
        if state is None:
            state = self._states[event.call] = new_state(event)
        apply(state, event)
        if state.end is None:
            return None
        del self._states[event.call]
        row = row_of(state)
        if row is not None and any(leg.login and leg.answered is not None for leg in state.legs.values()):
            self._late[state.call] = _Late(entry.seq, state)
        self._settle()
        return _Ended(entry.seq, row)

    def _fold_late(self, entry: Entry) -> _Ended | None:
        late = self._late.get(entry.event.call)
        if late is None:
            return None
        before = late.state.revisions
        apply(late.state, entry.event)
        changed = late.state.revisions != before
        row = row_of(late.state) if changed else None
        self._settle()
        return _Ended(entry.seq, row) if changed else None

    def _settle(self) -> None:
        """Forget ended calls on which nobody works any more, and the oldest when there are too many."""
        for call, late in list(self._late.items()):
            ended = late.state.end or 0
            if not late.state.working and ended + _LINGER < self._newest:
                del self._late[call]
        while len(self._late) > _MOST_LATE:
            self._late.popitem(last=False)

    def _on_entry(self, entry: Entry) -> None:
        ended = self._fold(entry)
        if ended is not None:
            self._ended.append(ended)
            self._idle.clear()
            self._wake.set()

    async def _keep(self) -> None:
        """Store rows as they come; on a full disk they wait here, and their events in the journal."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._ended:
                ready = tuple(self._ended)
                rows = [Waiting(ended.seq, ended.row) for ended in ready if ended.row is not None]
                try:
                    if rows:
                        await self._threads.run(self._outbox.append, rows)
                except OSError as error:
                    if not self._fault:
                        log.error("outbox_failed cause=%s: rows wait in the journal", error)
                    self._fault = str(error)
                    await asyncio.sleep(self._retry_seconds)
                    continue
                if self._fault:
                    log.warning("outbox_recovered after=%s", self._fault)
                    self._fault = ""
                for _ in ready:
                    self._ended.popleft()
                self._processed = ready[-1].seq
                for delivery in self._deliveries:
                    delivery.wake()
                self._advanced()
            if self._outbox.files > 1:
                await self._threads.run(self._outbox.drop, self._delivered)
            self._idle.set()

    def _advanced(self) -> None:
        """A sink moved on, or a row was stored: say what is no longer needed."""
        behind = [delivery.position for delivery in self._deliveries if delivery.behind]
        self._delivered = min(behind, default=self._processed)
        late = [one.seq - 1 for one in self._late.values()]
        self._journal.release(min([self._delivered, *late]))
        if self._outbox.files > 1:
            self._wake.set()
