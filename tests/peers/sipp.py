"""SIPp as a peer: many calls by somebody else's code, over UDP or TCP, with RTP.

Scenarios are in `scenarios/`: `uac.xml` calls and sends a tone, `uas.xml` answers and echoes what it gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import shutil
import signal
import subprocess
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from tests.peers import tone as tones
from tests.support.ports import free_port, free_udp_range

SCENARIOS = Path(__file__).parent / "scenarios"


def available() -> bool:
    return shutil.which("sipp") is not None


@dataclass(frozen=True)
class Counts:
    """SIPp's own figures; `errors`: what it wrote about failed calls; `setup_ms`: mean time INVITE to 200."""

    successful: int
    failed: int
    current: int
    setup_ms: float
    exit_code: int
    errors: str

    @property
    def all_good(self) -> bool:
        return self.failed == 0 and self.exit_code == 0 and self.current == 0


class Sipp:
    """One SIPp process; an async context manager that leaves none.

    gateway   where the caller's INVITEs go; None makes it the called side
    calls     stops by itself after so many; 0 goes on until the context ends
    rate      calls a second; `limit` at most so many at once; `hold` seconds each lasts
    called    number called; `caller` number calling
    tone      Hz that the caller sends as PCMA
    scenario  file name in `scenarios/`, or a path, default by role
    """

    def __init__(
        self,
        folder: Path,
        *,
        gateway: tuple[str, int] | None = None,
        transport: Literal["udp", "tcp"] = "udp",
        calls: int = 1,
        rate: float = 10.0,
        limit: int = 0,
        hold: float = 1.0,
        called: str = "+4930123456",
        caller: str = "+49301112222",
        tone: float = 600.0,
        port: int = 0,
        timeout: float = 120.0,
        scenario: str | Path = "",
    ) -> None:
        self.folder, self.gateway, self.transport, self.calls = folder, gateway, transport, calls
        self.rate, self.limit, self.hold, self.called, self.caller = rate, limit, hold, called, caller
        self.tone, self.port, self.timeout = tone, port or free_port(), timeout
        self.scenario = SCENARIOS / (scenario or ("uac.xml" if gateway else "uas.xml"))
        self._process: asyncio.subprocess.Process | None = None

    @property
    def peer(self) -> str:
        """The trunk's peer in the gateway's configuration."""
        return f"{self.transport}:127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    async def __aenter__(self) -> Sipp:
        self.folder.mkdir(parents=True, exist_ok=True)
        speech = self.folder / "tone.alaw"
        speech.write_bytes(tones.encode_alaw(tones.sine(self.tone, 1.0)))
        file = self.folder / "scenario.xml"
        file.write_text(self.scenario.read_text().replace("@SPEECH@", str(speech)))
        with (self.folder / "output.txt").open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._words(file), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
        for _ in range(200):
            if self._process.returncode is not None or _bound(self.transport, self.port):
                break
            await asyncio.sleep(0.02)
        return self

    def _words(self, file: Path) -> list[str]:
        words = ["sipp", "-sf", str(file), "-i", "127.0.0.1", "-p", str(self.port), "-mi", "127.0.0.1"]
        words += [
            "-t",
            "u1" if self.transport == "udp" else "t1",
            "-nostdin",
            "-timeout",
            f"{self.timeout:.0f}s",
        ]
        words += ["-trace_stat", "-stf", "stat.csv", "-fd", "1", "-trace_err", "-error_file", "errors.txt"]
        if self.calls:
            words += ["-m", str(self.calls)]
        if self.gateway is None:
            first, _ = free_udp_range(4)
            return [*words, "-mp", str(first), "-rtp_echo", "-aa"]
        first, _ = free_udp_range(max(64, 4 * (self.limit or 16)))
        words += ["-mp", str(first)]
        words += ["-s", self.called, "-key", "caller", self.caller, "-d", f"{self.hold * 1000:.0f}"]
        words += ["-r", f"{max(1, round(self.rate * 10))}", "-rp", "10000", *self._limit]
        return [*words, f"{self.gateway[0]}:{self.gateway[1]}"]

    @property
    def _limit(self) -> list[str]:
        return ["-l", str(self.limit)] if self.limit else []

    async def finished(self, within: float = 150.0) -> Counts:
        """Wait for the last of `calls`; TimeoutError."""
        assert self._process is not None
        await asyncio.wait_for(self._process.wait(), within)
        return self.counts()

    def counts(self) -> Counts:
        """The figures so far (SIPp writes them each second and at its end)."""
        assert self._process is not None
        row: dict[str, str] = {}
        with (
            contextlib.suppress(FileNotFoundError, IndexError),
            (self.folder / "stat.csv").open(newline="") as file,
        ):
            row = deque(csv.DictReader(file, delimiter=";"), maxlen=1)[-1]
        errors = self.folder / "errors.txt"
        hours, minutes, seconds, micros = (row.get("ResponseTimesetup(C)") or "0:0:0:0").split(":")
        return Counts(
            int(row.get("SuccessfulCall(C)") or 0),
            int(row.get("FailedCall(C)") or 0),
            int(row.get("CurrentCall") or 0),
            (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1000 + int(micros) / 1000,
            self._process.returncode or 0,
            errors.read_text(errors="replace") if errors.exists() else "",
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGUSR1)
        try:
            await asyncio.wait_for(process.wait(), 2)
        except TimeoutError:
            process.kill()
            await process.wait()


def _bound(transport: str, port: int) -> bool:
    """Whether the port is open already, without touching it."""
    wanted = f":{port:04X}"
    lines = Path("/proc/net", transport).read_text().splitlines()[1:]
    return any(line.split()[1].endswith(wanted) for line in lines)
