"""Disk space set aside for the records of running calls."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from gateway.cdr.segments import Disk

log = logging.getLogger("tandem.cdr")


class Ballast:
    """A file of `size` bytes whose only purpose is to be deleted when the disk is full."""

    def __init__(self, path: Path, size: int, disk: Disk) -> None:
        self._path, self._size, self._disk = path, size, disk

    def give_up(self, error: OSError) -> bool:
        """True when `error` is a lack of space and deleting the file may have helped."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return False
        try:
            self._path.unlink()
        except OSError:
            return False
        log.error("journal_reserve_used bytes=%d: disk full, only running calls are recorded", self._size)
        return True

    def restore(self, room: int) -> bool:
        """Lay the file down again when `room` bytes can be spared; True when it is there."""
        if self._size == 0:
            return True
        with contextlib.suppress(OSError):
            if self._path.stat().st_size == self._size:
                return True
        if room < self._size:
            return False
        try:
            descriptor = self._disk.open(self._path)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("journal_reserve_missing cause=%s", error)
            with contextlib.suppress(OSError):
                self._path.unlink()
            return False
        return True
