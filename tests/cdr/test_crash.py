"""kill -9 at any moment: what was acknowledged is there, every call has exactly one row."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.cdr.call_state import closing_events
from gateway.cdr.sinks import JsonLinesSink
from tests.cdr.events import START
from tests.cdr.sinks import until
from tests.cdr.test_recorder import Gateway

ROOT = Path(__file__).parents[2]


def run_and_kill(directory: Path, first: int, calls: int) -> list[int]:
    """Let a writer complete some calls, kill it in the middle of the next; numbers it acknowledged."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.cdr.writer", str(directory), str(first)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert writer.stdout is not None
    with writer.stdout:
        acknowledged = [int(line) for line in _first(calls, writer.stdout)]
        writer.kill()
        rest = writer.stdout.read()
    writer.wait(20)
    whole = rest[: rest.rfind("\n") + 1]
    return acknowledged + [int(line) for line in whole.split()]


def _first(count: int, lines: Iterator[str]) -> list[str]:
    return [line for line, _ in zip(lines, range(count), strict=False)]


def rows_in(directory: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for path in (directory / "rows").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found.setdefault(row["id"], []).append(row)
    return found


async def test_a_writer_killed_at_random_moments_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    dice = random.Random(7)
    acknowledged: list[int] = []
    cut: set[str] = set()
    owed: set[str] = set()
    for life in range(8):
        done = run_and_kill(tmp_path, life * 100_000, dice.randrange(1, 60))
        assert done
        acknowledged += done
        async with Gateway(tmp_path, JsonLinesSink(tmp_path / "rows", "jsonl")) as gateway:
            for call, state in list(gateway.recorder.states.items()):
                cut.add(call)
                if any(leg.dialled for leg in state.legs.values()):
                    owed.add(call)
                await gateway.journal.append(*closing_events(state, START + 10**9))
            await until(lambda: not gateway.recorder.sinks[0].behind)
    rows = rows_in(tmp_path)
    for number in acknowledged:
        versions = rows[f"{number:032x}"]
        assert versions[0]["reason"] == "hangup"
        assert all(version == versions[0] for version in versions), "a repeated row is the same row"
    ended_by_crash = {call for call, versions in rows.items() if versions[0]["reason"] == "gateway_restart"}
    assert ended_by_crash == owed
    assert owed <= cut
    assert all(versions[0] == version for versions in rows.values() for version in versions)
