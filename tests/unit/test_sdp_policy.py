"""What a trunk's policy admits, what it refuses, and how the answer and our own descriptions look."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import SdpError
from gateway.sip.sdp import AudioDescription, Codec, Direction, MediaLine, parse_description
from gateway.sip.sdp_compose import Description, stamp_origin
from gateway.sip.sdp_policy import (
    MediaPolicy,
    admit_answer,
    admit_offer,
    answer_direction,
    codecs_to_offer,
    direct_routing_policy,
)

KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
PLAIN = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)
SECURE = (
    PLAIN.replace(b"RTP/AVP", b"RTP/SAVP")
    + f"a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31\r\n".encode()
)
TEAMS = direct_routing_policy()
OURS = Description("192.0.2.9", 30000, (Codec.PCMA, Codec.PCMU), 101, session_id=5, version=1)


def test_the_offerers_order_decides() -> None:
    selection = admit_offer(
        parse_description(PLAIN), MediaPolicy(codecs=(Codec.G722, Codec.PCMA, Codec.PCMU))
    )
    assert selection.codecs == (Codec.PCMU, Codec.PCMA)
    assert selection.codec is Codec.PCMU
    assert selection.telephone_event == 101
    assert selection.crypto is None


@pytest.mark.parametrize("policy", [TEAMS, MediaPolicy()])
def test_an_srtp_offer_is_taken_up(policy: MediaPolicy) -> None:
    crypto = admit_offer(parse_description(SECURE), policy).crypto
    assert crypto is not None
    assert crypto.tag == 4


@pytest.mark.parametrize(
    ("body", "policy", "word"),
    [
        (PLAIN, TEAMS, "SRTP is required"),
        (
            PLAIN + b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + KEY.encode() + b"\r\n",
            TEAMS,
            "SRTP is required",
        ),
        (
            PLAIN + b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + KEY.encode() + b"\r\n",
            MediaPolicy(),
            "RTP/AVP",
        ),
        (SECURE, MediaPolicy(accept_srtp=False), "not allowed"),
        (SECURE.partition(b"a=crypto")[0], TEAMS, "without a usable"),
        (SECURE.replace(b"SHA1_80", b"SHA1_32"), TEAMS, "AES_CM_128_HMAC_SHA1_80"),
        (SECURE.replace(KEY.encode(), b"c2hvcnQ="), TEAMS, "30 bytes"),
        (SECURE.replace(KEY.encode(), b"*" * 40), TEAMS, "30 bytes"),
        (PLAIN.replace(b"0 8 101", b"18 101"), MediaPolicy(), "no common codec"),
        (PLAIN, MediaPolicy(codecs=(Codec.G722,)), "no common codec"),
        (PLAIN.replace(b"IP4 192.0.2.1", b"IP6 2001:db8::1"), MediaPolicy(), "IPv6"),
        (PLAIN, MediaPolicy(ipv6=True), "IPv4"),
        (PLAIN.replace(b"RTP/AVP", b"UDPTL"), MediaPolicy(), "profile"),
        (PLAIN.replace(b"RTP/AVP", b"TCP/RTP/AVP"), MediaPolicy(), "profile"),
    ],
)
def test_refusals(body: bytes, policy: MediaPolicy, word: str) -> None:
    with pytest.raises(SdpError) as refusal:
        admit_offer(parse_description(body), policy)
    assert refusal.value.code == 488
    assert word in refusal.value.text


def test_an_answer_has_to_fit_the_offer() -> None:
    offered = parse_description(OURS.text())
    assert admit_answer(parse_description(PLAIN), offered, MediaPolicy()).codec is Codec.PCMU
    with pytest.raises(SdpError, match="no common codec"):
        admit_answer(parse_description(PLAIN.replace(b"0 8 101", b"9")), offered, MediaPolicy())
    with pytest.raises(SdpError, match="profile"):
        admit_answer(parse_description(SECURE), offered, MediaPolicy())
    silent = parse_description(replace(OURS, telephone_event=None).text())
    assert admit_answer(parse_description(PLAIN), silent, MediaPolicy()).telephone_event is None


@pytest.mark.parametrize(
    ("offered", "mirrored", "teams"),
    [
        ("sendrecv", "sendrecv", "sendrecv"),
        ("sendonly", "recvonly", "inactive"),
        ("recvonly", "sendonly", "inactive"),
        ("inactive", "inactive", "inactive"),
    ],
)
def test_t20_direction_of_the_answer(offered: str, mirrored: str, teams: str) -> None:
    """RFC 3264 6.1; a Direct Routing peer hears of sendrecv and inactive only."""
    offer = replace(parse_description(PLAIN), direction=Direction(offered))
    assert answer_direction(offer, MediaPolicy()) == mirrored
    assert answer_direction(offer, TEAMS) == teams


def test_the_other_partys_codecs_are_offered_first() -> None:
    policy = MediaPolicy(codecs=(Codec.PCMA, Codec.PCMU, Codec.G722))
    assert codecs_to_offer([Codec.G722], policy) == (Codec.G722, Codec.PCMA, Codec.PCMU)
    assert codecs_to_offer([Codec.PCMU, Codec.PCMA], policy) == (Codec.PCMU, Codec.PCMA, Codec.G722)
    assert codecs_to_offer([Codec.G722], MediaPolicy(codecs=(Codec.PCMA,))) == (Codec.PCMA,)


def test_our_description_is_minimal() -> None:
    text = replace(
        OURS, profile="RTP/SAVP", crypto=f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31", rtcp_mux=True
    )
    assert text.text().decode().split("\r\n") == [
        "v=0",
        "o=- 5 1 IN IP4 192.0.2.9",
        "s=-",
        "c=IN IP4 192.0.2.9",
        "t=0 0",
        "m=audio 30000 RTP/SAVP 8 0 101",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=sendrecv",
        f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31",
        "a=rtcp:30001",
        "a=rtcp-mux",
        "",
    ]


def test_what_we_write_we_read() -> None:
    read = parse_description(OURS.text())
    assert isinstance(read, AudioDescription)
    assert (read.address, read.port, read.telephone_event) == ("192.0.2.9", 30000, 101)
    assert read.codecs == ((8, Codec.PCMA), (0, Codec.PCMU))


def test_other_media_of_an_offer_is_refused_in_its_place() -> None:
    """RFC 3264 6: as many m-lines as the offer has, refused ones with port 0."""
    media = (
        MediaLine("video", 5, "RTP/AVP", "31"),
        MediaLine("audio", 7, "RTP/AVP", "8"),
        MediaLine("image", 9, "UDPTL", "t38"),
    )
    lines = [
        line
        for line in replace(OURS, media=media, index=1).text().decode().split("\r\n")
        if line.startswith("m=")
    ]
    assert lines == ["m=video 0 RTP/AVP 31", "m=audio 30000 RTP/AVP 8 0 101", "m=image 0 UDPTL t38"]


def test_t16_the_version_moves_with_the_text_and_only_then() -> None:
    again = replace(OURS, session_id=99, version=77)
    assert stamp_origin(again, None) == again
    assert stamp_origin(again, OURS) == OURS
    held = stamp_origin(replace(again, direction=Direction.INACTIVE), OURS)
    assert (held.session_id, held.version) == (5, 2)
    assert stamp_origin(replace(OURS, direction=Direction.SENDRECV), held).version == 3
