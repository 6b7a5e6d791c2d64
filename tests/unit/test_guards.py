"""The guards of tests/conftest.py must themselves be able to fail a test."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]


def _outcome(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, body: str) -> pytest.RunResult:
    settings = [
        "asyncio_mode = auto",
        "asyncio_default_fixture_loop_scope = function",
        "filterwarnings = error",
    ]
    pytester.makeini("\n".join(["[pytest]", *settings]))
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text() + "\nleaks.PATIENCE = 0.2\n")
    pytester.makepyfile(body)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


LEAVERS = """
import asyncio, logging, socket, subprocess

async def test_task():
    test_task.kept = asyncio.create_task(asyncio.sleep(60))

def test_process():
    test_process.kept = subprocess.Popen(["sleep", "60"])

def test_socket():
    test_socket.kept = socket.create_server(("127.0.0.1", 0))

def test_traceback():
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("tandem.x").exception("event=oops")
"""


def test_each_guard_catches_what_is_left(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    result = _outcome(pytester, monkeypatch, LEAVERS)
    result.assert_outcomes(passed=4, errors=4)
    for complaint in (
        "*tasks left behind: <Task*",
        "*left behind: process*sleep 60*",
        "*left behind: socket tcp port*",
        "*exceptions in the log: tandem.x: event=oops*",
    ):
        result.stdout.fnmatch_lines([complaint])


def test_session_fixtures_may_hold_what_they_started(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
import socket, pytest

@pytest.fixture(scope="session")
def server():
    with socket.create_server(("127.0.0.1", 0)) as s:
        yield s

async def test_one(server): pass
def test_two(server): pass
"""
    assert _outcome(pytester, monkeypatch, body).ret == pytest.ExitCode.OK
