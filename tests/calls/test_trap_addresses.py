"""No address of the inner network gets out to a Direct Routing peer (T1), with NAT in between.

rtpengine listens on 127.0.0.1 and says 203.0.113.10, as configured; everything that Teams receives is
searched byte for byte for any other address and for this machine's name.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from media.engine import Engine, EngineSettings
from tests.calls.conversation import both_hear, from_teams, to_teams
from tests.calls.house import CUSTOMER, EXPERT, FQDN, House, open_house
from tests.peers.certs import Pki
from tests.peers.contact_center import ContactCenter
from tests.peers.rtp import RtpPeer
from tests.peers.teams import Teams
from tests.peers.teams_shapes import Shape
from tests.support import ports

PUBLIC = "203.0.113.10"
INNER = "10.11.12.13"
"""Put into everything that the contact center says about itself."""
ADDRESS = re.compile(rb"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])|\blocalhost\b|::1")


class BehindNat(RtpPeer):
    """The public address leads to the loopback."""

    def follow(self, sdp: bytes) -> None:
        super().follow(sdp.replace(PUBLIC.encode(), b"127.0.0.1"))


@pytest.fixture
async def natted(tmp_path: Path) -> AsyncIterator[Engine]:
    settings = EngineSettings(
        "embedded", PUBLIC, ports.free_udp_range(64), tmp_path / "engine", bind="127.0.0.1"
    )
    engine = Engine(settings)
    await engine.start()
    yield engine
    await engine.stop()


def leaks(h: House) -> list[bytes]:
    """Every line that Teams got from us with an address or name that configuration does not name."""
    found = []
    for record in h.teams.ua.log.records:
        if not record.received:
            continue
        for line in record.raw.split(b"\r\n"):
            theirs = not record.message.is_request and line[:4].upper() == b"VIA:"  # repeated as it came
            foreign = [hit for hit in ADDRESS.findall(line) if hit != PUBLIC.encode()]
            if (foreign and not theirs) or socket.gethostname().encode() in line:
                found.append(line)
    return found


async def test_t01_no_inner_address_gets_out_whatever_happens_in_a_call(
    natted: Engine, pki: Pki, tmp_path: Path
) -> None:
    center, teams = ContactCenter(), Teams(pki, media_addresses=[PUBLIC])
    center.media = teams.media = BehindNat
    inner = [
        ("P-Asserted-Identity", f'"Inner" <sip:{CUSTOMER}@{INNER}>'),
        (
            "History-Info",
            f"<sip:+4930111@{INNER}:5060?Reason=SIP%3Bcause%3D302%3Btext%3D%22{INNER}%22>;index=1",
        ),
        ("Diversion", f"<sip:+4930111@{INNER}>;reason=unconditional"),
        ("Subject", INNER),
        ("Call-Info", f"<http://{INNER}/x>;purpose=info"),
        ("User-Agent", f"PBX/1 {INNER}"),
        ("X-Inner", INNER),
    ]
    async with open_house(natted, pki, tmp_path, center=center, teams=teams) as h:
        # a call to Teams with every kind of change, transferred, hung up by the contact center
        agent, expert = await to_teams(h, headers=inner, display=f'"{INNER}" ')
        await expert.hold()
        await expert.resume(new_key=True)
        await both_hear(agent, expert)
        await agent.hold()
        await agent.resume()
        referral = await expert.refer()
        colleague = await h.teams.expect_invite()
        colleague.ring()
        await colleague.answer()
        await referral.finished()
        await expert.hang_up()
        await both_hear(agent, colleague)
        await agent.bye([("Reason", f'Q.850;cause=16;text="by {INNER}"')])
        await colleague.expect_end()
        # withheld
        private = [("Privacy", "id"), ("P-Asserted-Identity", f"<sip:{CUSTOMER}@{INNER}>")]
        agent = await h.center.call(EXPERT, caller="anonymous", headers=private)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        await agent.cancel([("Reason", f'SIP;cause=487;text="{INNER}"')])
        await expert.expect_end()
        # from Teams: answered, refused in words, refused by us
        agent, expert = await from_teams(h)
        assert expert.remote is not None
        assert expert.remote.address == PUBLIC
        await agent.bye()
        await expert.expect_end()
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        words = [("Warning", f'399 {INNER} "no {INNER}"'), ("Reason", f'Q.850;cause=17;text="{INNER}"')]
        await agent.reject(486, f"Busy at {INNER}", words)
        assert (await expert.outcome()).code == 486
        expert = await h.teams.invite(CUSTOMER, shape=Shape(crypto="none", profile="RTP/AVP"))
        assert (await expert.outcome()).code == 488
        assert (await h.teams.options()).code == 200
        h.gateway.drain()
        assert (await h.teams.options()).code == 503
        assert leaks(h) == []
        said = b"".join(record.raw for record in h.teams.ua.log.records if record.received)
        assert said.count(PUBLIC.encode()) > 5
        assert FQDN.encode() in said
