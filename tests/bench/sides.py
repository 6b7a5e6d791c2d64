"""The load generator's processes seen from the orchestrator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_LINE = 64 << 20


class SideFailed(RuntimeError):
    """It could not do what it was told, or is gone."""


class SideProcess:
    """Answers one order at a time; `ready` is what it said when it was up."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.ready: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    async def order(self, do: str, within: float = 120.0, **more: Any) -> dict[str, Any]:
        """SideFailed, TimeoutError."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        answer = await self.answer(within)
        if "error" in answer:
            raise SideFailed(f"{do}: {answer['error']}")
        return answer

    async def answer(self, within: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), within)
        if not line:
            raise SideFailed("the load generator has ended; its standard error says why")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.asynccontextmanager
async def side(role: str, *arguments: str) -> AsyncIterator[SideProcess]:
    """A generator process in a session of its own (Ctrl-C is the orchestrator's), ended at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.side",
        role,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=_LINE,
        start_new_session=True,
    )
    found = SideProcess(process)
    try:
        found.ready = await found.answer(30)
        yield found
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()
