"""pjsua2 against the contact-center stand-in, both directions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from tests.peers.contact_center import ContactCenter
from tests.peers.pjsua import Pjsua
from tests.peers.tone import hears


@pytest.mark.parametrize(("transport", "codec"), [("udp", "PCMA"), ("tcp", "PCMU")])
async def test_pjsua_is_called_and_calls(
    transport: Literal["udp", "tcp"], codec: str, tmp_path: Path
) -> None:
    async with Pjsua(tmp_path, codecs=(codec,)) as phone:
        where = phone.address if transport == "udp" else ("127.0.0.1", phone.tcp_port)
        async with ContactCenter(
            gateway=where, kind="UDP" if transport == "udp" else "TCP", codecs=("PCMU", "PCMA")
        ) as center:
            call = await center.call(phone.user)
            await call.answered()
            await call.rtp.hears(800)
            await asyncio.sleep(0.5)
            await call.digits("7")
            assert (await phone.expect("digit"))["digit"] == "7"
            await call.bye()
            await phone.expect("ended")
            assert hears(phone.heard()[1000:4000], 440)
            phone.dial("+4930555", ("127.0.0.1", center.port), transport)
            other = await center.expect_call()
            assert other.connection.kind == transport.upper()
            await other.answer()
            await other.rtp.hears(800)
            phone.hang_up()
            await other.expect_end()
