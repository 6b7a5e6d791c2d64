"""SIPp calls SIPp, and the stand-in from each side, with RTP that is heard."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from tests.peers.contact_center import ContactCenter
from tests.peers.sipp import Sipp, available

pytestmark = pytest.mark.skipif(not available(), reason="sipp is not installed")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_sipp_calls_sipp(transport: Literal["udp", "tcp"], tmp_path: Path) -> None:
    async with Sipp(tmp_path / "uas", transport=transport, calls=6) as called:
        async with Sipp(
            tmp_path / "uac", gateway=called.address, transport=transport, calls=6, rate=20, hold=0.3
        ) as caller:
            counts = await caller.finished(60)
            assert (counts.successful, counts.all_good) == (6, True), counts
        assert (await called.finished(30)).successful == 6


async def test_sipp_speaks_to_the_stand_in(tmp_path: Path) -> None:
    async with (
        ContactCenter() as center,
        Sipp(tmp_path, gateway=("127.0.0.1", center.port), tone=900, hold=1.5) as caller,
    ):
        call = await center.expect_call()
        await call.answer()
        await call.rtp.hears(900)
        await call.expect_end()
        assert (await caller.finished(30)).all_good


async def test_sipp_echoes_the_stand_in(tmp_path: Path) -> None:
    async with Sipp(tmp_path, calls=1) as called, ContactCenter(gateway=called.address) as center:
        call = await center.call("+4930123456")
        await call.answered()
        await call.rtp.hears(440)
        await call.bye()
        assert (await called.finished(30)).successful == 1
