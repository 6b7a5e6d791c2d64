"""pjsua2 and Teams through the whole gateway, both directions, over UDP and TCP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from tests.calls.conftest import OpenHouse
from tests.calls.foreign import Foreign, begins_soon, heard_soon, listener
from tests.calls.house import EXPERT
from tests.peers.pjsua import Pjsua
from tests.peers.tone import hears

PHONE_HZ = 800.0


@pytest.mark.parametrize(("transport", "codec"), [("udp", "PCMA"), ("tcp", "G722")])
async def test_pjsua_calls_teams_and_is_called(
    house: OpenHouse, transport: Literal["udp", "tcp"], codec: str, tmp_path: Path
) -> None:
    """G.722 on one side and G.711 on the other is converted."""
    async with Pjsua(tmp_path / "pjsua", tone=PHONE_HZ, codecs=(codec,)) as phone:
        port = phone.port if transport == "udp" else phone.tcp_port
        async with house(center=Foreign(f"{transport}:127.0.0.1:{port}")) as h:
            phone.dial(EXPERT, listener(h, transport), transport)
            expert = await h.teams.expect_invite()
            expert.ring()
            begun = expert.rtp.now
            await expert.answer()
            await heard_soon(h, expert, PHONE_HZ, begun)
            await asyncio.sleep(0.5)
            phone.order("digits", digits="5")
            await expert.rtp.hears_digits("5")
            phone.hang_up()
            await expert.expect_end()
            over = expert.rtp.now
            await phone.expect("ended")
            first = phone.heard()
            begins_soon(h, first, 700, begun)
            assert hears(first[2400:4000], 700)
            assert not expert.rtp.heard(since=over + 0.05)

            expert = await h.teams.invite(phone.user)
            await expert.answered()
            begun = expert.rtp.now
            await heard_soon(h, expert, PHONE_HZ, begun)
            await asyncio.sleep(0.5)
            phone.order("hold")
            await expert.rtp.hears(1250)
            phone.order("resume")
            await expert.rtp.hears(PHONE_HZ)
            await expert.hang_up()
            ended = expert.rtp.now
            await phone.expect("ended")
            begins_soon(h, phone.heard(), 700, begun)
            await asyncio.sleep(0.1)
            assert not expert.rtp.heard(since=ended + 0.05)
