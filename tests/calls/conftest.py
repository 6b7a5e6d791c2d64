"""The session's rtpengine, a PKI, and a house to call in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from media.engine import Engine
from media.pool import RoomPool, RoomSettings
from tests.calls.house import House, open_house, tone_file
from tests.media.conftest import engine, engine_settings
from tests.peers.certs import Pki, make_pki
from tests.peers.sipwire import parse
from tests.peers.teams import CAPTURE
from tests.peers.teams_rules import ADDRESS, HEADERS

__all__ = ["engine", "engine_settings"]

OpenHouse = Callable[..., contextlib.AbstractAsyncContextManager[House]]


@pytest.fixture(scope="session", autouse=True)
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that any Teams stand-in got in this room, judged once more at the very end.

    The stand-in's own rules are switched off here and there (`strict`); these few hold always (T1, T5).
    """
    file = tmp_path_factory.mktemp("capture") / "teams.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CAPTURE, str(file))
        yield file
    broken = []
    for line in file.read_text().splitlines() if file.exists() else ():
        message = parse(json.loads(line)["text"].encode())
        if not message.is_request:  # what Teams put there comes back as it was
            message.headers = [(n, v) for n, v in message.headers if n.lower() != "record-route"]
        broken += [f"unknown header {name}" for name in message.names() - HEADERS]
        for name in ("Contact", "Record-Route", "From", "To"):
            broken += [f"{name}: {value}" for value in message.all(name) if ADDRESS.search(value)]
    assert broken == [], "the gateway told Teams: " + "; ".join(broken[:20])


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def rooms(tmp_path: Path) -> AsyncIterator[RoomPool]:
    """A pool with one warm room that plays the house's hold music."""
    pool = RoomPool(RoomSettings(music=tone_file(tmp_path / "room.wav")), size_warm=1, capacity=32)
    await pool.start()
    yield pool
    assert not pool.rooms, "a conference was left open"
    await pool.close()


@pytest.fixture
def house(engine: Engine, pki: Pki, tmp_path: Path) -> OpenHouse:
    """`async with house(...)`: a gateway between its two stand-ins."""

    def opened(**options: object) -> contextlib.AbstractAsyncContextManager[House]:
        return open_house(engine, pki, tmp_path, **options)  # type: ignore[arg-type]

    return opened
