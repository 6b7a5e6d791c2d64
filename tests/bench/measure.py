"""Processor time and memory of processes, from /proc; percentiles."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a group of processes: processor seconds so far, bytes resident, bytes resident by fair share (PSS).

    The fair share also moves when others who share our libraries come and go: differences of it are noisy.
    """

    cpu: float = 0.0
    rss: int = 0
    pss: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All groups at one moment; `at` is monotonic seconds."""

    at: float
    groups: Mapping[str, Usage]


def snapshot(groups: Mapping[str, Iterable[int]]) -> Snapshot:
    """A process that has ended meanwhile counts nothing."""
    return Snapshot(time.monotonic(), {name: usage(pids) for name, pids in groups.items()})


def usage(pids: Iterable[int]) -> Usage:
    cpu, rss, pss = 0.0, 0, 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / _TICKS
            memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
            rss += _kib(memory, "Rss:")
            pss += _kib(memory, "Pss:")
    return Usage(cpu, rss * _KIB, pss * _KIB)


def _kib(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def marked(variable: str) -> list[int]:
    """Processes that were started with `NAME=value` in their environment, or by such a one."""
    wanted = variable.encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def percent_of_a_core(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """Per group, over the time between."""
    seconds = after.at - before.at
    return {
        name: 100 * (after.groups[name].cpu - used.cpu) / seconds
        for name, used in before.groups.items()
        if name in after.groups
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)]


def others_busy(began: tuple[float, float], own: float) -> float:
    """Percent of a core that everybody else on this machine used since `began` (of `machine`)."""
    now = machine()
    return max(0.0, 100 * ((now[1] - began[1]) - own) / (now[0] - began[0]))


def machine() -> tuple[float, float]:
    """Monotonic seconds, and seconds of processor time used by all of the machine."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = [int(field) for field in fields]
    return time.monotonic(), (sum(ticks[:8]) - ticks[3] - ticks[4]) / _TICKS
