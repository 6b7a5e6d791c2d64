"""`tandem run` as a process: with its real rtpengine, journal, database and HTTP, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.exit_codes import ExitCode
from gateway.state_dir import RunningNote, read_note
from tests.support import ports
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


def configure(folder: Path, *, extra: str = "", sip: int = 0, http: int = 0) -> Path:
    """A gateway on free ports; `sip` and `http` 0 take any."""
    first, last = ports.free_udp_range(64)
    path = folder / "tandem.toml"
    path.write_text(
        f"""
[gateway]
state_dir = "state"
[sip]
listen = ["udp:127.0.0.1:{sip}"]
[media]
ports = [{first}, {last}]
[http]
listen = "127.0.0.1:{http}"
[limits]
min_free_disk = 1
[[trunk]]
name = "cc"
peers = ["udp:127.0.0.1:{ports.free_port()}"]
{extra}
"""
    )
    return path


@dataclass
class Running:
    """The process; its standard error goes to `log`."""

    process: asyncio.subprocess.Process
    log: Path
    folder: Path

    def note(self) -> RunningNote | None:
        return read_note(self.folder / "state")

    async def up(self) -> RunningNote:
        await until(lambda: self.note() is not None or self.process.returncode is not None, 40)
        note = self.note()
        assert note is not None, self.log.read_text()
        return note

    async def ended(self, limit: float = 40) -> int:
        async with asyncio.timeout(limit):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def tandem(folder: Path, *arguments: str) -> AsyncIterator[Running]:
    log = folder / "log"
    with log.open("ab") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "run", *arguments, stderr=stream, stdout=stream, cwd=ROOT
        )
    running = Running(process, log, folder)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
            await running.ended()


async def get(note: RunningNote, path: str, **more: Any) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{note.host}:{note.port}{path}", **more) as response,
    ):
        return response.status, await response.text()


def engine_pids(folder: Path) -> list[int]:
    """rtpengine and Redis of this gateway, as it noted them."""
    record = json.loads((folder / "state" / "media" / "engine.json").read_text())
    return [record["rtpengine"]["pid"], record["redis"]["pid"]]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_it_runs_until_sigterm_and_leaves_nothing(tmp_path: Path) -> None:
    path = configure(tmp_path)
    async with tandem(tmp_path, "--config", str(path)) as running:
        note = await running.up()
        assert note.pid == running.process.pid
        status, text = await get(note, "/readyz")
        assert status == 200, text
        assert set(json.loads(text)["parts"]) >= {
            "state", "journal", "recorder", "media", "rooms", "sip", "http", "note"
        }  # fmt: skip
        _, text = await get(note, "/metrics")
        for line in (
            "tandem_ready 1.0",
            "tandem_rtpengine_up 1.0",
            'tandem_trunk_up{trunk="cc"} 1.0',
            "tandem_calls 0.0",
        ):
            assert line in text.splitlines()
        assert (await get(note, "/api/v1/trunks"))[0] == 401
        status, text = await get(note, "/api/v1/trunks", headers={"Authorization": f"Bearer {note.token}"})
        assert (status, json.loads(text)["trunks"][0]["name"]) == (200, "cc")
        pids = engine_pids(tmp_path)
        assert all(alive(pid) for pid in pids)
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == ExitCode.OK, running.log.read_text()
    assert not [pid for pid in pids if alive(pid)]
    assert running.note() is None
    log = running.log.read_text()
    assert "Traceback" not in log
    assert "event=state from=running to=draining calls=0" in log


async def test_a_stranger_gets_silence_and_is_counted(tmp_path: Path) -> None:
    port = ports.free_port()
    path = configure(tmp_path, sip=port, extra='allow_from = ["127.0.0.9"]')
    text = path.read_text().replace('peers = ["udp:127.0.0.1:', 'peers = ["udp:127.0.0.8:')
    path.write_text(text)
    async with tandem(tmp_path, "--config", str(path)) as running:
        note = await running.up()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.setblocking(False)
            mine = f"127.0.0.1:{stranger.getsockname()[1]}"
            stranger.sendto(
                (
                    f"OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {mine};branch=z9hG4bKx\r\n"
                    f"Max-Forwards: 70\r\nFrom: <sip:a@{mine}>;tag=1\r\nTo: <sip:b@127.0.0.1>\r\n"
                    "Call-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
                ).encode(),
                ("127.0.0.1", port),
            )
            for _ in range(100):
                if "tandem_sip_strangers_total 1.0" in (await get(note, "/metrics"))[1].splitlines():
                    break
                await asyncio.sleep(0.05)
            else:
                pytest.fail("the stranger was not counted")
            with pytest.raises(BlockingIOError):
                stranger.recv(2000)


async def test_a_gateway_killed_is_followed_by_one_that_adopts_its_engine(tmp_path: Path) -> None:
    path = configure(tmp_path)
    async with tandem(tmp_path, "--config", str(path)) as first:
        await first.up()
        pids = engine_pids(tmp_path)
        first.process.kill()
        await first.ended()
    assert all(alive(pid) for pid in pids)
    async with tandem(tmp_path, "--config", str(path)) as second:
        note = await second.up()
        assert engine_pids(tmp_path) == pids
        assert (await get(note, "/readyz"))[0] == 200
    assert second.process.returncode == ExitCode.OK
    assert not [pid for pid in pids if alive(pid)]


@pytest.mark.parametrize("taken", ["sip", "http"])
async def test_a_taken_port_is_75_and_leaves_nothing(
    tmp_path: Path, free_port: Callable[[], int], taken: str
) -> None:
    port = free_port()
    kind = socket.SOCK_DGRAM if taken == "sip" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", port))
        if taken == "http":
            holder.listen()
        path = configure(tmp_path, sip=port) if taken == "sip" else configure(tmp_path, http=port)
        async with tandem(tmp_path, "--config", str(path)) as running:
            assert await running.ended() == ExitCode.TAKEN, running.log.read_text()
    log = running.log.read_text()
    assert "Traceback" not in log
    assert f"event=not_started exit=75 part={taken}" in log
    assert not (tmp_path / "state" / "media" / "engine.json").exists()


async def test_two_on_one_state_directory_and_wrong_files_have_their_codes(tmp_path: Path) -> None:
    path = configure(tmp_path)
    async with tandem(tmp_path, "--config", str(path)) as first:
        await first.up()
        async with tandem(tmp_path, "--config", str(path)) as second:
            assert await second.ended() == ExitCode.TAKEN
        (tmp_path / "bad.toml").write_text("[sip]\nlistne = 1\n")
        async with tandem(tmp_path, "--config", str(tmp_path / "bad.toml")) as third:
            assert await third.ended() == ExitCode.CONFIG
        assert "bad.toml:2: unknown key 'listne' in [sip] (did you mean 'listen'?)" in third.log.read_text()
