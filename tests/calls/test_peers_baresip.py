"""baresip (TLS, SRTP) and Teams through the whole gateway, both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.calls.conftest import OpenHouse
from tests.calls.foreign import Foreign, begins_soon, heard_soon, listener
from tests.calls.house import EXPERT
from tests.peers.baresip import Baresip, available
from tests.peers.certs import Pki
from tests.peers.tone import hears

pytestmark = pytest.mark.skipif(not available(), reason="baresip-core is not installed")
PHONE_HZ = 500.0


@pytest.fixture
async def phone(pki: Pki, tmp_path: Path) -> AsyncIterator[Baresip]:
    async with Baresip(tmp_path / "baresip", transport="tls", srtp=True, pki=pki, tone=PHONE_HZ) as phone:
        yield phone


async def test_baresip_calls_teams_and_is_called(house: OpenHouse, phone: Baresip) -> None:
    """TLS both ways with certificates on both sides; SRTP both ways, with keys of each leg's own."""
    center = Foreign(f"tls:127.0.0.1:{phone.address[1]}")
    async with house(center=center, center_extra="srtp = true") as h:
        await phone.dial(EXPERT, listener(h, "tls"))
        expert = await h.teams.expect_invite()
        expert.ring()
        begun = expert.rtp.now
        await expert.answer()
        await heard_soon(h, expert, PHONE_HZ, begun)
        await asyncio.sleep(0.5)
        await phone.hang_up()
        await expert.expect_end()
        over = expert.rtp.now
        await phone.expect("CALL_CLOSED")
        first = await phone.heard()
        begins_soon(h, first, 700, begun)
        assert hears(first[-1600:], 700)
        assert not expert.rtp.heard(since=over + 0.05)

        expert = await h.teams.invite(phone.user)
        await expert.answered()
        begun = expert.rtp.now
        await heard_soon(h, expert, PHONE_HZ, begun)
        await asyncio.sleep(0.5)
        await expert.hang_up()
        ended = expert.rtp.now
        await phone.expect("CALL_CLOSED")
        begins_soon(h, await phone.heard(), 700, begun)
        await asyncio.sleep(0.1)
        assert not expert.rtp.heard(since=ended + 0.05)
        await h.quiet()
        assert [row.disposition for row in h.rows()] == ["caller_terminated", "caller_terminated"]
