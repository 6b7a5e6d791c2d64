"""What a destination of call detail must be, and the one that needs nothing: files of JSON lines.

Every sink gets every row at least once; `id` is the key by which a repetition is recognised, and the last one
counts: a row comes again, with a higher `detail.revision`, when after-call work has changed it. A sink never
keeps a queue of its own: the recorder's outbox on disk is the spool of all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Protocol

from gateway.cdr.call_detail import CallDetail
from gateway.errors import TandemError
from gateway.threads import Threads


class SinkUnavailable(TandemError):
    """Not now; the same rows are tried again, after `retry_after` seconds when the other side named them."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(text)


class SinkRejected(TandemError):
    """Never: something in these rows will not be taken however often it is tried."""


class Sink(Protocol):
    """A destination. `name` is unique, stable and fit for a file name: its position is kept under it."""

    @property
    def name(self) -> str: ...

    async def open(self) -> None:
        """Be ready to write; tried again while it raises."""
        ...

    async def write(self, rows: Sequence[CallDetail]) -> None:
        """Return when all rows are durable there; on an error some may be."""
        ...

    async def close(self) -> None: ...


class JsonLinesSink:
    """One file a day, `call-detail-2026-01-31.jsonl`, by the UTC day on which the call ended.

    A row that is repeated after a crash, or changed by after-call work, is a second line with the same `id`
    in the same file: the last one counts. Files are never touched again once their day's calls have ended,
    and never deleted here.
    """

    def __init__(self, directory: Path, name: str = "jsonl") -> None:
        self._directory, self._name = directory, name
        self._threads = Threads(f"sink-{name}")

    @property
    def name(self) -> str:
        return self._name

    async def open(self) -> None:
        await self._threads.run(self._directory.mkdir, parents=True, exist_ok=True)

    async def write(self, rows: Sequence[CallDetail]) -> None:
        try:
            await self._threads.run(self._write, rows)
        except OSError as error:
            raise SinkUnavailable(str(error)) from error

    async def close(self) -> None:
        self._threads.close(wait=False)

    def _write(self, rows: Sequence[CallDetail]) -> None:
        days: dict[str, list[str]] = {}
        for row in rows:
            line = json.dumps(row.to_dict(), ensure_ascii=False, separators=(",", ":"))
            days.setdefault(row.end_time.astimezone(UTC).date().isoformat(), []).append(line + "\n")
        for day, lines in days.items():
            append_lines(self._directory / f"call-detail-{day}.jsonl", lines)


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append whole lines durably, or none: a half-written line, also an earlier crash's, is cut off."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        size = _whole_lines(descriptor)
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)
        view = memoryview("".join(lines).encode())
        try:
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _whole_lines(descriptor: int) -> int:
    """Bytes up to and with the last line break."""
    size = os.fstat(descriptor).st_size
    while size:
        step = min(size, 65536)
        found = os.pread(descriptor, step, size - step).rfind(b"\n")
        if found >= 0:
            return size - step + found + 1
        size -= step
    return 0
