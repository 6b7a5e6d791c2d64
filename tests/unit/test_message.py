"""Messages read, made and written: exact bytes, hostile bytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MessageError
from gateway.sip.message import (
    Message,
    ParseError,
    Request,
    Response,
    make_request,
    make_response,
    new_branch,
    new_call_id,
    new_tag,
    parse_message,
    parse_name_addr,
    parse_uri,
    split_values,
    stateless_tag,
    to_bytes,
    uri_headers,
)
from gateway.sip.message_values import parse_via
from tests.sip.torture.invalid import INVALID
from tests.sip.torture.semantics import SEMANTICS
from tests.sip.torture.valid import VALID

TEAMS = (
    b"INVITE sip:+15551230000@sbc.example.test:5061;user=phone;transport=tls SIP/2.0\r\n"
    b'FROM: "M\xc3\xbcller, A" <sip:+4930@sip.pstnhub.microsoft.com:5061;user=phone>;tag=abc\r\n'
    b"TO: <sip:+15551230000@sbc.example.test:5061;user=phone>\r\n"
    b"CSEQ: 1 INVITE\r\nCALL-ID: 4a5f\r\nMAX-FORWARDS: 69\r\n"
    b"VIA: SIP/2.0/TLS 52.114.1.1:5061;branch=z9hG4bKab,SIP/2.0/TLS 10.0.0.1;branch=z9hG4bKcd\r\n"
    b"RECORD-ROUTE: <sip:sip-du-a-us.pstnhub.microsoft.com:5061;transport=tls;lr>\r\n"
    b"CONTACT: <sip:api-du-a-us.pstnhub.microsoft.com:443;x-i=4f;x-c=a/b/c%2F;x-y=[1:2]"
    b"?Replaces=a%3Bto-tag%3D1>\r\n"
    b"CONTENT-LENGTH: 3\r\nCONTENT-TYPE: application/sdp\r\n\r\nv=0"
)


def request_of(data: bytes) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


def fault_of(data: bytes) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_message(data)
    return caught.value


def test_request_of_teams_is_kept_byte_exact() -> None:
    request = request_of(TEAMS)
    assert request.uri_text == "sip:+15551230000@sbc.example.test:5061;user=phone;transport=tls"
    assert request.uri.user == "+15551230000"
    assert request.uri.parameters["transport"] == "tls"
    assert request.from_.display == "Müller, A"
    assert (request.from_tag, request.to_tag) == ("abc", None)
    (contact,) = request.name_addrs("contact")
    assert contact.uri_text == (
        "sip:api-du-a-us.pstnhub.microsoft.com:443;x-i=4f;x-c=a/b/c%2F;x-y=[1:2]?Replaces=a%3Bto-tag%3D1"
    )
    assert (contact.uri.host, contact.uri.port) == ("api-du-a-us.pstnhub.microsoft.com", 443)
    assert uri_headers(contact.uri_text) == "Replaces=a%3Bto-tag%3D1"
    assert [via.branch for via in map(parse_via, request.values("Via"))] == ["z9hG4bKab", "z9hG4bKcd"]
    assert request.content_type is not None
    assert request.body == b"v=0"
    assert request_of(to_bytes(request)).headers["Contact"] == request.headers["Contact"]


def test_response_copies_what_the_rfc_says() -> None:
    request = request_of(TEAMS.replace(b"MAX-FORWARDS", b"Timestamp: 54\r\nMAX-FORWARDS"))
    trying = make_response(request, 100)
    assert trying.to_tag is None
    assert trying.headers["Timestamp"] == "54"
    assert trying.headers.get("Record-Route") is None
    ringing = make_response(request, 180, to_tag="t1")
    for name in ("Via", "From", "Call-ID", "CSeq", "Record-Route"):
        assert ringing.headers.getlist(name) == request.headers.getlist(name)
    assert ringing.headers["To"] == request.headers["To"] + ";tag=t1"
    assert (ringing.code, ringing.phrase) == (180, "Ringing")
    assert make_response(request, 404).headers.get("Record-Route") is None
    assert make_response(request, 404).to_tag
    inside = request_of(TEAMS.replace(b"phone>\r\nCSEQ", b"phone>;tag=mine\r\nCSEQ"))
    assert make_response(inside, 200, to_tag="other").to_tag == "mine"


def test_response_does_not_share_lists_with_its_request() -> None:
    request = request_of(TEAMS)
    make_response(request, 200).headers.getlist("Via").append("x")
    assert len(request.headers.getlist("Via")) == 1


def test_made_request_is_written_as_given() -> None:
    request = make_request(
        "REFER",
        "sip:a@b;x-m=8:orgid:1",
        from_="<sip:a@b>;tag=1",
        to="<sip:c@d>",
        call_id="id",
        cseq=4,
        contact="<sip:us@sbc.example.test:5061;transport=tls>",
        route=["<sip:r1;lr>", "<sip:r2;lr>"],
        headers=[("Refer-To", "<sip:x@y?Replaces=1%40z>"), ("X-Twice", "1"), ("X-Twice", "2")],
        body=b"\0\xff",
        content_type="application/octet-stream",
    )
    request.headers.set("Via", "SIP/2.0/TLS us;branch=z9hG4bK1")
    assert to_bytes(request) == (
        b"REFER sip:a@b;x-m=8:orgid:1 SIP/2.0\r\nVia: SIP/2.0/TLS us;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n"
        b"Route: <sip:r1;lr>\r\nRoute: <sip:r2;lr>\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n"
        b"Call-ID: id\r\nCSeq: 4 REFER\r\nContact: <sip:us@sbc.example.test:5061;transport=tls>\r\n"
        b"Refer-To: <sip:x@y?Replaces=1%40z>\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: 2\r\n\r\n\0\xff"
    )
    assert bytes(request) == to_bytes(request)


def test_wrong_content_length_is_never_sent() -> None:
    request = request_of(TEAMS)
    request.body = b"longer than before"
    assert b"Content-Length: 18\r\n" in to_bytes(request)
    assert to_bytes(request).count(b"ength") == 1


def test_compact_forms_and_folding() -> None:
    data = (
        b"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP h;branch=z9hG4bK1\r\nf:<sip:a@b>;tag=1\r\nt : <sip:c@d>\r\n"
        b"i: id\r\nCSeq:1\r\n\tOPTIONS\r\nk: timer,\r\n  replaces\r\nx: 1800;refresher=uac\r\nl: 0\r\n\r\n"
    )
    response = parse_message(data)
    assert isinstance(response, Response)
    assert response.tokens("Supported") == {"timer", "replaces"}
    assert response.headers["Session-Expires"] == "1800;refresher=uac"
    assert response.cseq.method == "OPTIONS"
    assert response.to_tag is None


def test_headers_in_latin_1_are_read_and_answered_in_the_same_bytes() -> None:
    data = TEAMS.replace(b"M\xc3\xbcller", b"M\xfcller")
    request = request_of(data)
    assert request.from_.display == "Müller, A"
    assert b'"M\xfcller, A"' in to_bytes(make_response(request, 200))


@pytest.mark.parametrize("line", [b"X: a\nContact: <sip:evil@x>", b"X: a\rY: b", b"X\n: a"])
def test_bare_line_breaks_are_refused_not_relayed(line: bytes) -> None:
    assert fault_of(TEAMS.replace(b"CSEQ", line + b"\r\nCSEQ")).code == 400


@pytest.mark.parametrize("value", ["a\r\nVia: x", "a\nb", "a\rb"])
def test_trap_header_injection_is_an_error_of_the_sender(value: str) -> None:
    request = request_of(TEAMS)
    request.headers.set("Subject", value)
    with pytest.raises(MessageError) as caught:
        to_bytes(request)
    assert caught.value.code == 500


@pytest.mark.parametrize(
    ("old", "new", "code", "answerable"),
    [
        (b"CSEQ: 1 INVITE\r\n", b"", 400, True),
        (b"CSEQ: 1 INVITE", b"CSEQ: 2147483648 INVITE", 400, True),
        (b"CSEQ: 1 INVITE", b"CSEQ: 1 invite", 400, True),
        (b"CALL-ID: 4a5f", b"CALL-ID:", 400, True),
        (b"MAX-FORWARDS: 69", b"MAX-FORWARDS: 256", 400, True),
        (b"MAX-FORWARDS: 69", b"MAX-FORWARDS: x", 400, True),
        (b"SIP/2.0\r\nFROM", b"SIP/3.0\r\nFROM", 505, True),
        (b"sip:+1555", b"mailto:+1555", 416, True),
        (b"sip:+15551230000@sbc", b"sip:" + b"a" * 5000 + b"@sbc", 414, True),
        (b"SIP/2.0/TLS 52.114.1.1:5061", b"SIP/2.0/TLS 52.114.1.1:70000", 400, False),
        (b"SIP/2.0/TLS 52.114.1.1:5061", b"nonsense", 400, False),
        (b"VIA:", b"X-VIA:", 400, False),
        (b"INVITE sip", b"INV ITE sip", 400, True),
        (b"INVITE sip", b"INV\xffITE sip", 400, False),
        (b"CONTENT-LENGTH: 3", b"CONTENT-LENGTH: 4", 400, True),
        (b"CONTENT-LENGTH: 3", b"no colon here", 400, True),
        (b"CONTENT-LENGTH: 3", b"Bad Name: 3", 400, True),
        (b"CONTENT-LENGTH: 3", b"X: y\r\n" * 300 + b"X: 3", 400, False),
    ],
)
def test_malformed_request(old: bytes, new: bytes, code: int, answerable: bool) -> None:
    assert old in TEAMS
    error = fault_of(TEAMS.replace(old, new, 1))
    assert error.code == code
    assert (error.request is not None) is answerable
    if error.request is not None:
        to_bytes(make_response(error.request, error.code))


def test_malformed_ack_is_never_answerable() -> None:
    data = TEAMS.replace(b"INVITE", b"ACK").replace(b"CALL-ID: 4a5f\r\n", b"")
    assert fault_of(data).request is None


@pytest.mark.parametrize(
    "data", [b"", b"\r\n\r\n", b"x", b"INVITE\r\n\r\n", b"SIP/2.0\r\n\r\n", b"\xff\r\n\r\n"]
)
def test_what_is_no_message_at_all(data: bytes) -> None:
    assert fault_of(data).request is None


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_parse_errors(data: bytes) -> None:
    for text in (data, data + b"\r\n\r\n", TEAMS[:40] + data + TEAMS[40:]):
        _probe(text)


@settings(max_examples=300)
@given(st.sampled_from([*VALID, *INVALID, *SEMANTICS]), st.integers(0, 5000), st.binary(max_size=6))
def test_mutated_tortures_raise_nothing_but_message_errors(torture: object, place: int, noise: bytes) -> None:
    data = bytes(getattr(torture, "data", b""))
    place %= len(data)
    _probe(data[:place] + noise + data[place + len(noise) :])


def _probe(data: bytes) -> None:
    try:
        message = parse_message(data)
    except ParseError as error:
        if error.request is not None:
            to_bytes(make_response(error.request, error.code))
        return
    _read_everything(message)
    to_bytes(message)


def _read_everything(message: Message) -> None:
    readers = (
        *("via", "contact", "route", "record_route", "from_address", "to_address", "content_type", "expires"),
        *("require", "supported", "min_expires", "authorization", "www_authenticate", "proxy_authorization"),
    )
    for reader in readers:
        try:
            getattr(message, reader)
        except MessageError:
            continue


@pytest.mark.parametrize(
    "value",
    [
        "1" * 60_000 + "x",
        '"' * 30_001,
        '"a" ' * 15_000,
        "<" * 60_000,
        '<sip:a@b>;x="' + "a\\" * 30_000,
        ",".join("<sip:a@b>" for _ in range(6000)) + '"',
        "sip:" + "a-" * 30_000,
        "<tel:+" + "1" * 60_000 + "x>",
        ";" * 60_000,
        "<sip:" + "a." * 30_000 + "-@>",
        " " * 60_000,
        "a " * 30_000,
        "<sip:a@b>" + ";x=1" * 15_000 + "=",
    ],
    ids=range(13),
)
@pytest.mark.parametrize("name", ["Contact", "From", "Via"])
def test_hostile_values_cost_linear_time(name: str, value: str) -> None:
    """A regular expression that backtracks would stop every call of the gateway."""
    header = f"SIP/2.0/UDP h{value}" if name == "Via" else value
    data = TEAMS.replace(name.upper().encode() + b":", b"X-Old:").replace(
        b"CSEQ", name.encode() + b": " + header.encode() + b"\r\nCSEQ"
    )
    began = time.process_time()
    _probe(data)
    assert time.process_time() - began < 0.5


def test_quoted_names_and_commas_do_not_mislead() -> None:
    """sipmessage's own parser reads the wrong URI out of these."""
    request = request_of(
        TEAMS.replace(
            b"CONTENT-TYPE",
            b'P-Asserted-Identity: "A, \\"x\\"" <sip:a@x>, "B" <sip:b@x>;n="<sip:evil@x>", <tel:+49>\r\n'
            b"CONTENT-TYPE",
        )
    )
    found = request.name_addrs("P-Asserted-Identity")
    assert [addr.uri_text for addr in found] == ["sip:a@x", "sip:b@x", "tel:+49"]
    assert found[0].display == 'A, "x"'
    assert found[1].params == {"n": "<sip:evil@x>"}


@pytest.mark.parametrize(
    "text", ['"open <sip:a@b>', "<sip:a@b", "sip:a@b?x=y", "<a b@c>", "<noscheme>", "x <sip:a@b> y"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(MessageError):
        parse_name_addr(text)


def test_parameter_that_sipmessage_cannot_hold_is_a_message_error() -> None:
    request = request_of(TEAMS.replace(b";tag=abc", b";tag=abc;self=1"))
    assert request.from_tag == "abc"
    with pytest.raises(MessageError):
        _ = request.from_address
    with pytest.raises(MessageError):
        parse_uri("sip:a@b;self=1")


@pytest.mark.parametrize(
    ("text", "code"),
    [("isbn:1", 416), ("http://x", 416), ("<sip:a@b>", 400), ("sip:a@b;;", 400), ("", 400), ("tel:x", 400)],
)
def test_unusable_uris(text: str, code: int) -> None:
    with pytest.raises(MessageError) as caught:
        parse_uri(text)
    assert caught.value.code == code


def test_uri_scheme_in_any_case() -> None:
    assert parse_uri("SIP:a@b").scheme == "sip"
    assert parse_uri("Tel:+49-30").global_phone_number == "+4930"


def test_split_values() -> None:
    assert split_values('a, "b,c" , <d,e>;x="f,g"') == ["a", '"b,c"', '<d,e>;x="f,g"']
    assert split_values("") == []
    for wrong in ('"', "<a, b", "a,,b", "a,"):
        with pytest.raises(MessageError):
            split_values(wrong if "," in wrong else wrong + ",")


def test_identifiers_are_fresh_and_the_stateless_tag_is_not() -> None:
    assert new_branch().startswith("z9hG4bK")
    assert len({new_branch() for _ in range(100)} | {new_tag() for _ in range(100)}) == 200
    assert new_call_id("sbc.example.test").endswith("@sbc.example.test")
    assert "@" not in new_call_id("")
    assert stateless_tag(request_of(TEAMS)) == stateless_tag(request_of(TEAMS))
    assert stateless_tag(request_of(TEAMS)) != stateless_tag(request_of(TEAMS.replace(b"4a5f", b"4a60")))


def test_parsing_costs_well_under_a_millisecond() -> None:
    """Measured 40 microseconds to read and 15 to write on a slow core; the bound only catches an accident."""
    began = time.process_time()
    for _ in range(200):
        to_bytes(parse_message(TEAMS))
    assert (time.process_time() - began) / 200 < 0.002
