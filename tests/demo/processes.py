"""The demo's processes: two stand-ins and the gateway, started, spoken to, and ended whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from gateway.state_dir import read_note
from tests.demo.failure import DemoFailed
from tests.demo.folder import stop_engine

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
START_LIMIT = 30.0
_STEP_LIMIT = 10.0
_PATIENCE = 6.0


async def _spawn(*words: str, stdin: int, stdout: Any, stderr: Any) -> Process:
    # A session of its own: Ctrl-C must reach the demo alone, which ends the others in order.
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *words,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=ROOT,
        start_new_session=True,
    )


async def _end(process: Process, patience: float = _PATIENCE) -> None:
    """SIGTERM, once more, then SIGKILL to it and all it started."""
    for _ in range(2):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def enter_all(stack: contextlib.AsyncExitStack, *contexts: AbstractAsyncContextManager[T]) -> list[T]:
    """Enter them at the same time; `stack` leaves those that could be entered, also when one could not."""
    entering = (stack.enter_async_context(one) for one in contexts)
    results = await asyncio.gather(*entering, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


class Standin:
    """One stand-in process (`tests.peers.desk`): it prints lines and obeys commands."""

    def __init__(self, name: str, process: Process, on_event: Callable[[dict[str, Any]], None]) -> None:
        self.name, self._process, self._on_event = name, process, on_event
        self.ready: dict[str, Any] = {}
        self.violations: list[str] = []
        self._lines: list[str] = []
        self._came = asyncio.Event()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"demo-{name}")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            word, _, rest = (line := raw.decode(errors="replace").rstrip("\n")).partition(" ")
            if word == "WIRE":
                self._on_event(json.loads(rest))
            elif word == "VIOLATION":
                self.violations.append(rest)
            else:
                self._lines.append(line)
                self._came.set()
        self._lines.append("GONE")
        self._came.set()

    async def expect(self, word: str, within: float = _STEP_LIMIT) -> str:
        """The rest of the next line that begins with `word`; DemoFailed when a FAILED or nothing comes."""
        try:
            async with asyncio.timeout(within):
                while True:
                    found, rest = await self.line()
                    if found == word:
                        return rest
                    if found == "FAILED":
                        raise DemoFailed(f"{self.name}: {rest}")
                    if found == "GONE":
                        self._lines.append("GONE")
                        raise DemoFailed(f"{self.name}: the stand-in ended by itself")
        except TimeoutError:
            raise DemoFailed(f"{self.name}: no {word} within {within:.0f} s") from None

    async def line(self) -> tuple[str, str]:
        """First word and rest of the next line, whatever it is; ("GONE", "") at the end of the process."""
        while not self._lines:
            self._came.clear()
            await self._came.wait()
        word, _, rest = self._lines.pop(0).partition(" ")
        return word, rest

    def tell(self, command: str) -> None:
        """A command of the desk."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")

    async def close(self) -> None:
        await _end(self._process)
        await asyncio.gather(self._reader, return_exceptions=True)
        if self._process.stdin is not None:
            self._process.stdin.close()


@contextlib.asynccontextmanager
async def standin(
    name: str, module: str, *arguments: str, log: Path, on_event: Callable[[dict[str, Any]], None]
) -> AsyncIterator[Standin]:
    """A running stand-in whose ports are open; what it complains about goes to `log`."""
    with log.open("wb") as complaints:
        process = await _spawn(module, *arguments, "--wire", stdin=PIPE, stdout=PIPE, stderr=complaints)
    party = Standin(name, process, on_event)
    try:
        try:
            party.ready = json.loads(await party.expect("READY", START_LIMIT))
        except DemoFailed as error:
            raise DemoFailed(f"{error}; see {log}") from None
        yield party
    finally:
        await party.close()


@contextlib.asynccontextmanager
async def gateway(config: Path, log: Path) -> AsyncIterator[Process]:
    """`tandem run`, ready for calls; at the end neither it nor its rtpengine, Redis and rooms are left."""
    state = config.parent / "state"
    with log.open("wb") as lines:
        process = await _spawn(
            "gateway", "run", "--config", str(config), stdin=DEVNULL, stdout=lines, stderr=lines
        )
    try:
        deadline = asyncio.get_running_loop().time() + START_LIMIT
        while read_note(state) is None:
            if process.returncode is not None:
                raise DemoFailed(f"the gateway ended with exit code {process.returncode}: {_cause(log)}")
            if asyncio.get_running_loop().time() > deadline:
                raise DemoFailed(f"the gateway is not up after {START_LIMIT:.0f} s; see {log}")
            await asyncio.sleep(0.05)
        yield process
        if process.returncode is not None:
            raise DemoFailed(f"the gateway ended with exit code {process.returncode}: {_cause(log)}")
    finally:
        await _end(process)
        await stop_engine(state)


def _cause(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    telling = [line for line in lines if "critical" in line.lower() or "error" in line.lower()]
    return (telling or lines or ["it said nothing"])[-1][:400] + f" ({log})"


@contextlib.asynccontextmanager
async def graph(folder: Path, redirect: str, log: Path) -> AsyncIterator[dict[str, str]]:
    """The Graph stand-in; what it says of itself: authority, root, control ... (`tests.peers.graph_cli`).

    redirect: where it may send browsers back to
    """
    with log.open("wb") as complaints:
        process = await _spawn(
            *("tests.peers.graph_cli", str(folder), "--redirect-uri", redirect),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=complaints,
        )
    try:
        yield await _introduction(process, log)
    finally:
        await _end(process)


async def _introduction(process: Process, log: Path) -> dict[str, str]:
    assert process.stdout is not None
    with contextlib.suppress(TimeoutError):
        word, *fields = (await asyncio.wait_for(process.stdout.readline(), START_LIMIT)).decode().split() or [
            ""
        ]
        if word == "ready":
            return dict(field.split("=", 1) for field in fields)
    raise DemoFailed(f"the Graph stand-in does not start; see {log}")


async def tandem(*words: str) -> str:
    """Output of a `tandem` command."""
    process = await _spawn("gateway", *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    try:
        out, complaint = await asyncio.wait_for(process.communicate(), START_LIMIT)
    except TimeoutError:
        raise DemoFailed(f"tandem {words[0]}: no end within {START_LIMIT:.0f} s") from None
    finally:
        if process.returncode is None:
            await _end(process)
    if process.returncode:
        raise DemoFailed(f"tandem {' '.join(words)}: {complaint.decode(errors='replace').strip()}")
    return out.decode().rstrip()
