"""A browser's leg with a real rtpengine; aiortc is the browser."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import MediaRejected, SdpError
from gateway.model import LegId, new_leg_id
from gateway.sip.sdp import Codec
from gateway.sip.sdp_policy import MediaPolicy
from media import music
from media.patchbay import Anchor, PatchBay
from media.webrtc import WebRtcPhone, tone
from tests.calls.house import MUSIC_HZ, tone_file
from tests.media.conftest import PeerFactory
from tests.media.support import callee, caller
from tests.peers.rtp import RtpPeer
from tests.peers.tone import hears

BROWSER = MediaPolicy(webrtc=True)
BROWSER_HZ = 600.0
OPUS, DIGITS = 122, 123
"""Payload types of our offer."""


@pytest.fixture
async def phone() -> AsyncIterator[WebRtcPhone]:
    phone = WebRtcPhone(tone(BROWSER_HZ))
    yield phone
    await phone.close()


async def connect(
    bay: PatchBay, phone: WebRtcPhone, *, leg: LegId | None = None, event: int = 101, digits: bool = False
) -> Anchor:
    """The page takes our offer; `digits`: as browsers do, and aiortc does not, it takes telephone-event."""
    anchor, offer = await bay.offer_side(leg or new_leg_id(), BROWSER, [Codec.PCMA], event)
    answer = await phone.answer(offer.decode())
    if digits:
        answer = answer.replace(f"RTP/SAVPF {OPUS} 8\r", f"RTP/SAVPF {OPUS} 8 {DIGITS}\r")
    await anchor.accept_answer(answer.encode())
    await asyncio.wait_for(phone.connected.wait(), 10)
    return anchor


async def phone_hears(phone: WebRtcPhone, hz: float, within: float = 8.0) -> None:
    deadline = time.monotonic() + within
    while not hears(phone.pcm(time.monotonic() - 0.25), hz):
        assert time.monotonic() < deadline, f"the browser does not hear {hz} Hz"
        await asyncio.sleep(0.05)


async def both_hear(phone: WebRtcPhone, peer: RtpPeer) -> None:
    await asyncio.gather(phone_hears(phone, peer.tone), peer.hears(BROWSER_HZ, 8.0))


@pytest.mark.parametrize("srtp", [False, True])
@pytest.mark.parametrize("codec", ["PCMA", "PCMU", "G722"])
async def test_a_browser_talks_to_every_kind_of_leg(
    bay: PatchBay, peer: PeerFactory, phone: WebRtcPhone, srtp: bool, codec: str
) -> None:
    other = await peer(tone=440, srtp=srtp, codec=codec)
    anchor, leg = await connect(bay, phone), await caller(bay, other)
    await (bay.bridge(anchor, leg) if srtp else bay.bridge(leg, anchor))
    await both_hear(phone, other)
    assert other.undecodable == 0
    assert anchor.codec is Codec.PCMA


async def test_moving_to_another_partner_and_to_music_needs_nothing_of_the_browser(
    bay: PatchBay, peer: PeerFactory, phone: WebRtcPhone, tmp_path: Path
) -> None:
    song = await music.prepare(tone_file(tmp_path / "music.wav"), tmp_path)
    a, b = await peer(tone=440), await peer(tone=900, srtp=True)
    anchor, one, two = await connect(bay, phone), await caller(bay, a), await callee(bay, b)
    pc = phone.pc
    await bay.bridge(anchor, one)
    await both_hear(phone, a)
    await one.park()
    await bay.bridge(two, anchor)
    await both_hear(phone, b)
    await two.park()
    await anchor.park()
    await anchor.play(song)
    await phone_hears(phone, MUSIC_HZ)
    await anchor.stop_playing()
    await bay.bridge(anchor, one)
    await both_hear(phone, a)
    assert phone.pc is pc
    assert (await anchor.statistics()).packets_received > 0


async def test_a_reloaded_page_gets_a_new_leg_under_the_same_name(
    bay: PatchBay, peer: PeerFactory, phone: WebRtcPhone
) -> None:
    other = await peer(tone=440)
    leg = await caller(bay, other)
    first = await connect(bay, phone)
    await bay.bridge(first, leg)
    await both_hear(phone, other)
    await first.close()
    again = await connect(bay, phone, leg=first.leg)
    await bay.bridge(again, leg)
    phone.heard.clear()
    since = other.now
    await both_hear(phone, other)
    assert other.first_heard(BROWSER_HZ) is not None
    assert hears(other.pcm(max(since, other.now - 0.3)), BROWSER_HZ)


@pytest.mark.parametrize("event", [101, 96])
async def test_digits_are_renumbered_and_rescaled_both_ways(
    bay: PatchBay, peer: PeerFactory, phone: WebRtcPhone, monkeypatch: pytest.MonkeyPatch, event: int
) -> None:
    """Trap 8 of the media facts: between G.711 legs rtpengine would pass the wrong number on."""
    other = await peer(tone=440, telephone_event=event)
    leg = await caller(bay, other)
    anchor = await connect(bay, phone, digits=True)
    await bay.bridge(anchor, leg)
    await both_hear(phone, other)
    arrived = listen_for_events(phone, monkeypatch)
    await press(phone, 5)
    assert (await other.hears_digits("5"))[0].payload_type == event
    await other.press("7")
    await asyncio.wait_for(arrived.wait(), 5)
    await leg.send_digit("1")
    assert (await other.hears_digits("51"))[1].payload_type == event
    with pytest.raises(MediaRejected, match="browser"):
        await anchor.send_digit("1")


def listen_for_events(phone: WebRtcPhone, monkey: pytest.MonkeyPatch) -> asyncio.Event:
    """aiortc knows no telephone-event: look at what DTLS-SRTP hands up."""
    assert phone.pc is not None
    transport = phone.pc.getSenders()[0].transport
    arrived = asyncio.Event()

    async def look(data: bytes, arrival_time_ms: int) -> None:
        if data[1] & 0x7F == DIGITS:
            arrived.set()

    monkey.setattr(transport, "_handle_rtp_data", look)
    return arrived


async def press(phone: WebRtcPhone, code: int) -> None:
    """One digit of 160 ms as a browser sends it (RFC 4733), with a source of its own."""
    assert phone.pc is not None
    sender = phone.pc.getSenders()[0]
    ssrc, begin = sender._ssrc ^ 1, 480_000
    for number in range(8):
        ended = number >= 5
        elapsed = 960 * min(number + 1, 8)
        header = struct.pack(
            ">BBHLL", 0x80, DIGITS | (0x80 if number == 0 else 0), 30000 + number, begin, ssrc
        )
        await sender.transport._send_rtp(
            header + struct.pack(">BBH", code, (0x80 if ended else 0) | 10, elapsed)
        )
        await asyncio.sleep(0.02)


async def test_what_is_no_answer_to_our_offer_is_refused_and_nothing_is_left(
    bay: PatchBay, phone: WebRtcPhone
) -> None:
    anchor, offer = await bay.offer_side(new_leg_id(), BROWSER, [Codec.PCMA], 101)
    text = offer.decode()
    assert text.count("a=candidate") == 1
    assert "a=ice-lite\r\n" in text
    good = await phone.answer(text)
    for damaged, why in (
        (good.replace("a=rtcp-mux\r\n", ""), "rtcp-mux"),
        (good.replace("a=ice-pwd", "a=ice-x"), "ICE"),
        (good.replace("a=fingerprint", "a=finger"), "fingerprint"),
        (good.replace("a=setup:active", "a=setup:actpass"), "setup"),
        (good.replace(f"SAVPF {OPUS} 8", "SAVPF 0"), "Opus nor PCMA"),
        (good.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "DTLS"),
    ):
        with pytest.raises(SdpError, match=why):
            await anchor.accept_answer(damaged.encode())
    await anchor.accept_answer(good.encode())
    with pytest.raises(MediaRejected):
        await anchor.accept_answer(good.encode())
    await asyncio.wait_for(phone.connected.wait(), 10)


async def test_the_silence_of_a_page_that_is_away_means_nothing(bay: PatchBay, phone: WebRtcPhone) -> None:
    anchor = await connect(bay, phone)
    assert anchor.expects_media
    anchor.away = True  # type: ignore[attr-defined]
    assert not anchor.expects_media
    assert await bay.silent(0.0) == []
