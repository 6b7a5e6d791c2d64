"""Reading descriptions: what is taken, what is refused with which code; nothing but SdpError comes out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import SdpError
from gateway.sip.sdp import MAX_BODY, AudioDescription, Codec, Direction, parse_description, printable

KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
PLAIN = (
    "v=0\r\no=- 20518 7 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    "m=audio 49170 RTP/AVP 8 0 9 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
    "a=ptime:20\r\n"
)


def parse(text: str) -> AudioDescription:
    return parse_description(text.encode())


def outcome(body: bytes) -> AudioDescription | SdpError:
    try:
        return parse_description(body)
    except SdpError as refusal:
        return refusal


def test_a_plain_offer() -> None:
    audio = parse_description(PLAIN.encode())
    assert (audio.address, audio.port, audio.profile) == ("192.0.2.1", 49170, "RTP/AVP")
    assert audio.codecs == ((8, Codec.PCMA), (0, Codec.PCMU), (9, Codec.G722))
    assert (audio.telephone_event, audio.ptime) == (101, 20)
    assert (audio.session_id, audio.version) == ("20518", 7)
    assert audio.direction is Direction.SENDRECV
    assert not audio.held
    assert not audio.secure


def test_a_teams_offer_with_foreign_codecs_keeps_order_and_numbers() -> None:
    text = PLAIN.replace("RTP/AVP 8 0 9 101", "RTP/SAVP 18 112 111 9 0 104 103 97 118 8 13 101") + (
        "a=rtpmap:104 SILK/16000\r\na=rtpmap:111 SIREN/16000\r\na=rtpmap:13 CN/8000\r\n"
        f"a=crypto:0 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^31\r\n"
        f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31|1:1\r\n"
        "a=rtcp:49171\r\na=rtcp-mux\r\na=sendonly\r\n"
    )
    audio = parse_description(text.encode())
    assert [codec for _, codec in audio.codecs] == [Codec.G722, Codec.PCMU, Codec.PCMA]
    assert [line.tag for line in audio.crypto] == [0, 1]
    assert audio.crypto[1].lifetime == 2**31
    assert audio.crypto[1].mki == (1, 1)
    assert audio.crypto[1].key == KEY
    assert len(audio.crypto[1].key_bytes or b"") == 30
    assert audio.rtcp_mux
    assert audio.rtcp_port == 49171
    assert audio.secure
    assert audio.held


@pytest.mark.parametrize(
    ("form", "lifetime", "mki"),
    [
        ("", None, None),
        ("|2^48", 2**48, None),
        ("|1048576", 1048576, None),
        ("|1:4", None, (1, 4)),
        ("|2^20|99:128", 2**20, (99, 128)),
        (";inline:" + KEY + "|2^20", None, None),
    ],
)
def test_crypto_forms(form: str, lifetime: int | None, mki: tuple[int, int] | None) -> None:
    text = PLAIN + f"a=crypto:7 aes_cm_128_hmac_sha1_80 inline:{KEY}{form} KDR=1 UNENCRYPTED_SRTCP\r\n"
    [line] = parse_description(text.encode()).crypto
    assert (line.tag, line.suite, line.lifetime, line.mki) == (7, "AES_CM_128_HMAC_SHA1_80", lifetime, mki)
    assert line.session_params == "KDR=1 UNENCRYPTED_SRTCP"


@pytest.mark.parametrize(
    "value",
    ["", "1", "x AES inline:abc", "1 AES", "1 AES uri:abc", "1 AES inline:a|2^x", "1 AES inline:a|1:0"],
)
def test_a_crypto_line_that_cannot_be_read_is_passed_over(value: str) -> None:
    text = PLAIN + f"a=crypto:{value}\r\na=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n"
    assert [line.tag for line in parse_description(text.encode()).crypto] == [2]


@pytest.mark.parametrize(
    ("lines", "held", "direction"),
    [
        ("a=inactive", True, "inactive"),
        ("a=sendonly", True, "sendonly"),
        ("a=recvonly", False, "recvonly"),
        ("c=IN IP4 0.0.0.0", True, "sendrecv"),
        ("c=IN IP6 ::", True, "sendrecv"),
        ("a=sendrecv", False, "sendrecv"),
    ],
)
def test_hold_forms(lines: str, held: bool, direction: str) -> None:
    audio = parse_description((PLAIN + lines + "\r\n").encode())
    assert (audio.held, str(audio.direction)) == (held, direction)


def test_direction_of_the_session_counts_unless_the_media_says_otherwise() -> None:
    session = PLAIN.replace("t=0 0\r\n", "t=0 0\r\na=inactive\r\n")
    assert parse_description(session.encode()).held
    assert not parse_description((session + "a=sendrecv\r\n").encode()).held


def test_the_first_audio_line_with_a_port_is_taken_and_all_lines_are_known() -> None:
    text = PLAIN.replace("m=audio", "m=video 5 RTP/AVP 31\r\nm=audio 0 RTP/AVP 8\r\nm=audio")
    audio = parse_description(text.encode())
    assert (audio.port, audio.index) == (49170, 2)
    assert [(line.media, line.port) for line in audio.media] == [("video", 5), ("audio", 0), ("audio", 49170)]


@pytest.mark.parametrize(
    ("old", "new", "code", "word"),
    [
        (PLAIN, "", 400, "v=0"),
        (PLAIN, "\x00\xff garbage", 400, "not a line"),
        ("v=0", "v=1", 400, "v=0"),
        ("o=- 20518 7 IN IP4 192.0.2.1\r\n", "", 400, "o="),
        ("o=- 20518 7", "o=- 20518 x", 400, "o="),
        ("49170", "70000", 400, "port"),
        ("49170", "port", 400, "port"),
        ("m=audio 49170 RTP/AVP 8 0 9 101", "m=audio 49170", 400, "m="),
        ("8 0 9 101", "8 xx", 400, "payload"),
        ("8 0 9 101", "8 128", 400, "payload"),
        ("c=IN IP4 192.0.2.1\r\n", "", 400, "c="),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.256", 400, "address"),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 2001:db8::1", 400, "family"),
        ("c=IN IP4 192.0.2.1", "c=IN IP4", 400, "c="),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 sbc.example.test", 488, "host name"),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 224.2.1.1/127", 488, "multicast"),
        ("49170", "0", 488, "port 0"),
        ("m=audio", "m=image", 488, "no audio"),
    ],
)
def test_refusals_say_what_is_wrong(old: str, new: str, code: int, word: str) -> None:
    with pytest.raises(SdpError) as refusal:
        parse(PLAIN.replace(old, new, 1))
    assert refusal.value.code == code
    assert word in refusal.value.text
    assert refusal.value.text == printable(refusal.value.text, 1000)


def test_a_body_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(SdpError, match="64 KiB"):
        parse_description(PLAIN.encode() + b"a=x\r\n" * MAX_BODY)


def test_a_dynamic_number_with_a_static_codec_and_a_false_rtpmap_are_not_taken() -> None:
    text = PLAIN.replace("8 0 9 101", "96 8 0") + "a=rtpmap:96 PCMA/8000\r\na=rtpmap:8 G729/8000\r\n"
    assert parse_description(text.encode()).codecs == ((0, Codec.PCMU),)


_PIECES = st.sampled_from(
    [
        "v=0", "o=- 1 1 IN IP4 1.2.3.4", "s=-", "c=IN IP4 1.2.3.4", "c=IN IP6 ::1", "c=IN IP4 0", "t=0 0",
        "m=audio 5 RTP/SAVP 8 101", "m=audio 5/2 RTP/AVP 0", "m=audio", "m=audio 1 RTP/AVP ٣",
        "a=rtpmap:101 telephone-event/8000", "a=rtpmap", "a=rtpmap:", "a=rtcp:", "a=rtcp:x y", "a=ptime:٣",
        "a=crypto:",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:é|2^99", "a=sendonly", "a", "=", "",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.lists(st.one_of(_PIECES, st.text(max_size=30)), max_size=15)))
def test_nothing_but_a_refusal_comes_out(source: bytes | list[str]) -> None:
    body = source if isinstance(source, bytes) else "\r\n".join(source).encode("utf-8", "surrogatepass")
    result = outcome(body)
    if isinstance(result, SdpError):
        assert result.code in (400, 488)
        assert printable(result.text, 1000) == result.text
    else:
        assert 0 < result.port < 65536
        for line in result.crypto:
            assert line.key_bytes is None or isinstance(line.key_bytes, bytes)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(PLAIN)), st.integers(0, 30), st.text(max_size=12))
def test_a_damaged_offer_is_read_or_refused(start: int, length: int, insert: str) -> None:
    damaged = PLAIN[:start] + insert + PLAIN[start + length :]
    result = outcome(damaged.encode("utf-8", "surrogatepass"))
    assert not isinstance(result, SdpError) or result.code in (400, 488)
