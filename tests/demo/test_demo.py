"""The demo as a whole, its end by Ctrl-C, its refusals; setting the machine up is not part of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from tests.demo.failure import DemoFailed
from tests.demo.folder import MARK, make
from tests.demo.processes import ROOT
from tests.demo.show import main
from tests.peers.tone import loudness
from tests.peers.voice import read_audio

HEARD = {
    f"{scene}-{side}-hears.wav"
    for scene in ("1-to-teams", "2-to-center", "3-hold")
    for side in ("contact-center", "teams")
}


def test_the_demo_is_heard_and_recorded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    code = main(["--output", str(folder)])
    said = capfd.readouterr().out
    assert code == 0, said
    assert {file.name for file in folder.glob("*-hears.wav")} == HEARD
    assert loudness(read_audio(folder / "3-hold-contact-center-hears.wav")) > -35
    lines = [line for file in (folder / "call-detail").iterdir() for line in file.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    assert [row["caller_trunk"] for row in rows] == ["contact-center", "teams", "contact-center"]
    assert {row["hold_time"] for row in rows} == {0}
    assert said.count("heard, clear") == 6
    assert "re-INVITE [SRTP inactive]" in said
    assert rows[0]["id"] in said


async def test_ctrl_c_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.demo", "--output", str(folder)), cwd=ROOT, stdout=PIPE, stderr=STDOUT
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"ACK ---" not in (line := await process.stdout.readline()):
            assert line, "the demo ended before a call was up"
        engine = json.loads((folder / "state" / "media" / "engine.json").read_text())
        process.send_signal(signal.SIGINT)
        rest = await process.stdout.read()
        assert await process.wait() == 130, rest.decode()
    running = _running()
    assert not {engine["redis"]["pid"], engine["rtpengine"]["pid"]} & running.keys()
    assert not [command for command in running.values() if str(folder) in command]


def _running() -> dict[int, str]:
    """Command lines by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
    return found


def test_a_gateway_that_does_not_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("espeak-ng", "ffmpeg"):
        found = next(Path(place) / name for place in os.get_exec_path() if (Path(place) / name).exists())
        (tools / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    assert main(["--output", str(tmp_path / "demo")]) == 1
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith("demo: failed: the gateway ended with exit code 69")
    assert "redis-server" in last


async def test_a_folder_that_no_demo_made_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DemoFailed, match="no demo made"):
        await make(tmp_path, keep=False)
    assert (tmp_path / "thesis.txt").exists()


async def test_an_earlier_demo_is_replaced_or_kept(tmp_path: Path) -> None:
    folder = await make(tmp_path / "demo", keep=False)
    (folder / "old.wav").touch()
    assert await make(tmp_path / "demo", keep=True) == tmp_path / "demo-2"
    assert (folder / "old.wav").exists()
    assert await make(tmp_path / "demo", keep=False) == folder
    assert not (folder / "old.wav").exists()
    assert (folder / MARK).exists()
