"""A real rtpengine for the session; each test adopts it with a gateway's own Engine and leaves it clean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from media.engine import Engine, EngineSettings
from media.patchbay import PatchBay
from tests.peers.rtp import RtpPeer
from tests.support import ports

PeerFactory = Callable[..., Awaitable[RtpPeer]]


@pytest.fixture(scope="session")
def engine_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineSettings]:
    """Settings of an rtpengine that runs as long as the session."""
    settings = EngineSettings(
        "embedded",
        "127.0.0.1",
        ports.free_udp_range(400),
        tmp_path_factory.mktemp("engine"),
        ping_interval=0.2,
    )
    engine = Engine(settings)

    async def begin() -> None:
        await engine.start()
        await engine.detach()

    asyncio.run(begin())
    yield settings
    asyncio.run(Engine(settings).stop())


@pytest.fixture
async def engine(engine_settings: EngineSettings) -> AsyncIterator[Engine]:
    """The session's rtpengine, adopted; the test may kill it."""
    engine = Engine(engine_settings)
    await engine.start()
    yield engine
    await engine.detach()


@pytest.fixture
async def bay(engine: Engine) -> AsyncIterator[PatchBay]:
    """A patch bay that must have nothing left in rtpengine once its anchors are closed."""
    bay = PatchBay(engine.ng, "127.0.0.1", engine.options)
    yield bay
    for anchor in list(bay.anchors.values()):
        await anchor.close()
    left = (await engine.ng.command("list"))["calls"]
    assert left == [], "calls left in rtpengine"


@pytest.fixture
async def peer() -> AsyncIterator[PeerFactory]:
    """`await peer(tone=..., srtp=...)` for an RtpPeer that is closed with the test."""
    made: list[RtpPeer] = []

    async def make(**options: object) -> RtpPeer:
        made.append(await RtpPeer.open(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        await one.close()
