"""The session's rtpengine, a PKI, and a house to call in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from media.engine import Engine
from tests.calls.house import House, open_house
from tests.media.conftest import engine, engine_settings
from tests.peers.certs import Pki, make_pki

__all__ = ["engine", "engine_settings"]

OpenHouse = Callable[..., contextlib.AbstractAsyncContextManager[House]]


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def house(engine: Engine, pki: Pki, tmp_path: Path) -> OpenHouse:
    """`async with house(...)`: a gateway between its two stand-ins."""

    def opened(**options: object) -> contextlib.AbstractAsyncContextManager[House]:
        return open_house(engine, pki, tmp_path, **options)  # type: ignore[arg-type]

    return opened
