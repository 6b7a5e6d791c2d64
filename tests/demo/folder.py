"""The demo's folder: made anew at each start, and never somebody else's."""

from __future__ import annotations

import shutil
from pathlib import Path

from gateway.state_dir import read_note
from media.engine import Engine, EngineSettings
from tests.demo.failure import DemoFailed

MARK = ".tandem-demo"
"""A folder without this file was not made by a demo and is never removed."""


async def make(wanted: Path, *, keep: bool) -> Path:
    """An empty folder, absolute: `wanted`, or with `keep` and something there `wanted`-2, -3 ...

    DemoFailed when `wanted` holds something that no demo made, or when a demo runs there now.
    """
    folder = _choose(wanted, keep=keep)
    await stop_engine(folder / "state")
    _renew(folder)
    return folder


def _choose(wanted: Path, *, keep: bool) -> Path:
    folder, number = wanted.absolute(), 1
    while keep and folder.exists():
        number += 1
        folder = wanted.absolute().with_name(f"{wanted.name}-{number}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / MARK).is_file():
            raise DemoFailed(f"{folder} holds something that no demo made; remove it or use --output")
        if read_note(folder / "state") is not None:
            raise DemoFailed(f"a demo runs in {folder} now; use --output for a second one")
    return folder


def _renew(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / MARK).touch()
        (folder / "speech").mkdir()
    except OSError as error:
        raise DemoFailed(f"cannot write {folder}: {error.strerror}") from error


async def stop_engine(state: Path) -> None:
    """End the rtpengine and Redis that a killed gateway has left running on this state directory."""
    await Engine(EngineSettings("embedded", "127.0.0.1", (0, 0), state / "media")).stop()
