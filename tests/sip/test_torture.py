"""RFC 4475 through real sockets: each of the 49 messages gets the RFC's answer or silence, none raises."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from gateway.sip.message import Request, Response, parse_message
from gateway.sip.transport import TransportKind
from tests.sip.torture import Torture
from tests.sip.torture.invalid import INVALID
from tests.sip.torture.semantics import SEMANTICS
from tests.sip.torture.valid import VALID
from tests.sip.wire_support import Stack, read_message, request_bytes, running, tcp_peer, udp_peer

TORTURES = [*VALID, *INVALID, *SEMANTICS]
# What framing by Content-Length makes of them on a stream: the connection is given up after the answer.
BREAKS_STREAM = {"ncl": 400, "mcl01": 400, "inv2543": 400}
# Promises bytes that never come: no message, no answer, until the peer is cut off.
NEVER_WHOLE = {"clerr"}


def sent_by_port(torture: Torture) -> int:
    found = re.search(rb"(?im)^v(?:ia)?\s*:\s*SIP\s*/\s*[\d.]+\s*/\s*\w+\s+([^\s;:]+):(\d+)", torture.data)
    top = torture.data.lower().find(b"via")
    return int(found.group(2)) if found is not None and found.start() <= top else 5060


def expected(torture: Torture, stack: Stack) -> list[int]:
    arrived = [known.request for known in stack.requests if known.request.call_id != "probe"]
    if torture.verdict == "silence":
        return []
    if torture.verdict == "above":
        (request,) = arrived
        return [stack.answer(request)]
    assert not arrived
    return [torture.verdict]


def codes_before_probe(answers: list[Response]) -> list[int]:
    return [answer.code for answer in answers if answer.headers.get("Call-ID") != "probe"]


def check_log(records: list[logging.LogRecord]) -> None:
    assert not [record for record in records if record.levelno >= logging.ERROR]


def test_there_are_49() -> None:
    assert len({torture.name for torture in TORTURES}) == 49
    assert len({torture.section for torture in TORTURES}) == 49


@pytest.mark.parametrize("torture", TORTURES, ids=lambda torture: torture.name)
async def test_by_udp(torture: Torture, caplog: pytest.LogCaptureFixture) -> None:
    async with running("udp:127.0.0.1:0") as stack:
        async with udp_peer(stack.endpoints[TransportKind.UDP], sent_by_port(torture)) as peer:
            peer.transport.sendto(torture.data)
            peer.transport.sendto(request_bytes())
            answers: list[Response] = []
            while not answers or answers[-1].headers.get("Call-ID") != "probe":
                # An answer that echoes a broken header is read leniently: by its start line.
                answers.append(_lenient(await asyncio.wait_for(peer.received.get(), 5)))
            client = peer.transport.get_extra_info("sockname")[0]
        assert codes_before_probe(answers) == expected(torture, stack)
        for answer in answers:
            assert f"received={client}" in (answer.headers.get("Via") or "")
    check_log(caplog.records)


@pytest.mark.parametrize("torture", TORTURES, ids=lambda torture: torture.name)
async def test_by_tcp(torture: Torture, caplog: pytest.LogCaptureFixture) -> None:
    async with running("tcp:127.0.0.1:0") as stack:
        async with tcp_peer(stack.endpoints[TransportKind.TCP]) as (reader, writer):
            writer.write(torture.data)
            writer.write(request_bytes())
            if torture.name in NEVER_WHOLE:
                writer.write_eof()
                assert await asyncio.wait_for(reader.read(), 5) == b""
                assert not stack.arrived
                return
            text = b""
            while b"Call-ID: probe\r\n" not in text:
                data = await asyncio.wait_for(reader.read(65536), 5)
                text += data
                if not data:
                    break
            answers = [_lenient(part) for part in re.split(rb"(?=SIP/2\.0 \d{3} )", text) if part]
        if torture.name in BREAKS_STREAM:
            assert codes_before_probe(answers) == [BREAKS_STREAM[torture.name]]
            assert b"Call-ID: probe" not in text
            return
        if torture.name == "dblreq":
            # On a stream the second request is no noise but the next message.
            assert [transaction.request.method for transaction in stack.requests[:2]] == [
                "REGISTER",
                "INVITE",
            ]
            return
        assert codes_before_probe(answers) == expected(torture, stack)
    check_log(caplog.records)


def _lenient(data: bytes) -> Response:
    head = data.partition(b"\r\n\r\n")[0].decode(errors="replace").split("\r\n")
    _, code, phrase = head[0].split(" ", 2)
    response = Response(int(code), phrase)
    for line in head[1:]:
        name, _, value = line.partition(":")
        response.headers.add(name, value.strip())
    return response


def _named(name: str) -> Request:
    message = parse_message(next(torture.data for torture in TORTURES if torture.name == name))
    assert isinstance(message, Request)
    return message


def test_wsinv_is_read_right() -> None:
    request = _named("wsinv")
    assert request.to_tag == "1918181833n"
    assert request.from_.display == 'J Rosenberg \\"'
    assert request.from_tag == "98asjd8"
    assert request.max_forwards == 68
    assert (request.cseq.sequence, request.cseq.method) == (9, "INVITE")
    assert request.headers["Subject"] == ""
    assert request.headers["NewFangledHeader"] == "newfangled value continued newfangled value"
    assert request.headers["UnknownHeaderWithUnusualValue"] == ";;,,;;,;"
    assert [via.host for via in request.via] == ["192.0.2.2", "spindle.example.com", "192.168.255.111"]
    assert [via.parameters["branch"] for via in request.via] == ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]
    (contact,) = request.name_addrs("Contact")
    assert contact.display == 'Quoted string ""'
    assert contact.params == {"newparam": "newvalue", "secondparam": None, "q": "0.33"}
    assert request.name_addrs("Route")[0].uri_text.endswith("unknown-no-value")


def test_intmeth_is_read_right() -> None:
    request = _named("intmeth")
    assert request.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert request.uri.host == "example.com"
    assert request.uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert request.to.display == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert request.from_.display == "token1~` token2'+_ token3*%!.-"
    assert request.from_.params["fromparam''~+*_!.-%"] == "работающий"
    assert request.from_tag == "_token~1'+`*%!-."
    assert request.call_id == "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"
    assert request.headers["extensionHeader-!.%*+_`'~"] == "\ufeff大停電"


def test_escapes_are_read_right() -> None:
    assert _named("esc01").uri.user == "sips:user@example.com"
    assert _named("esc01").from_.uri.user == "I have spaces"
    assert _named("escnull").to.uri.user == "null-\0-null"
    assert [contact.uri.user for contact in _named("escnull").name_addrs("Contact")] == ["\0", "\0\0"]
    assert len(_named("esc02").name_addrs("Contact")) == 2
    assert _named("esc02").to.display == "%Z%45"
    assert _named("semiuri").uri.user == "user;par=u@example.net"


def test_bodies_are_cut_by_content_length() -> None:
    assert _named("dblreq").body == b""
    assert len(_named("mpart01").body) == 1233
    assert b"\0\x01\x02" in _named("mpart01").body


async def test_reading_a_message_needs_a_whole_one() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"SIP/2.0 200 OK\r\n")
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await read_message(reader)
