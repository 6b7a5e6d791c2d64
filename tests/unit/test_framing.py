"""Byte streams cut into messages however the bytes arrive."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sip.framing import FramingError, KeepAlive, StreamFramer

HEAD = b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\n"


def message(body: bytes = b"", header: bytes = b"Content-Length: %d") -> bytes:
    return HEAD + (header % len(body)) + b"\r\n\r\n" + body


STREAM: list[bytes | KeepAlive] = [
    message(),
    message(b"hello"),
    KeepAlive.PING,
    message(b"\r\n\r\nSIP/2.0", b"l:%d"),
    message(b"x" * 300, b"CONTENT-LENGTH  :\r\n  %d  "),
]


@given(st.lists(st.integers(1, 400), max_size=60))
def test_cutting_does_not_depend_on_how_the_bytes_come(sizes: list[int]) -> None:
    data = b"".join(b"\r\n\r\n" if isinstance(item, KeepAlive) else item for item in STREAM)
    framer, position = StreamFramer(), 0
    found: list[bytes | KeepAlive] = []
    for size in [*sizes, len(data)]:
        found += framer.feed(data[position : position + size])
        framer.check()
        position += size
    assert found == STREAM
    assert not framer.pending


@given(st.binary(max_size=300))
def test_any_bytes_give_items_or_a_framing_error(data: bytes) -> None:
    framer = StreamFramer()
    with contextlib.suppress(FramingError):
        for item in framer.feed(data):
            assert isinstance(item, KeepAlive | bytes)
        framer.check()


def test_pending_only_while_a_message_is_incomplete() -> None:
    framer = StreamFramer()
    assert not framer.pending
    framer.feed(b"\r\n")
    assert not framer.pending
    framer.feed(message(b"12345")[:-1])
    assert framer.pending
    framer.feed(b"5")
    assert not framer.pending


def test_lone_crlf_is_a_pong_only_when_one_is_awaited() -> None:
    framer = StreamFramer()
    framer.awaiting_pong = True
    assert framer.feed(b"\r\n") == [KeepAlive.PONG]
    assert framer.feed(b"\r\n") == []
    assert framer.feed(b"\r\n") == [KeepAlive.PING]


def test_whole_messages_before_the_break_are_delivered() -> None:
    framer = StreamFramer()
    assert framer.feed(message(b"ok") + b"GET / HTTP/1.1\r\n") == [message(b"ok")]
    with pytest.raises(FramingError):
        framer.check()


@pytest.mark.parametrize(
    ("header", "answerable"),
    [
        (b"Content-Length: -1", True),
        (b"Content-Length: 1x", True),
        (b"Content-Length: 99999999999", True),
        (b"Content-Length: 1\r\nl: 2", True),
        (b"X: y", True),
        (b"X: y\r\n Content-Length: 0", True),
    ],
)
def test_unusable_content_length_breaks_the_stream_with_the_head_kept(
    header: bytes, answerable: bool
) -> None:
    with pytest.raises(FramingError) as caught:
        StreamFramer().feed(HEAD + header + b"\r\n\r\n")
    assert bool(caught.value.head) is answerable


def test_bounds() -> None:
    with pytest.raises(FramingError, match="headers too large"):
        StreamFramer(max_head=1000).feed(HEAD + b"X: y\r\n" * 300)
    with pytest.raises(FramingError, match="headers too large"):
        StreamFramer(max_head=1000).feed(HEAD + b"X: y\r\n" * 300 + b"Content-Length: 0\r\n\r\n")
    with pytest.raises(FramingError, match="message too large") as caught:
        StreamFramer(max_message=1000).feed(message(b"x" * 1000))
    assert caught.value.code == 513
    with pytest.raises(FramingError, match="no start line"):
        StreamFramer().feed(b"SIP/" * 3000)
