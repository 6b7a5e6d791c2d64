"""The lines between gateway and room, and the answers of the room's own far end."""

from __future__ import annotations

import pytest

from media.room_far_end import FarEnd, Line
from media.room_protocol import (
    Command,
    Ping,
    Place,
    Remove,
    RoomProtocolError,
    Shutdown,
    Stats,
    Tone,
    Wire,
    decode_command,
    encode_command,
)


@pytest.mark.parametrize(
    "command",
    [
        Place("leg", 41000, "G722"),
        Place("leg", 0),
        Remove("leg"),
        Wire((("a", "b"), ("b", "a")), ("c",)),
        Tone(("a",), 440, 100),
        Stats(),
        Ping(),
        Shutdown(),
    ],
)
def test_commands_survive_the_wire(command: Command) -> None:
    line = encode_command(7, command)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_command(line) == (7, command)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"id":1,"do":"dance"}',
        b'{"id":"x","do":"ping"}',
        b'{"id":1,"do":"ping","extra":1}',
        b'{"id":1,"do":"place","port":"a"}',
        b'{"id":1,"do":"place","port":"a","remote":70000}',
        b'{"id":1,"do":"place","port":"a","remote":"9"}',
        b'{"id":1,"do":"place","port":"a","remote":9,"codec":"GSM"}',
        b'{"id":1,"do":"wire","pairs":[["a"]]}',
        b'{"id":1,"do":"wire","pairs":5}',
        b'{"id":1,"do":"tone","ports":["a"],"hz":"high"}',
    ],
)
def test_nonsense_is_refused(line: bytes) -> None:
    with pytest.raises(RoomProtocolError):
        decode_command(line)


INVITE = (
    "INVITE sip:call0@127.0.0.1:5070 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bKx\r\n"
    "From: <sip:room@127.0.0.1>;tag=r\r\nTo: <sip:call0@127.0.0.1>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n"
    "v=0\r\nm=audio 40000 RTP/AVP 8\r\nm=audio 40002 RTP/AVP 8\r\n"
)


def test_the_far_end_answers_with_its_lines_and_learns_ours() -> None:
    far = FarEnd(5070)
    far.calls["call0"] = [Line(41000, "PCMU"), Line()]
    answer = far.answer(INVITE)
    assert answer is not None
    assert answer.startswith("SIP/2.0 200 OK\r\n")
    assert "To: <sip:call0@127.0.0.1>;tag=far\r\n" in answer
    assert "m=audio 41000 RTP/AVP 0\r\na=sendrecv\r\nm=audio 9 RTP/AVP 8\r\na=inactive\r\n" in answer
    assert [line.local for line in far.calls["call0"]] == [40000, 40002]


def test_the_far_end_keeps_quiet_or_says_404() -> None:
    far = FarEnd(5070)
    assert far.answer("") is None
    assert far.answer("nonsense") is None
    assert far.answer("SIP/2.0 200 OK\r\nTo: <sip:call0@127.0.0.1>\r\n\r\n") is None
    assert far.answer(INVITE.replace("INVITE sip", "ACK sip")) is None
    refused = far.answer(INVITE)
    assert refused is not None
    assert refused.startswith("SIP/2.0 404")


def test_a_bye_is_answered_without_a_body() -> None:
    far = FarEnd(5070)
    far.calls["call0"] = [Line()]
    answer = far.answer(INVITE.replace("INVITE", "BYE"))
    assert answer is not None
    assert answer.endswith("Content-Length: 0\r\n\r\n")
