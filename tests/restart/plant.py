"""A gateway as a process of its own between the stand-ins of this one, to be restarted and killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.state_dir import RunningNote, read_note
from media.rtpengine import NgClient
from tests.calls.house import MUSIC_HZ, configuration, tone_file
from tests.peers.certs import Pki
from tests.peers.contact_center import ContactCenter
from tests.peers.rtp import RtpPeer
from tests.peers.teams import Teams
from tests.restart.nursery import Forked, Nursery
from tests.support import ports
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
UP_WITHIN = 40.0

__all__ = ["MUSIC_HZ", "Plant", "gap", "open_plant"]


@dataclass
class Plant:
    """The process and its peers; its output is in `log`.

    starts:  every process that was started, the present one last
    token:   of the one that was up last: its note is there until the next one has taken it away
    nursery: where `launch` has it from, None for an interpreter of its own
    """

    folder: Path
    config: Path
    center: ContactCenter
    teams: Teams
    starts: list[asyncio.subprocess.Process | Forked] = field(default_factory=list)
    nursery: Nursery | None = None
    token: str = ""

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def process(self) -> asyncio.subprocess.Process | Forked:
        return self.starts[-1]

    # ---- life ----

    async def start(self) -> None:
        """Start it and wait until it is up."""
        await self.launch()
        await self.up(self.token)

    async def launch(self) -> None:
        """Start it."""
        if self.nursery is not None:
            self.starts.append(await self.nursery.start(self.config, self.folder / "log"))
            return
        with (self.folder / "log").open("ab") as stream:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", "run", "--config", str(self.config)),
                stdout=stream,
                stderr=stream,
                cwd=ROOT,
            )
        self.starts.append(process)

    async def up(self, token: str) -> RunningNote:
        """Wait for the note of a gateway that is not the one with `token`."""

        def there() -> bool:
            note = read_note(self.state)
            return (note is not None and note.token != token) or self.process.returncode is not None

        await until(there, UP_WITHIN)
        note = read_note(self.state)
        assert note is not None, self.log[-4000:]
        self.token = note.token
        return note

    async def restart(self) -> None:
        """SIGHUP: it executes itself anew, in the same process."""
        before = read_note(self.state)
        assert before is not None
        self.process.send_signal(signal.SIGHUP)
        after = await self.up(before.token)
        assert after.pid == before.pid == self.process.pid

    async def kill(self) -> None:
        """kill -9; rtpengine and the rooms are left as they are."""
        self.process.kill()
        await self.process.wait()

    async def kill_and_start(self) -> None:
        await self.kill()
        await self.start()

    async def end(self) -> None:
        """SIGTERM, and with calls still up (a test has failed) a second one, which does not wait for them."""
        for patience in (5, 30):
            if self.process.returncode is None:
                self.process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.process.wait(), patience)

    def engine(self) -> dict[str, Any]:
        """What the gateway wrote down of its rtpengine."""
        record: dict[str, Any] = json.loads((self.state / "media" / "engine.json").read_text())
        return record

    def kill_engine(self, *names: str) -> None:
        """kill -9 of rtpengine, or of what is named (redis, rtpengine)."""
        record = self.engine()
        for name in names or ("rtpengine",):
            os.kill(record[name]["pid"], signal.SIGKILL)

    # ---- what it says ----

    def rows(self) -> list[dict[str, Any]]:
        """Call detail, oldest first; a row that was delivered twice over a crash counts once."""
        files = sorted((self.folder / "rows").glob("*"))
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return list({row["id"]: row for row in lines}.values())

    async def all_rows(self, count: int) -> list[dict[str, Any]]:
        """Wait for that many."""
        await until(lambda: len(self.rows()) >= count, 20)
        return self.rows()

    async def metric(self, name: str) -> float:
        note = read_note(self.state)
        assert note is not None
        url = f"http://{note.host}:{note.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            text = await response.text()
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[-1])

    async def quiet(self, within: float = 60.0) -> None:
        """No call is left, nor anything of one. AssertionError that says what is."""
        ng = NgClient()
        await ng.connect(("127.0.0.1", self.engine()["ng_port"]))
        deadline = asyncio.get_running_loop().time() + within
        try:
            while left := await self._left(ng):
                assert asyncio.get_running_loop().time() < deadline, f"left over: {left}"
                await asyncio.sleep(0.05)
        finally:
            ng.close()
            await asyncio.sleep(0)

    async def _left(self, ng: NgClient) -> list[str]:
        calls = await self.metric("tandem_calls")
        files = [file.name for file in (self.state / "calls").iterdir()]
        legs = [f"rtpengine {leg}" for leg in (await ng.command("list"))["calls"]]
        return [*([f"{calls:.0f} calls"] if calls else []), *files, *legs]


def gap(rtp: RtpPeer, since: float) -> float:
    """The longest time without an audio packet since then, until now."""
    times = [since, *(packet.at for packet in rtp.heard(since)), rtp.now]
    return max(later - sooner for sooner, later in itertools.pairwise(times))


@contextlib.asynccontextmanager
async def open_plant(
    pki: Pki,
    folder: Path,
    *,
    center_extra: str = "",
    teams_extra: str = "",
    database: str = "",
    extra: str = "",
    seats: int = 64,
) -> AsyncIterator[Plant]:
    """Start the gateway and its peers; at the end no call, and nothing of one, may be left."""
    media = ports.free_udp_range(seats * 4)
    plain, secure = ports.free_port(), ports.free_port()
    center = ContactCenter(gateway=("127.0.0.1", plain))
    teams = Teams(pki, media_addresses=["127.0.0.1"], gateway=("127.0.0.1", secure))
    async with center, teams:
        (folder / "state").mkdir()
        config = folder / "tandem.toml"
        text = configuration(
            state=folder / "state",
            pki=pki,
            center=center,
            teams=teams,
            listen=[f"udp:127.0.0.1:{plain}", f"tcp:127.0.0.1:{plain}", f"tls:127.0.0.1:{secure}"],
            media_ports=media,
            center_extra=center_extra,
            teams_extra=teams_extra,
            database=database,
            media_extra=f'music = "{tone_file(folder / "music.wav")}"',
            extra=f'[http]\nlisten = "127.0.0.1:0"\n[cdr]\njson_lines = "{folder / "rows"}"\n{extra}',
        )
        config.write_text(text)
        plant = Plant(folder, config, center, teams)
        try:
            await plant.start()
            yield plant
            await plant.quiet()
        finally:
            await plant.end()
        assert plant.process.returncode == 0, plant.log[-4000:]
        assert "Traceback" not in plant.log, plant.log
