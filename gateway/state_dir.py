"""The state directory: made, locked against a second gateway, and the note that finds the running one.

`gateway.json` (readable by its owner alone) holds pid, HTTP address and a token made at each start; the
command line tools on the same machine use it to ask the gateway without further configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.app import Health
from gateway.errors import TandemError

log = logging.getLogger("tandem.app")

NOTE = "gateway.json"
LOCK_TRIES = (0.05, 0.1, 0.2, 0.4)
"""Seconds between the tries to lock the directory."""
_LOCK = "gateway.lock"


class StateDirError(TandemError):
    """`state_dir` cannot be made or written."""


class StateDirTaken(TandemError):
    """Another gateway runs on this `state_dir`."""


@dataclass(frozen=True)
class RunningNote:
    """Where the running gateway of a state directory is reached."""

    pid: int
    host: str
    port: int
    token: str


def read_note(state_dir: Path) -> RunningNote | None:
    """The note of a gateway that runs now; None when none does. PermissionError when it is not ours to read.

    A note left by a gateway that was killed is recognised by the lock, which died with it.
    """
    try:
        with (state_dir / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        pass
    try:
        return RunningNote(**json.loads((state_dir / NOTE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


class StateDir:
    """A part, the first one: directory and lock."""

    name = "state"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    async def start(self) -> None:
        """StateDirError, or StateDirTaken. Once more by the one who has it changes nothing."""
        if self._lock is not None:
            return
        try:
            self.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise StateDirError(f"cannot use {self.path}: {error.strerror}") from error
        if not await _locked(lock):
            os.close(lock)
            raise StateDirTaken(f"another gateway runs on {self.path}")
        self._lock = lock
        with contextlib.suppress(OSError):
            (self.path / NOTE).unlink()  # of one that was killed: nobody is to call there

    async def stop(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def health(self) -> Health:
        writable = os.access(self.path, os.W_OK)
        return Health(writable, "" if writable else f"{self.path} is not writable")


async def _locked(lock: int) -> bool:
    """What a killed gateway was just starting has its lock until it has become another program."""
    for pause in (*LOCK_TRIES, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is not None:
                await asyncio.sleep(pause)
        else:
            return True
    return False


class Note:
    """A part, the last one: tells the tools where we are, once everything is up."""

    name = "note"

    def __init__(self, state_dir: Path, address: Callable[[], tuple[str, int]]) -> None:
        self._path, self._address = state_dir / NOTE, address
        self.token = secrets.token_urlsafe(32)

    async def start(self) -> None:
        host, port = self._address()
        text = json.dumps(asdict(RunningNote(os.getpid(), host, port, self.token)))
        partial = self._path.with_suffix(".new")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        partial.replace(self._path)

    async def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()

    def health(self) -> Health:
        return Health(True)
