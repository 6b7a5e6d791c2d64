"""A daemon in a session of its own: started, found again after our own restart, watched, ended.

It is no asyncio subprocess because those are killed with the loop that made them; these have to live on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import MediaUnavailable

_REAP_TRIES = 100


@dataclass(slots=True)
class Daemon:
    """`started` is the start time in clock ticks since boot: pid and start time together are unique."""

    pid: int
    started: int

    @property
    def running(self) -> bool:
        """It exists, is the same process, and is no zombie."""
        self.reap()
        return _started(self.pid) == self.started

    def reap(self) -> bool:
        """Take the exit status of a dead child of ours; False while its threads have not all ended."""
        try:
            return self.pid <= 0 or os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        except ChildProcessError:
            return True

    async def ended(self, within: float | None = None) -> bool:
        """Wait until it is gone; False when it still runs after `within` seconds."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        try:
            if not self.running:
                return True
            loop.add_reader(handle, gone.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), within)
            return not self.running
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    async def stop(self, patience: float = 3.0) -> None:
        """SIGTERM, after `patience` seconds SIGKILL; returns when it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.running:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            if await self.ended(patience):
                break
        for _ in range(_REAP_TRIES):
            if self.reap():
                break
            await asyncio.sleep(0.01)


def spawn(arguments: Sequence[str], *, stdin: bytes, log_file: Path, environment: dict[str, str]) -> Daemon:
    """Start `arguments` with `stdin` as its whole input and its output in `log_file` (begun anew).

    Raises MediaUnavailable when it cannot be started.
    """
    reader, writer = os.pipe()
    try:
        os.write(writer, stdin)
        os.close(writer)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        pid = os.posix_spawnp(
            arguments[0],
            list(arguments),
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reader, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log_file), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM),
        )
    except OSError as error:
        raise MediaUnavailable(f"{arguments[0]} cannot be started: {error.strerror}") from error
    finally:
        os.close(reader)
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    return Daemon(pid, _started(pid) or 0)


def last_line(log_file: Path) -> str:
    """The last line a daemon wrote, for error messages; "" when there is none."""
    with contextlib.suppress(OSError):
        lines = log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""
    return ""


def _started(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, None when there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
