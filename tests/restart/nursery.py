"""Gateways that are up at once: a process that has imported everything forks one for each that is asked for.

Half of a gateway's start is Python reading its modules. Fifty starts do not need that fifty times; what
is forked is killed with SIGKILL and nothing else, so that it matters to nobody how it ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
READY = b"ready\n"


class Forked:
    """The part of asyncio's Process that a plant uses. `returncode`: of SIGKILL, once it is gone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    @property
    def returncode(self) -> int | None:
        if self._handle >= 0 and not select.select([self._handle], [], [], 0)[0]:
            return None
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        return -signal.SIGKILL

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        while (code := self.returncode) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        return code


class Nursery:
    """`async with`; what it has started ends by whoever started it."""

    async def __aenter__(self) -> Nursery:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.restart.nursery"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == READY
        return self

    async def start(self, config: Path, log: Path) -> Forked:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([str(config), str(log)]).encode() + b"\n")
        return Forked(int(await process.stdout.readline()))

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


def _become(config: str, log: str) -> None:
    from gateway.command_run import run

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, number)
    code = 70
    try:
        code = int(run(Path(config)))
    finally:
        os._exit(code)


def main() -> None:
    import gateway.__main__
    import gateway.assembly  # noqa: F401

    # nobody asks how they ended, so nobody waits for them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(1, READY)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            _become(*json.loads(line))
        os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    main()
