"""Where the gateway listens: UDP alone without any certificate, and IPv6 beside IPv4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from gateway.calls.context import Sounds
from gateway.cdr.journal import Journal
from gateway.config import load
from gateway.telephony import Telephony
from media import music
from media.engine import Engine
from media.patchbay import PatchBay
from tests.calls.house import until
from tests.peers.contact_center import ContactCenter
from tests.peers.rtp import RtpPeer
from tests.peers.sipwire import WireMessage, address, parse
from tests.support import ports

NUMBER = "+4930333"


@contextlib.asynccontextmanager
async def udp_gateway(
    engine: Engine, folder: Path, callee: ContactCenter, caller: str, listen: list[str]
) -> AsyncIterator[Telephony]:
    """A gateway between two plain trunks; `caller`: lines of the trunk that calls come from."""
    quoted = ", ".join(f'"{one}"' for one in listen)
    low, high = engine.settings.ports
    (folder / "tandem.toml").write_text(
        f"""
[gateway]
fqdn = "sbc.example.test"
state_dir = "{folder}"
[sip]
listen = [{quoted}]
[media]
address = "127.0.0.1"
ports = [{low}, {high}]
[limits]
min_free_disk = 1
[[trunk]]
name = "caller"
{caller}
[[trunk]]
name = "callee"
peers = ["{callee.peer}"]
[[route]]
from = "caller"
to = "callee"
"""
    )
    config = load(folder / "tandem.toml")
    journal = Journal(reserve_bytes=1 << 20, ballast_bytes=1 << 16)
    await journal.open(config.journal_dir)
    tone = await music.ringback(folder / "sounds")
    bay = PatchBay(engine.ng, "127.0.0.1", engine.options)
    gateway = Telephony(config, journal=journal, bay=bay, sounds=Sounds(tone, tone), rooms=None)
    await gateway.start()
    try:
        yield gateway
        await until(lambda: not gateway.calls.calls, "calls to end")
        await until(lambda: not any(gateway.agent.active.values()), "sessions to end")
        assert not bay.anchors
    finally:
        await gateway.stop()
        await journal.close()


async def test_udp_alone_without_certificates(engine: Engine, tmp_path: Path) -> None:
    port = ports.free_port()
    caller = ContactCenter(gateway=("127.0.0.1", port), number="+4930111")
    callee = ContactCenter(number=NUMBER, tone=700)
    async with caller, callee:
        trunk = f'peers = ["{caller.peer}"]\ntcp_switch = false'
        async with udp_gateway(engine, tmp_path, callee, trunk, [f"udp:127.0.0.1:{port}"]):
            call = await caller.call(NUMBER)
            other = await callee.expect_call()
            other.ring()
            await other.answer()
            await call.answered()
            await asyncio.gather(call.rtp.hears(700), other.rtp.hears(440))
            await call.bye()
            await other.expect_end()
            assert (await caller.options()).code == 200


class SixPeer(asyncio.DatagramProtocol):
    """A caller on ::1; only what one call needs."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[WireMessage] = asyncio.Queue()
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, source: tuple[object, ...]) -> None:
        self.messages.put_nowait(parse(data))

    def send(self, method: str, uri: str, number: int, *, tag: str = "", body: bytes = b"") -> None:
        assert self._transport is not None
        port = self._transport.get_extra_info("sockname")[1]
        to = f"<sip:{NUMBER}@[::1]>" + (f";tag={tag}" if tag else "")
        text = (
            f"{method} {uri} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP [::1]:{port};branch=z9hG4bK{method}{number};rport\r\n"
            f"From: <sip:+4930111@[::1]>;tag=six\r\nTo: {to}\r\n"
            f"Call-ID: six@[::1]\r\nCSeq: {number} {method}\r\n"
            f"Contact: <sip:+4930111@[::1]:{port}>\r\nMax-Forwards: 70\r\n"
            + ("Content-Type: application/sdp\r\n" if body else "")
            + f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._transport.sendto(text.encode() + body, ("::1", self.port))

    async def final(self) -> WireMessage:
        async with asyncio.timeout(10):
            while (message := await self.messages.get()).code < 200:
                continue
        return message


async def test_a_call_over_an_ipv6_listener(engine: Engine, tmp_path: Path) -> None:
    """Our Contact is in brackets, and the BYE that is sent to it arrives."""
    port = ports.free_port()
    loop = asyncio.get_running_loop()
    try:
        transport, six = await loop.create_datagram_endpoint(SixPeer, local_addr=("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    callee, rtp = ContactCenter(number=NUMBER), await RtpPeer.open(tone=700)
    trunk = 'peers = ["udp:127.0.0.9:5060"]\nallow_from = ["::1/128"]'
    listen = [f"udp:127.0.0.1:{port}", f"udp:[::1]:{port}"]
    try:
        async with callee, udp_gateway(engine, tmp_path, callee, trunk, listen):
            six.port = port
            six.send(
                "INVITE", f"sip:{NUMBER}@[::1]:{port}", 1, body=rtp.description("sendrecv", codecs=("PCMA",))
            )
            other = await callee.expect_call()
            await other.answer()
            answer = await six.final()
            assert answer.code == 200
            contact = address(answer.need("Contact")).uri
            assert f"@[::1]:{port}" in contact
            six.send("ACK", contact, 1, tag=answer.to_tag)
            six.send("BYE", contact, 2, tag=answer.to_tag)
            await other.expect_end()
            while answer.method != "BYE":
                answer = await six.final()
            assert answer.code == 200
    finally:
        transport.close()
        await rtp.close()
