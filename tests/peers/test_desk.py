"""The stand-ins as processes, as the demo and the bench run them."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import numpy as np

from tests.peers.tone import hears, sine
from tests.peers.voice import read_audio, write_wav


async def start(*words: str) -> tuple[Process, dict[str, object]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, stdin=PIPE, stdout=PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    ready = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    assert ready.startswith("READY "), ready
    return process, json.loads(ready.removeprefix("READY "))


async def finish(process: Process) -> list[str]:
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return out.decode().splitlines()


async def test_two_processes_talk_and_write_down_what_they_heard(tmp_path: Path) -> None:
    speech = np.concatenate([sine(500, 0.6), sine(0, 0.2), sine(600, 0.6)])
    write_wav(tmp_path / "speech.wav", speech)
    called, ready = await start(
        "tests.peers.contact_center",
        "--answer-after",
        "0.3",
        "--tone",
        "700",
        "--record",
        str(tmp_path / "b"),
    )
    caller, _ = await start(
        *("tests.peers.contact_center", "--gateway", f"127.0.0.1:{ready['port']}", "--ladder"),
        *("--speak", str(tmp_path / "speech.wav"), "--record", str(tmp_path / "a")),
        *(
            "--dial",
            "+4930555",
            "--hangup-after",
            "2",
            "--exit-when-idle",
            "--events",
            str(tmp_path / "events"),
        ),
    )
    said = await finish(caller)
    assert caller.returncode == 0
    assert any("--> UDP  INVITE sip:+4930555@" in line for line in said)
    called.terminate()
    answered = await finish(called)
    assert called.returncode == 0
    [result] = [json.loads(line.removeprefix("HEARD ")) for line in answered if line.startswith("HEARD ")]
    recording = read_audio(Path(result["file"]))
    assert hears(recording[:4000], 500)
    assert 1.5 < len(recording) / 8000 < 2.6
    assert hears(read_audio(tmp_path / "a" / "contact-center-1.wav")[:4000], 700)
    first = json.loads((tmp_path / "events").read_text().splitlines()[0])
    assert (first["method"], first["received"]) == ("INVITE", False)


async def test_teams_as_a_process_obeys_its_stdin(tmp_path: Path) -> None:
    teams, ready = await start("tests.peers.teams", "--pki", str(tmp_path / "pki"))
    assert isinstance(ready["peers"], list)
    assert ready["peers"][0].startswith("tls:sip.pstnhub.microsoft.com:")
    assert teams.stdin is not None
    teams.stdin.write(b"hold\nquit\n")
    said = await finish(teams)
    assert said[0].startswith("FAILED hold")
    assert teams.returncode == 0
