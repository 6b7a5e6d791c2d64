"""One sink's way through the outbox: in order, at its own pace, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.cdr.outbox import Outbox, Waiting
from gateway.cdr.sinks import Sink, SinkRejected, SinkUnavailable, append_lines
from gateway.cdr.tables import PATIENCE
from gateway.threads import Threads

log = logging.getLogger("tandem.cdr")

_SILENT = PATIENCE
"""Seconds after which a sink that has neither taken rows nor refused them counts as down."""
_CLOSING = 1.0
"""Seconds a sink may take to close: one that hangs must not keep the gateway from stopping or restarting."""


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """What /readyz, /metrics and an engineer want to know of a sink.

    fault: what went wrong last, "" while it works; `behind` when rows wait for it
    """

    name: str
    fault: str
    behind: bool
    written: int
    rejected: int
    failures: int


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds between tries: doubled from `first` to `most`, each with up to half of it off by chance."""

    first: float = 0.5
    most: float = 60.0

    def delay(self, failures: int) -> float:
        return min(self.first * 2.0 ** min(failures - 1, 30), self.most) * random.uniform(0.5, 1.0)


class Delivery:
    """Runs for as long as the gateway does; a sink that is down costs one waiting task and no memory."""

    def __init__(
        self,
        sink: Sink,
        outbox: Outbox,
        threads: Threads,
        *,
        batch: int,
        backoff: Backoff,
        save_seconds: float,
        advanced: Callable[[], None],
    ) -> None:
        self._sink, self._outbox, self._threads = sink, outbox, threads
        self._batch, self._backoff = batch, backoff
        self._save_seconds, self._advanced = save_seconds, advanced
        self.position = 0
        self._saved = 0
        self._wake = asyncio.Event()
        self._opened = False
        self._fault = ""
        self._written = self._rejected = self._failures = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self.position = self._saved = self._outbox.position(self._sink.name)
        if self.position > self._outbox.last_seq:
            # The outbox was lost or replaced: places of another life mean nothing here. What is saved has to
            # go too, or it would be believed again once this outbox has grown as far.
            self.position, self._saved = 0, -1
        self._tasks = [
            asyncio.create_task(self._run(), name=f"sink-{self._sink.name}"),
            asyncio.create_task(self._save_now_and_then(), name=f"sink-{self._sink.name}-position"),
        ]

    def wake(self) -> None:
        """There are new rows."""
        self._wake.set()

    @property
    def behind(self) -> bool:
        return self.position < self._outbox.last_seq

    @property
    def status(self) -> SinkStatus:
        return SinkStatus(
            self._sink.name, self._fault, self.behind, self._written, self._rejected, self._failures
        )

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._save()
        try:
            async with asyncio.timeout(_CLOSING):
                await self._sink.close()
        except Exception as error:
            cause = str(error) or type(error).__name__
            log.warning("sink_close_failed sink=%s cause=%s", self._sink.name, cause)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._deliver()
            except Exception as error:
                failures += 1
                self._failures += 1
                delay = self._backoff.delay(failures)
                if isinstance(error, SinkUnavailable) and error.retry_after is not None:
                    delay = min(max(delay, error.retry_after), self._backoff.most)
                self._down(error)
                await asyncio.sleep(delay)
            else:
                failures = 0
                if self._fault:
                    log.warning("sink_up sink=%s after=%s", self._sink.name, self._fault)
                    self._fault = ""
                await self._wake.wait()
                self._wake.clear()

    def _down(self, error: Exception) -> None:
        if not self._fault:
            expected = isinstance(error, SinkUnavailable)
            log.error(
                "sink_down sink=%s position=%d cause=%s: rows wait on disk",
                self._sink.name,
                self.position,
                error,
                exc_info=None if expected else error,
            )
        self._fault = str(error) or type(error).__name__

    async def _deliver(self) -> None:
        """Everything there is, batch by batch."""
        if not self._opened:
            await self._awaited(self._sink.open())
            self._opened = True
        while self.behind:
            end = self._outbox.last_seq
            waiting = await self._threads.run(self._outbox.after, self.position, self._batch)
            if not waiting:
                # What is left there was unreadable and has been named.
                self._moved(end)
                return
            try:
                await self._awaited(self._sink.write([item.row for item in waiting]))
            except SinkRejected:
                await self._one_by_one(waiting)
            else:
                self._written += len(waiting)
                self._moved(waiting[-1].seq)

    async def _awaited(self, doing: Awaitable[None]) -> None:
        """It is waited for however long it takes, but not without a word."""
        silent = SinkUnavailable(f"silent for {_SILENT:.0f} s")
        timer = asyncio.get_running_loop().call_later(_SILENT, self._down, silent)
        try:
            await doing
        finally:
            timer.cancel()

    async def _one_by_one(self, waiting: Sequence[Waiting]) -> None:
        """Find the rows that the sink refuses, keep them in a file of their own, and go on."""
        for item in waiting:
            try:
                await self._sink.write([item.row])
            except SinkRejected as error:
                record = {"cause": str(error), "row": item.row.to_dict()}
                line = json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
                path = self._outbox.rejected_path(self._sink.name)
                await self._threads.run(append_lines, path, [line])
                self._rejected += 1
                log.error(
                    "sink_rejected sink=%s call=%s file=%s cause=%s",
                    self._sink.name,
                    item.row.id,
                    path.name,
                    error,
                )
            else:
                self._written += 1
            self._moved(item.seq)

    def _moved(self, position: int) -> None:
        self.position = position
        self._advanced()

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._save_seconds)
            await self._save()

    async def _save(self) -> None:
        """Losing the newest position repeats rows and loses none, so a failure is only worth a line."""
        position = self.position
        if position == self._saved:
            return
        try:
            await self._threads.run(self._outbox.set_position, self._sink.name, position)
        except OSError as error:
            log.warning("sink_position_not_saved sink=%s cause=%s", self._sink.name, error)
        else:
            self._saved = position


async def until_delivered(deliveries: Sequence[Delivery], seconds: float) -> bool:
    """Give the sinks that time to catch up; True when all did."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while any(delivery.behind for delivery in deliveries):  # noqa: ASYNC110 - several to wait for
                await asyncio.sleep(0.02)
    return not any(delivery.behind for delivery in deliveries)
