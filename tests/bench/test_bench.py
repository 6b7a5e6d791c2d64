"""Each benchmark at its smallest: it ends by itself, its last line is JSON of the promised shape, and no
process of it is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.calls import Load
from tests.bench.measure import marked, percentile
from tests.bench.reports import Answer, Figures, grown
from tests.bench.sides import ROOT
from tests.bench.targets import Command, TargetFailed
from tests.support.waiting import until

MARK = "TANDEM_BENCH_TEST"


async def start(tmp_path: Path, *words: str) -> asyncio.subprocess.Process:
    """A benchmark whose processes are all known by `tmp_path` in their environment."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench", *words),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, MARK: str(tmp_path), "TMPDIR": str(tmp_path)},
    )


async def bench(tmp_path: Path, *words: str) -> dict[str, Any]:
    process = await start(tmp_path, *words)
    async with asyncio.timeout(120):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert left(tmp_path) == []
    found: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
    return found


def left(tmp_path: Path) -> list[object]:
    """Processes and files of a benchmark that are still there."""
    return [*marked(f"{MARK}={tmp_path}"), *tmp_path.glob("tandem-bench-*")]


async def test_calls(tmp_path: Path) -> None:
    found = await bench(tmp_path, "calls", "--calls", "3", "--rate", "3", "--seconds", "1.5")
    (result,) = found["results"]
    assert found["load"] == {"calls": 3, "rate": 3.0, "seconds": 1.5}
    assert (result["name"], result["up"], result["failures"]) == ("tandem", 3, {})
    assert set(result["core_per_call"]) == {"gateway", "rtpengine", "redis", "rooms", "all"}
    assert 0 < result["setup_ms"]["p50"] <= result["setup_ms"]["p99"] < 5000
    assert 0 < result["answer_ms"]["p50"] < 5000
    assert result["packets"] > 3 * 2 * 50
    assert (result["silent"], result["broken"]) == (0, 0)
    assert result["rss_per_call"]["all"] > 0


async def test_conference(tmp_path: Path) -> None:
    found = await bench(tmp_path, "conference", "--conferences", "1", "--seconds", "1.5")
    assert found["core_per_conference"]["all"] > 0
    assert set(found["pss"]) == {"gateway", "rtpengine", "redis", "rooms"}
    assert found["packets"] > 4 * 50
    assert (found["silent"], found["broken"]) == (0, 0)


async def test_reports(tmp_path: Path) -> None:
    found = await bench(tmp_path, "reports", "--rows", "3000", "--ask", "a day")
    answers = found["answers"]
    assert 0 < answers["a day: every row"]["rows"] < 3000
    for form in ("CSV", "Parquet"):
        assert answers[f"a day: {form} export"]["rows"] == answers["a day: every row"]["rows"]
        assert answers[f"a day: {form} export"]["bytes_written"] > 10_000
    assert found["grown"] == []
    assert answers["a day: first page of 100"]["rows"] <= 100
    assert all(answer["peak"] >= answer["before"] > 0 for answer in answers.values())


@pytest.mark.parametrize(
    ("day", "more", "complains"), [(30_000, 4, False), (30_000, 13, True), (100, 12, False)]
)
def test_a_whole_export_that_takes_more_memory_than_a_days_is_a_failure(
    day: int, more: int, complains: bool
) -> None:
    figures = Figures(1_000_000)
    for form in ("CSV", "Parquet"):
        figures.answers[f"a day: {form} export"] = Answer(day, 1.0, 80 << 20, 60 << 20)
        figures.answers[f"all: {form} export"] = Answer(1_000_000, 1.0, 80 << 20, 60 << 20)
    figures.answers["all: CSV export"] = Answer(1_000_000, 1.0, (80 + more) << 20, 60 << 20)
    assert [line.split(":")[0] for line in grown(figures)] == ["CSV"] * complains


async def test_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    process = await start(tmp_path, "calls", "--calls", "100", "--rate", "5", "--seconds", "300")
    async with asyncio.timeout(60):
        await until(lambda: len(marked(f"{MARK}={tmp_path}")) >= 4, 60)
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 130
    assert left(tmp_path) == []


async def test_a_peer_that_dies_is_named_and_what_it_started_is_ended(tmp_path: Path) -> None:
    target = Command("dead", "sh -c 'sleep 600 & echo no licence; exit 3'", ("127.0.0.1", 9))
    around: Any = _Around(tmp_path)
    await target.start(tmp_path / "work", around)
    await until(lambda: "no licence" in (tmp_path / "work" / "output").read_text())
    assert target.groups()["dead"], "what it put into the background is left"
    await target.stop()
    with pytest.raises(TargetFailed, match="no licence"):
        target.groups()


class _Around:
    """Neighbours that nobody calls."""

    caller, callee, ports = 9, 9, (9, 9)

    def __init__(self, folder: Path) -> None:
        self.pki = self
        self.folder = folder


@pytest.mark.parametrize(("calls", "rate", "seconds"), [(501, 1, 1), (1, 101, 1), (1, 1, 301), (0, 1, 1)])
def test_no_load_without_bounds(calls: int, rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="at most"):
        Load(calls, rate, seconds)


def test_percentiles_are_of_what_was_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (50, 95, 99)] == [50.0, 95.0, 99.0]
    assert percentile([7.0], 99) == 7.0
    assert percentile([], 50) is None
