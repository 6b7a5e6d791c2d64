"""The session's rtpengine, a PKI, and a house to call in."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from media.engine import Engine
from media.pool import RoomPool, RoomSettings
from tests.calls.house import House, open_house, tone_file
from tests.media.conftest import engine, engine_settings
from tests.peers.certs import Pki, make_pki

__all__ = ["engine", "engine_settings"]

OpenHouse = Callable[..., contextlib.AbstractAsyncContextManager[House]]


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
