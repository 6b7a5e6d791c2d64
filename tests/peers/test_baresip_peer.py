"""baresip against the contact-center stand-in: both directions, plain and with TLS and SRTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.peers.baresip import Baresip, available
from tests.peers.certs import make_pki
from tests.peers.contact_center import ContactCenter
from tests.peers.tone import hears

pytestmark = pytest.mark.skipif(not available(), reason="baresip-core is not installed")


@pytest.mark.parametrize("secure", [False, True])
async def test_baresip_is_called_and_calls(secure: bool, tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki") if secure else None
    async with (
        Baresip(tmp_path / "baresip", transport="tls" if secure else "udp", srtp=secure, pki=pki) as phone,
        ContactCenter(gateway=phone.address, kind="TLS" if secure else "UDP", pki=pki, srtp=secure) as center,
    ):
        call = await center.call(phone.user)
        await call.answered()
        assert call.remote is not None
        assert call.remote.profile == ("RTP/SAVP" if secure else "RTP/AVP")
        await call.rtp.hears(500)
        await asyncio.sleep(0.5)
        await call.bye()
        await phone.expect("CALL_CLOSED")
        assert hears((await phone.heard())[-3000:], 440)
        await phone.dial("+4930555", ("127.0.0.1", center.tls_port if secure else center.port))
        other = await center.expect_call()
        await other.answer()
        await other.rtp.hears(500)
        await phone.hang_up()
        await other.expect_end()
