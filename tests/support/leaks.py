"""What this process holds from the operating system: its children and its listening sockets."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 3.0
"""Seconds that processes, sockets and tasks are given to go away after a test."""

_LISTEN = "0A"
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
_kept: set[int] = set()


def keep(pid: int) -> None:
    """A process that outlives its test on purpose (a session-wide daemon started on first use)."""
    _kept.add(pid)


@dataclass(frozen=True)
class Holdings:
    """Children by process id, and the inodes of all open sockets."""

    children: dict[int, str]
    sockets: frozenset[str]

    def added_since(self, before: Holdings) -> list[str]:
        """One line per process, and socket that listens (TCP) or is bound (UDP), held now and not then."""
        return [
            *(f"process {pid}: {name}" for pid, name in self.children.items() if pid not in before.children),
            *(f"socket {text}" for text in _serving(self.sockets - before.sockets)),
        ]


def holdings() -> Holdings:
    return Holdings(_children(), _sockets())


def settle(before: Holdings) -> list[str]:
    """What is left over since `before`, after up to `PATIENCE` seconds for it to go away."""
    end = time.monotonic() + PATIENCE
    left = holdings().added_since(before)
    if left:
        gc.collect()
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = holdings().added_since(before)
    return left


def end_children(before: Holdings) -> None:
    """Kill what a failed test left running, so that the next test is not blamed for it."""
    for pid in holdings().children:
        if pid not in before.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> dict[int, str]:
    found: dict[int, str] = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            for word in (task / "children").read_text().split():
                pid = int(word)
                name = _command(pid)
                if pid not in _kept and not any(helper in name for helper in _HELPERS):
                    found[pid] = name
    return found


def _command(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return line or "(ended, not waited for)"
    except OSError:
        return "(gone)"


def _sockets() -> frozenset[str]:
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return frozenset(found)


def _serving(inodes: frozenset[str]) -> list[str]:
    """Those that listen or are bound. The kernel walks its whole tables for it: milliseconds each."""
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6") if inodes else ():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                local, state, inode = words[1], words[3], words[9]
                if inode in inodes and (state == _LISTEN or table.startswith("udp")):
                    found.append(f"{table} port {int(local.rpartition(':')[2], 16)}")
    return found
