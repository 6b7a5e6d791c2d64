"""The SIP ladder of two stand-ins with the gateway between, printed while it happens."""

from __future__ import annotations

import asyncio
import heapq
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WIDTH = 38
_PATIENCE = 0.08
"""Seconds that a line waits for an earlier one from the other process."""


@dataclass(frozen=True, order=True)
class Step:
    """One message; at: CLOCK_MONOTONIC seconds, teams: on the Teams side, rightward: its direction there."""

    at: float
    number: int
    teams: bool
    rightward: bool
    label: str

    @classmethod
    def of(cls, event: dict[str, Any], number: int = 0) -> Step:
        """From a stand-in's `WIRE` event."""
        teams = str(event["owner"]).startswith("Teams")
        return cls(float(event["at"]), number, teams, teams is bool(event["received"]), label(event))


def label(event: dict[str, Any]) -> str:
    """`INVITE +15551230000 [SRTP]`, `re-INVITE [SRTP inactive]`, `200 OK INVITE [RTP]`."""
    method = str(event["method"])
    if event["code"]:
        words = [str(event["code"]), str(event["phrase"]), method]
    else:
        again = method == "INVITE" and ";tag=" in str(event["to"]).lower()
        called = re.match(r"sips?:([^@;]+)@", str(event["uri"]))
        words = ["re-INVITE" if again else method]
        if called and method == "INVITE" and not again:
            words.append(called[1])
    if event["profile"]:
        way = "" if event["direction"] == "sendrecv" else f" {event['direction']}"
        words.append(f"[{'SRTP' if 'SAVP' in event['profile'] else 'RTP'}{way}]")
    return " ".join(words)


def heads() -> str:
    """What stands above the columns."""
    tandem = "contact center" + "Tandem".center(2 * WIDTH - 11)
    return f"{'':8}  {tandem}Teams\n{'':8}  {'SIP/UDP'.center(WIDTH + 1)} {'SIP/TLS'.center(WIDTH + 1)}"


def line(step: Step, began: float) -> str:
    """One row; 89 columns."""
    text = f" {step.label[: WIDTH - 6]} "
    bar = f"--{text:-<{WIDTH - 3}}>" if step.rightward else f"<--{text:-<{WIDTH - 3}}"
    empty = " " * WIDTH
    left, right = (empty, bar) if step.teams else (bar, empty)
    return f"{step.at - began:8.3f}  |{left}|{right}|"


class Ladder:
    """Takes events of both processes as they come, prints them in the order in which they happened."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._began: float | None = None
        self._show = show
        self._steps: list[Step] = []
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="demo-ladder")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.flush()

    def restart(self) -> None:
        """The next message is at 0."""
        self._began = None

    def add(self, event: dict[str, Any]) -> None:
        self._count += 1
        heapq.heappush(self._steps, Step.of(event, self._count))

    def flush(self, until: float = float("inf")) -> None:
        while self._steps and self._steps[0].at < until:
            step = heapq.heappop(self._steps)
            self._began = step.at if self._began is None else self._began
            self._show(line(step, self._began))

    async def settle(self) -> None:
        """Everything that has happened by now is printed."""
        await asyncio.sleep(_PATIENCE)
        self.flush()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PATIENCE / 2)
            self.flush(time.monotonic() - _PATIENCE)
