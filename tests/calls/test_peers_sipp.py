"""SIPp and Teams through the whole gateway, both directions, over UDP and TCP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from tests.calls.conftest import OpenHouse
from tests.calls.foreign import Foreign, heard_soon, listener
from tests.calls.house import CUSTOMER, EXPERT, House
from tests.peers.sipp import Sipp, available
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(not available(), reason="sipp is not installed")
both_kinds = pytest.mark.parametrize("kind", ["udp", "tcp"])
SIPP_HZ = 600.0


async def sent_to_sipp(h: House) -> int:
    """Packets that rtpengine has sent to SIPp, which cannot say what it hears."""
    [call] = h.gateway.calls.calls.values()
    [leg] = [leg for leg in call.legs.values() if leg.trunk.name == "center"]
    return (await leg.anchor.statistics()).packets_sent


@both_kinds
async def test_sipp_calls_teams(house: OpenHouse, kind: Literal["udp", "tcp"], tmp_path: Path) -> None:
    port = free_port()
    async with (
        house(center=Foreign(f"{kind}:127.0.0.1:{port}")) as h,
        Sipp(
            tmp_path / "sipp",
            gateway=listener(h, kind),
            transport=kind,
            called=EXPERT,
            hold=1.2,
            tone=SIPP_HZ,
            port=port,
        ) as caller,
    ):
        expert = await h.teams.expect_invite()
        expert.ring()
        begun = expert.rtp.now
        await expert.answer()
        await heard_soon(h, expert, SIPP_HZ, begun)
        before = await sent_to_sipp(h)
        await asyncio.sleep(0.4)
        assert await sent_to_sipp(h) - before > 10
        await expert.expect_end()
        ended = expert.rtp.now
        assert (await caller.finished(30)).all_good
        await asyncio.sleep(0.1)
        assert not expert.rtp.heard(since=ended + 0.05)


@both_kinds
async def test_teams_calls_sipp_and_hears_its_own_voice_back(
    house: OpenHouse, kind: Literal["udp", "tcp"], tmp_path: Path
) -> None:
    async with (
        Sipp(tmp_path / "sipp", transport=kind, calls=1) as called,
        house(center=Foreign(called.peer)) as h,
    ):
        expert = await h.teams.invite(CUSTOMER)
        await expert.ringing()
        await expert.answered()
        await heard_soon(h, expert, 700, expert.rtp.now)
        await expert.hang_up()
        ended = expert.rtp.now
        assert (await called.finished(30)).successful == 1
        await asyncio.sleep(0.1)
        assert not expert.rtp.heard(since=ended + 0.05)
