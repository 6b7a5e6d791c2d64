"""What a restart needs of every call beyond its journal: dialogs, keys, members. One small file a call.

The files hold SRTP keys: directory 0700, files 0600, never anything of them in a log. They are written whole
and renamed, without fsync: they only have to survive the death of this process, because rtpengine and its
Redis, without which they are worth nothing, do not survive the machine's. The journal alone decides which
calls there are; a file without its call, or a call without its file, is a call that a crash cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.model import CallId

log = logging.getLogger("tandem.calls")

Capture = Callable[[], Mapping[str, Any]]
_SUFFIX = ".json"


class SnapshotStore:
    """`open` it, then `mark` what has changed. Marks made while a write is under way share the next one.

    directory: of its own, made when missing
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread: ThreadPoolExecutor | None = None
        self._changed: dict[CallId, Capture | None] = {}
        self._writing: asyncio.Task[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._fault = ""

    async def open(self) -> dict[CallId, dict[str, Any]]:
        """What was left by the last gateway; unreadable files are named and removed. OSError."""
        self._thread = ThreadPoolExecutor(1, "snapshots")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read)

    def mark(self, call: CallId, capture: Capture) -> None:
        """The call has changed: `capture` is asked for its record as soon as one can be written."""
        if self._thread is not None:
            self._changed[call] = capture
            self._wake()

    async def save(self, call: CallId, capture: Capture) -> None:
        """As `mark`; returns when it is written, or (logged) cannot be."""
        self.mark(call, capture)
        if self._thread is not None:
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._next)

    async def settled(self) -> None:
        """Return when everything marked so far is written."""
        while self._writing is not None:
            await asyncio.wait({self._writing})

    def drop(self, call: CallId) -> None:
        """The call is over."""
        if self._thread is not None:
            self._changed[call] = None
            self._wake()

    async def close(self) -> None:
        await self.settled()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    # ---- inside ----

    def _wake(self) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="snapshots")

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._changed and self._thread is not None:
                changed, self._changed = self._changed, {}
                batch = {call: _encode(call, capture) for call, capture in changed.items()}
                waiting, self._next = self._next, None
                try:
                    await loop.run_in_executor(self._thread, self._store, batch)
                    self._say("")
                except OSError as error:
                    self._say(error.strerror or type(error).__name__)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
        finally:
            self._writing = None

    def _say(self, fault: str) -> None:
        if fault != self._fault:
            log.log(logging.ERROR if fault else logging.WARNING, "snapshots fault=%r", fault)
            self._fault = fault

    # ---- in the thread ----

    def _read(self) -> dict[CallId, dict[str, Any]]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        found: dict[CallId, dict[str, Any]] = {}
        for path in sorted(self._directory.iterdir()):
            try:
                record = json.loads(path.read_bytes()) if path.suffix == _SUFFIX else None
                if not isinstance(record, dict):
                    raise ValueError
                found[CallId(path.stem)] = record
            except (OSError, ValueError):
                log.warning("snapshot_unreadable file=%s", path.name)
                with contextlib.suppress(OSError):
                    path.unlink()
        return found

    def _store(self, batch: Mapping[CallId, bytes | None]) -> None:
        failed: OSError | None = None
        for call, data in batch.items():
            path = self._directory / f"{call}{_SUFFIX}"
            try:
                if data is None:
                    path.unlink(missing_ok=True)
                    continue
                partial = path.with_suffix(".new")
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "wb") as file:
                    file.write(data)
                partial.replace(path)
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed


def _encode(call: CallId, capture: Capture | None) -> bytes | None:
    """None: to be removed. A record that cannot be made is a fault of ours that no call may suffer by."""
    if capture is None:
        return None
    try:
        return json.dumps(capture(), separators=(",", ":")).encode()
    except Exception as error:
        log.error("snapshot_failed call=%s cause=%s", call, type(error).__name__, exc_info=True)
        return None
