"""`tandem probe` as its user runs it, against a gateway process: what it prints, and its exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.__main__ import main
from tests.calls.house import EXPERT
from tests.calls.test_probe import echo
from tests.peers.certs import Pki
from tests.peers.teams_call import TeamsCall
from tests.restart.plant import ROOT, Plant, open_plant
from tests.support import ports

PROBE = f"""
[probe]
agent = "probe"
number = "{EXPERT}"
max_delay = 1500.0
max_loss = 50.0
min_mos = 1.1

[[agent]]
login = "probe"
numbers = ["+4930123699"]
"""


@contextlib.asynccontextmanager
async def answering(plant: Plant, act: Callable[[TeamsCall], None] | None) -> AsyncIterator[None]:
    """The test number answers one call and then does this; None: it only rings."""

    async def serve() -> None:
        call = await plant.teams.expect_invite()
        call.ring()
        if act is not None:
            await call.answer()
            act(call)
        await call.expect_end(30)

    serving = asyncio.create_task(serve())
    yield
    await serving


async def run(plant: Plant, *words: str) -> int:
    return await asyncio.to_thread(main, ["probe", *words, "--config", str(plant.config)])


async def as_a_user(plant: Plant, *words: str, text: str = "") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *words, "--config", str(plant.config)),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
    )
    out, _ = await process.communicate(text.encode())
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_figures_limits_and_every_failure_have_their_words_and_exit_codes(
    pki: Pki, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "correct horse battery"
    monkeypatch.setenv("RIGHT", password)
    monkeypatch.setenv("WRONG", "nonsense")
    async with open_plant(pki, tmp_path, center_extra='party = "agent"', extra=PROBE) as plant:
        added, _ = await as_a_user(plant, "account", "add", "probe", "--role", "agent", text=f"{password}\n")
        assert added == 0

        async with answering(plant, lambda call: echo(call.rtp)):
            code, out = await as_a_user(plant, "probe", "--json", "--seconds", "2.5")
        found = json.loads(out)
        assert (code, found["good"], found["error"]) == (0, True, ""), out
        assert found["mos"] > 1.1, "a loaded machine is late; what a MOS is made of is tested without one"

        async with answering(plant, lambda call: echo(call.rtp)):
            account = ("--sign-in", "--secret", "env:RIGHT")
            assert await run(plant, *account, "--seconds", "2.5", "--min-mos", "4.9", "--metrics") == 1
        said = capfd.readouterr()
        assert "tandem_probe_good 0" in said.out
        assert 'tandem_probe_failed{cause="call"} 0' in said.out
        assert "limit 4.9" in said.err

        async with answering(plant, lambda call: call.rtp.pause()):
            assert await run(plant, "--seconds", "2") == 1
        assert "MISSED    the reference signal was not heard" in capfd.readouterr().out

        async with answering(plant, None):
            assert await run(plant, "--timeout", "1", "--metrics") == 1
        said = capfd.readouterr()
        assert 'tandem_probe_failed{cause="call"} 1' in said.out
        assert "nobody answered within 1 s" in said.err

        nowhere = f"http://127.0.0.1:{ports.free_port(also_udp=False)}"
        for words, code, text in (
            (("--sign-in", "--secret", "env:WRONG"), 77, "login or password is wrong"),
            (("--secret", "env:WRONG"), 77, "does not take this token"),
            (("--agent", "nobody"), 65, "there is no agent nobody"),
            (("--trunk", "elsewhere"), 65, "there is no trunk elsewhere"),
            (("--url", nowhere, "--secret", "env:RIGHT"), 69, f"no gateway answers at {nowhere}"),
            (("--url", "here", "--secret", "env:RIGHT"), 69, "here is no address of a gateway"),
            (("--secret", "env:NOTHING"), 78, "environment variable NOTHING"),
        ):
            assert await run(plant, *words) == code, words
            said = capfd.readouterr()
            assert text in said.out + said.err, words
        with pytest.raises(SystemExit) as usage:
            await run(plant, "--seconds", "0")
        assert usage.value.code == 2
    assert await run(plant) == 69
    assert "no gateway runs" in capfd.readouterr().err
