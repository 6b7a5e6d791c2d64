"""`tandem calls` and `tandem call …` against a gateway with real calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from gateway.api.control_routes import control_operations
from gateway.call_verbs import VERBS
from gateway.calls.control import CallControl
from gateway.command_calls import find_call, find_leg, overview
from gateway.exit_codes import ExitCode
from gateway.local_api import Refused
from gateway.state_dir import Note, StateDir
from media.pool import RoomPool
from tests.api.site import open_site
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House
from tests.calls.matrix import THIRD, TONES, everybody, two

ANNA = f'[[agent]]\nlogin = "anna"\nnumbers = ["{CUSTOMER}"]\n'


@dataclass
class Shell:
    """A shell on the gateway's machine: `await shell("calls")` gives exit code, output and complaints."""

    house: House
    config: Path
    capture: pytest.CaptureFixture[str]

    async def __call__(self, line: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, [*line.split(), "--config", str(self.config)])
        out, complaint = self.capture.readouterr()
        return code, out, complaint

    async def good(self, line: str) -> str:
        code, out, complaint = await self(line)
        assert (code, complaint) == (ExitCode.OK, ""), line
        return out

    async def bad(self, line: str, code: ExitCode = ExitCode.REFUSED) -> str:
        got, out, complaint = await self(line)
        assert (got, out) == (code, ""), complaint
        assert complaint.startswith("tandem: ")
        return complaint


@pytest.fixture
def shell(
    house: OpenHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., contextlib.AbstractAsyncContextManager[Shell]]:
    @contextlib.asynccontextmanager
    async def opened(rooms: RoomPool | None = None) -> AsyncIterator[Shell]:
        async with house(center_extra='party = "agent"', extra=ANNA, rooms=rooms) as h:
            control = CallControl(h.gateway.context, h.gateway.calls)
            async with open_site(*control_operations(control)) as site:
                state = StateDir(h.config.gateway.state_dir)
                note = Note(state.path, lambda: site.api.address)
                note.token = "t0ken"
                await state.start()
                await note.start()
                yield Shell(h, tmp_path / "tandem.toml", capsys)
                await note.stop()
                await state.stop()

    return opened


async def test_a_conference_from_the_shell(shell: Any, rooms: RoomPool) -> None:
    async with shell(rooms) as sh:
        assert await sh.good("calls") == "no calls\n"
        stage, agent, expert = await two(sh.house)
        head, line = (await sh.good("calls")).splitlines()
        assert head.startswith("CALL ")
        short, state, _, caller, called, parties = line.split()
        assert (state, caller, called, parties) == ("up", CUSTOMER, EXPERT, "2")
        assert len(short) == 8

        assert "holds" in await sh.good(f"call hold {short} anna")
        assert "on hold" in await sh.good("calls")
        await stage.hear({"agent": set(), "expert": {"music"}})
        assert "holds" not in await sh.good(f"call resume {short} caller")
        assert "muted" in await sh.good(f"call mute {short} {EXPERT}")
        assert "muted" not in await sh.good(f"call unmute {short} {EXPERT}")
        assert await sh.good(f"call digits {short} callee 12#") == "done\n"
        assert short in await sh.good(f"call stage {short} queue")
        assert "music        alone" in await sh.good(f"call music {short} alone")

        out = await sh.good(f"call consult {short} anna {THIRD}")
        assert f"consultation of {short}" in out
        third = await sh.house.teams.expect_invite(tone=TONES["third"])
        await third.answer()
        stage.add("third", third)
        await stage.hear({"agent": {"third"}, "third": {"agent"}})
        assert f"{short}  up" in await sh.good("calls")
        assert "conference" in await sh.good(f"call merge {short}")
        await stage.hear(everybody("agent", "expert", "third"))
        shown = json.loads(await sh.good(f"call show {short} --json"))
        assert {one["number"] for one in shown["legs"]} == {CUSTOMER, EXPERT, THIRD}
        assert "on hold" in await sh.good(f"call hold {short} {THIRD} --by anna")
        assert await sh.good(f"call remove {short} {THIRD}") == "done\n"
        await third.expect_end()
        assert json.loads(await sh.good(f"call hangup {short} --json")) is None
        await asyncio.gather(agent.expect_end(), expert.expect_end())


async def test_placing_and_what_is_refused(shell: Any) -> None:
    async with shell() as sh:
        out = await sh.good(f"call place anna {EXPERT}")
        short = out.split()[1][:8]
        agent = await sh.house.center.expect_call()
        assert "there is no party otto" in await sh.bad(f"call mute {short} otto")
        assert "not in the conversation" in await sh.bad(f"call mute {short} anna")
        assert "there is no call beef" in await sh.bad("call show beef")
        assert "does not ring yet" in await sh.bad(f"call answer {short} anna")
        assert "there is no trunk moon" in await sh.bad(f"call place anna {EXPERT} --trunk moon")
        assert "no consultation" in await sh.bad(f"call back {short}")
        assert "body.digits" in await sh.bad(f"call digits {short} anna 1x")
        assert await sh.good(f"call hangup {short} anna") == "done\n"
        await agent.expect_end()
        sh.house.gateway.drain()
        assert "no new call" in await sh.bad(f"call place anna {EXPERT}", ExitCode.UNAVAILABLE)
    assert "no gateway runs" in await sh.bad("calls", ExitCode.UNAVAILABLE)
    sh.config.write_text("nonsense")
    await sh.bad("calls", ExitCode.CONFIG)


@pytest.mark.parametrize("line", ["call", "call fly", "call show", "call music x loud", "calls --speed"])
def test_wrong_usage(line: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == ExitCode.USAGE


LEGS = [
    {"id": "ab1", "number": "+49", "login": "anna", "role": "caller"},
    {"id": "ab2", "number": "+1", "login": "", "role": "participant"},
    {"id": "cd3", "number": "+1", "login": "", "role": "participant"},
]


@pytest.mark.parametrize(
    ("text", "wanted"), [("ab1", "ab1"), ("CD", "cd3"), ("anna", "ab1"), ("caller", "ab1"), ("+49", "ab1")]
)
def test_a_party_is_found_by_what_people_call_it(text: str, wanted: str) -> None:
    assert find_leg({"legs": LEGS}, text) == wanted


@pytest.mark.parametrize("text", ["ab", "+1", "participant", "otto"])
def test_what_could_be_two_parties_is_never_guessed(text: str) -> None:
    with pytest.raises(Refused):
        find_leg({"legs": LEGS}, text)


def test_what_could_be_two_calls_is_never_guessed() -> None:
    found = [{"id": "ab1"}, {"id": "ab2"}]
    assert find_call(found, "ab2") is found[1]
    for text in ("ab", "", "x"):
        with pytest.raises(Refused):
            find_call(found, text)
    assert overview([]) == "no calls"


def test_every_verb_is_an_operation_of_the_api() -> None:
    """The command line has no words of its own: each verb is one documented request."""
    operations = {(one.method, one.path) for one in control_operations(None)}  # type: ignore[arg-type]
    for verb in VERBS:
        assert (verb.method, "/api/v1/calls" + verb.path) in operations, verb.name
