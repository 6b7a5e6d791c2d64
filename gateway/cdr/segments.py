"""An append-only log on disk, cut into segment files; blocking, for use from one thread at a time.

Files of a log called `journal`: `journal-00000001.log`, `journal-00000002.log`, … and `journal.lock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.cdr.record_file import Flaw, Record, encode, scan
from gateway.errors import JournalError

log = logging.getLogger("tandem.cdr")


class Disk:
    """The few system calls a log makes; tests put failing ones in their place."""

    def open(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def truncate(self, path: Path, size: int) -> None:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free(self, directory: Path) -> int:
        """Bytes an unprivileged process may still write."""
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize


@dataclass(frozen=True, slots=True)
class Stored:
    """A record and where it lies."""

    segment: int
    seq: int
    body: bytes


class SegmentLog:
    """Records in order of their sequence numbers; what `append` returned from is on the disk.

    directory:     made when missing; belongs to this log's files alone
    segment_bytes: a segment that has reached this size takes no further batch
    """

    def __init__(
        self, directory: Path, name: str, *, segment_bytes: int = 4 << 20, disk: Disk | None = None
    ) -> None:
        self.directory, self.name = directory, name
        self.disk = disk or Disk()
        self.last_seq = 0
        self._limit = segment_bytes
        self._descriptor: int | None = None
        self._lock: int | None = None
        self._current = 0
        self._size = 0
        self._repairs: dict[Path, int] = {}

    def open(self, visit: Callable[[Stored], None] | None = None) -> None:
        """Take the lock, cut torn tails, name what is damaged, hand each good record to `visit`.

        JournalError: another process has the log, or the directory cannot be used.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise JournalError(f"{self.directory}: {error}") from error
        try:
            for leftover in self.directory.glob(f"{self.name}-*.compact"):
                leftover.unlink()
            for number in self.numbers():
                self._current = number
                for found in self._read(number, repair=True):
                    self.last_seq = found.seq
                    if visit is not None:
                        visit(found)
        except OSError as error:
            self.close()
            raise JournalError(f"{self.directory}: {error}") from error

    def _take_lock(self) -> None:
        path = self.directory / f"{self.name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise JournalError(
                f"{path} is held by another gateway (pid {owner or 'unknown'}); "
                "two cannot share one state_dir: stop it or give this one its own"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        self._lock = descriptor

    def close(self) -> None:
        """Give the file and the lock back; harmless twice."""
        self._close_segment()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def path(self, number: int) -> Path:
        return self.directory / f"{self.name}-{number:08d}.log"

    def numbers(self) -> list[int]:
        """Segment numbers present, oldest first."""
        pattern = re.compile(re.escape(self.name) + r"-(\d{8,})\.log")
        found = (pattern.fullmatch(entry) for entry in os.listdir(self.directory))
        return sorted(int(match[1]) for match in found if match)

    @property
    def current(self) -> int:
        """Number of the segment being written, or of the last one."""
        return self._current

    def read(self, *, from_segment: int = 0) -> Iterator[Stored]:
        """Good records of the segments from `from_segment` on; one that vanishes meanwhile is passed over."""
        for number in self.numbers():
            if number >= from_segment:
                yield from self.read_segment(number)

    def read_segment(self, number: int) -> Iterator[Stored]:
        with contextlib.suppress(FileNotFoundError):
            yield from self._read(number, repair=False)

    def _read(self, number: int, *, repair: bool) -> Iterator[Stored]:
        path = self.path(number)
        last = self.last_seq if repair else 0
        for item in scan(path.read_bytes()):
            match item:
                case Record(seq=seq, body=body):
                    if seq > last:
                        last = seq
                        yield Stored(number, seq, body)
                case Flaw(offset=offset, length=length, torn=torn) if repair:
                    what = "torn tail cut" if torn else "corrupt record skipped"
                    log.warning("log_damaged file=%s offset=%d bytes=%d: %s", path.name, offset, length, what)
                    if torn:
                        self.disk.truncate(path, offset)

    def append(self, records: Sequence[tuple[int, bytes]]) -> int:
        """Write `(seq, body)` pairs and sync; returns the segment's number.

        OSError: none of them counts as written. What reached the file is cut off again, now or as soon as
        the disk allows, and the next append begins a new segment: after a failed sync the kernel may have
        dropped the pages, so the old file can no longer be trusted to grow.
        """
        self._repair()
        data = b"".join(encode(seq, body) for seq, body in records)
        try:
            descriptor = self._descriptor
            if descriptor is None or self._size >= self._limit:
                descriptor = self._begin_segment()
            view = memoryview(data)
            while view:
                view = view[self.disk.write(descriptor, view) :]
            self.disk.sync(descriptor)
        except OSError:
            if self._descriptor is not None:
                self._repairs[self.path(self._current)] = self._size
            self._close_segment()
            with contextlib.suppress(OSError):
                self._repair()
            raise
        self._size += len(data)
        self.last_seq = records[-1][0] if records else self.last_seq
        return self._current

    def _begin_segment(self) -> int:
        self._close_segment()
        number = max([self._current, *self.numbers()]) + 1
        self._descriptor = descriptor = self.disk.open(self.path(number))
        self._current, self._size = number, 0
        self._sync_directory()
        return descriptor

    def _close_segment(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _repair(self) -> None:
        for path, size in list(self._repairs.items()):
            with contextlib.suppress(OSError):
                if size:
                    self.disk.truncate(path, size)
                else:
                    path.unlink(missing_ok=True)
                del self._repairs[path]

    def remove(self, number: int) -> None:
        """Drop a segment that is not being written."""
        self.path(number).unlink(missing_ok=True)
        self._sync_directory()

    def rewrite(self, number: int, keep: Callable[[Stored], bool]) -> int:
        """Compact a segment that is not being written; returns how many records stayed."""
        path = self.path(number)
        kept = [found for found in self.read_segment(number) if keep(found)]
        temporary = path.with_suffix(".compact")
        with open(temporary, "wb") as file:
            file.writelines(encode(found.seq, found.body) for found in kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._sync_directory()
        return len(kept)

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
