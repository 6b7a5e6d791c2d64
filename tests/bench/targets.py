"""What is measured: a gateway of this (or another) checkout, or any peer given as a command and address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.state_dir import read_note
from media.process import Daemon
from tests.bench.measure import marked, tree
from tests.peers.certs import PROXY_NAMES, Pki
from tests.support.ports import free_port, free_udp_range

_PORTS_A_CALL = 8
_START_WITHIN = 60.0
_STOP_WITHIN = 30.0
_MARK = "TANDEM_BENCH_RUN"
_FQDN = "sbc.example.test"


class TargetFailed(RuntimeError):
    """It does not start, or has died; the text says what it wrote last."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who is around a target. `caller`: UDP port that calls come from; `callee`: TLS port they go to.

    ports: first and last UDP port for its media; all on 127.0.0.1
    """

    caller: int
    callee: int
    pki: Pki
    ports: tuple[int, int]


def media_ports(calls: int) -> tuple[int, int]:
    """Room for so many calls, where neither the generator's own sockets nor a target's SIP port may be."""
    return free_udp_range(_PORTS_A_CALL * calls + 64)


class Target(Protocol):
    """Started and stopped once; `groups` are its processes by what they do."""

    name: str

    async def start(self, folder: Path, around: Neighbours) -> tuple[str, int]:
        """Address for INVITEs over UDP. TargetFailed."""
        ...

    def groups(self) -> Mapping[str, list[int]]: ...

    async def stop(self) -> None: ...


class Gateway:
    """Tandem as its own process, with its embedded rtpengine and Redis; `root` is the checkout it is of."""

    def __init__(self, root: Path, name: str = "tandem") -> None:
        self.name = name
        self._root, self._folder = root, Path()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, folder: Path, around: Neighbours) -> tuple[str, int]:
        self._folder = _made(folder)
        port = free_port()
        file = folder / "tandem.toml"
        file.write_text(_configuration(port, around))
        own = self._root / ".venv" / "bin" / "python"
        with (folder / "output").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(own) if own.exists() else sys.executable,
                *("-m", "gateway", "run", "--config", str(file)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._root,
                start_new_session=True,
            )
        async with asyncio.timeout(_START_WITHIN):
            while read_note(folder / "state") is None:
                if self._process.returncode is not None:
                    raise TargetFailed(f"{self.name} ended with {self._process.returncode}: {_tail(folder)}")
                await asyncio.sleep(0.1)
        return "127.0.0.1", port

    @property
    def _engine_file(self) -> Path:
        return self._folder / "state" / "media" / "engine.json"

    def groups(self) -> Mapping[str, list[int]]:
        assert self._process is not None
        if self._process.returncode is not None:
            raise TargetFailed(f"{self.name} has died: {_tail(self._folder)}")
        record = json.loads(self._engine_file.read_text(encoding="utf-8"))
        mine, *rooms = tree(self._process.pid)
        engine, redis = record["rtpengine"]["pid"], record["redis"]["pid"]
        rooms = [pid for pid in rooms if pid not in (engine, redis)]
        return {"gateway": [mine], "rtpengine": [engine], "redis": [redis], "rooms": rooms}

    async def stop(self) -> None:
        """SIGTERM, and once more when that takes long; then what a gateway that died has left running."""
        for _ in range(2):
            if self._process is not None and self._process.returncode is None:
                self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), _STOP_WITHIN)
        with contextlib.suppress(FileNotFoundError):
            record = json.loads(self._engine_file.read_text(encoding="utf-8"))
            await asyncio.gather(*(Daemon(**record[name]).stop() for name in ("rtpengine", "redis")))


def _configuration(port: int, around: Neighbours) -> str:
    pki, name = around.pki, PROXY_NAMES[0]
    return f"""
[gateway]
fqdn = "{_FQDN}"
state_dir = "state"
[log]
level = "info"
[sip]
listen = ["udp:127.0.0.1:{port}", "tls:127.0.0.1:0"]
certificate = "{pki["gateway"].chain}"
private_key = "{pki["gateway"].key}"
trusted_roots = "{pki.roots}"
[resolver.hosts]
"{name}" = "127.0.0.1"
[media]
address = "127.0.0.1"
ports = [{around.ports[0]}, {around.ports[1]}]
[http]
listen = "127.0.0.1:0"
[limits]
calls_per_second = 0.0
min_free_disk = 1
[[trunk]]
name = "center"
peers = ["udp:127.0.0.1:{around.caller}"]
[[trunk]]
name = "teams"
kind = "direct-routing"
peers = ["tls:{name}:{around.callee}"]
tenants = ["{_FQDN}"]
allow_from = ["127.0.0.0/8"]
[[route]]
from = "center"
to = "teams"
"""


class Command:
    """Any SIP B2BUA: its command, and where it takes INVITEs over UDP.

    It has to pass a call to any number on to TANDEM_BENCH_CALLEE over TLS with SRTP (SDES) and finds in its
    environment: TANDEM_BENCH_CALLER and _CALLEE (HOST:PORT), _LISTEN (its own, as given), _PKI (PEM files:
    roots.pem, gateway.pem, gateway.key), _PORTS (FIRST-LAST for media) and _FOLDER (to work in, empty).
    """

    def __init__(self, name: str, command: str, address: tuple[str, int], cwd: Path | None = None) -> None:
        self.name, self._cwd = name, cwd
        self._command, self._address = command, address
        self._token = secrets.token_hex(8)
        self._folder = Path()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, folder: Path, around: Neighbours) -> tuple[str, int]:
        self._folder = _made(folder)
        more = {
            _MARK: self._token,
            "TANDEM_BENCH_CALLER": f"127.0.0.1:{around.caller}",
            "TANDEM_BENCH_CALLEE": f"127.0.0.1:{around.callee}",
            "TANDEM_BENCH_LISTEN": f"{self._address[0]}:{self._address[1]}",
            "TANDEM_BENCH_PKI": str(around.pki.folder),
            "TANDEM_BENCH_PORTS": f"{around.ports[0]}-{around.ports[1]}",
            "TANDEM_BENCH_FOLDER": str(folder),
        }
        with (folder / "output").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *shlex.split(self._command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **more},
                cwd=self._cwd,
                start_new_session=True,
            )
        return self._address

    def groups(self) -> Mapping[str, list[int]]:
        """Everything that the command has started and that lives."""
        found = marked(f"{_MARK}={self._token}")
        if not found and self._process is not None and self._process.returncode is not None:
            raise TargetFailed(f"{self.name} has died: {_tail(self._folder)}")
        return {self.name: found}

    async def stop(self) -> None:
        """By word, then by force; daemons that it put into the background are found by their environment."""
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            left = marked(f"{_MARK}={self._token}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = asyncio.get_running_loop().time() + patience
            while left and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.1)
                left = marked(f"{_MARK}={self._token}")
            if not left:
                break
        if self._process is not None:
            await self._process.wait()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _tail(folder: Path) -> str:
    lines = (folder / "output").read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-4:]) or "nothing was written"
