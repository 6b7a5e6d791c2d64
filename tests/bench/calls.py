"""`scripts/bench calls`: what a bridged RTP-SRTP call costs, and how long it waits in the gateway.

Each target has a run of its own, one after the other, under the same load: warm-up, `calls` calls set up at
`rate` a second, all of them up with packets both ways for `seconds`, hung up at the same rate.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measure import (
    Snapshot,
    machine,
    others_busy,
    percent_of_a_core,
    percentile,
    snapshot,
)
from tests.bench.sides import SideProcess, side
from tests.bench.targets import Neighbours, Target, TargetFailed, media_ports
from tests.peers.certs import make_pki

MAX_CALLS, MAX_SECONDS, MAX_RATE = 500, 300.0, 100.0
_WARM_UP = 3
_SETTLE = 1.0
_IDLE = 5.0
_UP_WITHIN = 60.0
_SHARES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Load:
    """calls at once, set up `rate` a second, kept for `seconds`."""

    calls: int
    rate: float
    seconds: float

    def __post_init__(self) -> None:
        for name, value, most in (
            ("calls", self.calls, MAX_CALLS),
            ("rate", self.rate, MAX_RATE),
            ("seconds", self.seconds, MAX_SECONDS),
        ):
            if not 0 < value <= most:
                raise ValueError(f"{name} has to be more than 0 and at most {most:g}")


@dataclass(slots=True)
class Figures:
    """Of one target under one load. Times in ms, memory in bytes, processor in percent of one core.

    core_per_call: all that was used while the calls were up, divided by them; `idle_core` is part of it
    """

    name: str
    up: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    idle_core: dict[str, float] = field(default_factory=dict)
    core_per_call: dict[str, float] = field(default_factory=dict)
    setup_cpu_ms: dict[str, float] = field(default_factory=dict)
    rss_per_call: dict[str, float] = field(default_factory=dict)
    pss_per_call: dict[str, float] = field(default_factory=dict)
    setup_ms: dict[str, float | None] = field(default_factory=dict)
    answer_ms: dict[str, float | None] = field(default_factory=dict)
    packets: int = 0
    lost: int = 0
    silent: int = 0
    broken: int = 0
    generator: dict[str, float] = field(default_factory=dict)
    others_percent: float = 0.0
    load_average: float = 0.0


async def measure(target: Target, load: Load, folder: Path) -> Figures:
    """One run. TargetFailed, SideFailed, TimeoutError; nothing is left running whatever happens."""
    pki = await asyncio.to_thread(make_pki, folder / "pki")
    words = ("--pki", str(pki.folder))
    async with side("caller", *words) as caller, side("callee", *words) as callee:
        ports = media_ports(load.calls + _WARM_UP)
        around = Neighbours(caller.ready["port"], callee.ready["tls"], pki, ports)
        try:
            host, port = await target.start(folder / "target", around)
            await caller.order("gateway", host=host, port=port)
            return await _Run(target, load, caller, callee).measure()
        finally:
            await target.stop()


class _Run:
    def __init__(self, target: Target, load: Load, caller: SideProcess, callee: SideProcess) -> None:
        self._target, self._load, self._sides = target, load, (caller, callee)
        self._caller = caller
        self._figures = Figures(target.name)

    async def measure(self) -> Figures:
        load, figures, caller = self._load, self._figures, self._caller
        await self._until_up()
        await self._dial(_WARM_UP, first=load.calls)
        await caller.order("hangup", rate=load.rate)
        await self._moments()
        await asyncio.sleep(_SETTLE)

        empty = self._look()
        await asyncio.sleep(min(_IDLE, load.seconds))
        idle = self._look()
        figures.idle_core = percent_of_a_core(empty, idle)
        answer = await self._dial(load.calls)
        figures.up, figures.failures = answer["up"], answer["failures"]
        after_setup = self._look()
        await asyncio.sleep(_SETTLE)
        await self._steadily()
        full = self._look()
        ended = await caller.order("hangup", _patience(load), rate=load.rate)
        for cause in ("dropped", "refused"):
            if ended[cause]:
                figures.failures[f"{cause} at the end"] = ended[cause]
        self._delays(await self._moments())
        self._per_call(idle, after_setup, full)
        return figures

    async def _until_up(self) -> None:
        """It answers OPTIONS; TargetFailed as soon as it is dead."""
        deadline = asyncio.get_running_loop().time() + _UP_WITHIN
        while not (await self._caller.order("ping", patience=1.0))["answered"]:
            self._target.groups()
            if asyncio.get_running_loop().time() > deadline:
                raise TargetFailed(f"{self._target.name} does not answer OPTIONS within {_UP_WITHIN:g} s")

    def _look(self) -> Snapshot:
        return snapshot(self._target.groups())

    async def _dial(self, count: int, first: int = 0) -> dict[str, Any]:
        return await self._caller.order(
            "dial", _patience(self._load), count=count, first=first, rate=self._load.rate
        )

    async def _steadily(self) -> None:
        """All calls are up: processor time and packets over `seconds`."""
        figures, load = self._figures, self._load
        counts = await self._count()
        before, began = self._look(), machine()
        await asyncio.sleep(load.seconds)
        after = self._look()
        seconds = after.at - before.at
        later = await self._count()
        used = percent_of_a_core(before, after)
        own = sum(b["cpu"] - a["cpu"] for a, b in zip(counts, later, strict=True))
        measured = sum(used.values()) * seconds / 100
        figures.others_percent = others_busy(began, own + measured)
        figures.load_average = os.getloadavg()[0]
        figures.generator = {
            "core_percent": 100 * own / seconds,
            "late_ms": max(answer["late_ms"] for answer in later),
        }
        figures.core_per_call = {name: percent / max(1, figures.up) for name, percent in used.items()}
        for old, new in zip(counts, later, strict=True):
            for a, b in zip(old["streams"], new["streams"], strict=False):
                figures.packets += b[1] - a[1]
                figures.lost += max(0, b[2] - a[2])
                figures.broken += b[3] - a[3]
                figures.silent += b[1] == a[1]

    async def _count(self) -> list[dict[str, Any]]:
        return [await one.order("count") for one in self._sides]

    async def _moments(self) -> list[list[Any]]:
        return [(await one.order("moments"))["moments"] for one in self._sides]

    def _delays(self, moments: Sequence[Iterable[Sequence[Any]]]) -> None:
        """INVITE from the caller to the callee, 200 from the callee to the caller."""
        caller, callee = (_calls(side_moments) for side_moments in moments)
        setup, answer = list[float](), list[float]()
        for number, (invited, answered) in caller.items():
            there = callee.get(number)
            if invited is not None and there is not None and there[0] is not None:
                setup.append(1000 * (there[0] - invited))
                if answered is not None and there[1] is not None:
                    answer.append(1000 * (answered - there[1]))
        self._figures.setup_ms = _shares(setup)
        self._figures.answer_ms = _shares(answer)

    def _per_call(self, idle: Snapshot, after_setup: Snapshot, full: Snapshot) -> None:
        figures, calls = self._figures, max(1, self._figures.up)
        steady = sum(figures.core_per_call.values())
        for name, used in idle.groups.items():
            spent = after_setup.groups[name].cpu - used.cpu
            running = figures.core_per_call.get(name, 0.0) / 100 * calls * (after_setup.at - idle.at) / 2
            figures.setup_cpu_ms[name] = max(0.0, 1000 * (spent - running) / calls)
            figures.rss_per_call[name] = (full.groups[name].rss - used.rss) / calls
            figures.pss_per_call[name] = (full.groups[name].pss - used.pss) / calls
        for table, total in (
            (figures.idle_core, sum(figures.idle_core.values())),
            (figures.core_per_call, steady),
            (figures.setup_cpu_ms, sum(figures.setup_cpu_ms.values())),
            (figures.rss_per_call, sum(figures.rss_per_call.values())),
            (figures.pss_per_call, sum(figures.pss_per_call.values())),
        ):
            table["all"] = total


def _calls(moments: Iterable[Sequence[Any]]) -> dict[str, tuple[float | None, float | None]]:
    """Number called -> when its first INVITE and its first 200 passed."""
    numbers: dict[str, str] = {}
    times: dict[str, tuple[float | None, float | None]] = {}
    for at, _received, code, call_id, number in moments:
        if code == 0 and call_id not in numbers:
            numbers[call_id] = number
            times.setdefault(number, (at, None))
        elif code == 200 and call_id in numbers:
            invited, answered = times[numbers[call_id]]
            times[numbers[call_id]] = (invited, at if answered is None else answered)
    return times


def _shares(values: Sequence[float]) -> dict[str, float | None]:
    return {f"p{share}": percentile(values, share) for share in _SHARES}


def _patience(load: Load) -> float:
    return load.calls / load.rate + 60


def table(all_figures: Sequence[Figures], load: Load) -> list[tuple[str, ...]]:
    """Head and lines, a column a target."""
    lines = [("", *(figures.name for figures in all_figures))]

    def row(title: str, cell: Any) -> None:
        lines.append((title, *(cell(figures) for figures in all_figures)))

    row("calls up", lambda f: f"{f.up} of {load.calls}")
    row("% of a core a call", lambda f: _parts(f.core_per_call, "{:.3f}"))
    row("% of a core without a call", lambda f: _parts(f.idle_core, "{:.2f}"))
    row("set-up, ms of processor a call", lambda f: _parts(f.setup_cpu_ms, "{:.1f}"))
    row("INVITE in to INVITE out, ms p50/p95/p99", lambda f: _three(f.setup_ms))
    row("200 in to 200 out, ms p50/p95/p99", lambda f: _three(f.answer_ms))
    row("memory a call, KiB resident", lambda f: _parts(_kib(f.rss_per_call), "{:.0f}"))
    row("memory a call, KiB fair share", lambda f: _parts(_kib(f.pss_per_call), "{:.0f}"))
    row("packets / lost / not authentic", lambda f: f"{f.packets} / {f.lost} / {f.broken}")
    row("silent streams", lambda f: str(f.silent))
    row("failures", lambda f: ", ".join(f"{n} x {why}" for why, n in f.failures.items()) or "0")
    row("generator: % of a core, latest ms", lambda f: _generator(f.generator))
    row("other processes, % of a core", lambda f: f"{f.others_percent:.0f}")
    return lines


def _parts(values: Mapping[str, float], form: str) -> str:
    parts = [f"{name} {form.format(value)}" for name, value in values.items() if name != "all"]
    total = form.format(values.get("all", 0.0))
    return f"{total} ({', '.join(parts)})" if len(parts) > 1 else total


def _kib(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value / 1024 for name, value in values.items()}


def _three(values: Mapping[str, float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values.values())


def _generator(values: Mapping[str, float]) -> str:
    return f"{values.get('core_percent', 0.0):.0f}, {values.get('late_ms', 0.0):.0f}"
