"""SIP messages: parsed once, kept as received, built and written byte-exact (RFC 3261 7, 8.1.1, 8.2.6).

sipmessage supplies `Headers` and the typed accessors; start line, header syntax and the values that routing
stands on are checked here when a message arrives, everything else when it is asked for. A request of 25 lines
costs about 40 microseconds to parse and 15 to write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sipmessage import Headers
from sipmessage.message import COMPACT_FORMS

from gateway.errors import MessageError
from gateway.sip.message_build import (
    BRANCH_COOKIE,
    ECHOED,
    PHRASES,
    make_request,
    make_response,
    new_branch,
    new_call_id,
    new_tag,
    stateless_tag,
)
from gateway.sip.message_types import Message, ParseError, Request, Response, to_bytes
from gateway.sip.message_values import (
    TOKEN_PATTERN,
    NameAddr,
    ViaValue,
    parse_cseq,
    parse_name_addr,
    parse_uri,
    salvage_via,
    split_values,
    uri_headers,
)

__all__ = [
    "BRANCH_COOKIE",
    "PHRASES",
    "Headers",
    "Message",
    "NameAddr",
    "ParseError",
    "Request",
    "Response",
    "ViaValue",
    "make_request",
    "make_response",
    "new_branch",
    "new_call_id",
    "new_tag",
    "parse_message",
    "parse_name_addr",
    "parse_uri",
    "split_values",
    "stateless_tag",
    "to_bytes",
    "uri_headers",
]

MAX_HEADERS = 256
_ONCE = ("from", "to", "call-id", "cseq", "max-forwards", "content-length")
_FOLD = re.compile(rb"[ \t]*\r\n[ \t]+")
_VERSION = re.compile(r"SIP/(\d+)\.(\d+)", re.IGNORECASE)


def parse_message(data: bytes) -> Message:
    """Parse one whole message; folding, compact forms and any letter case are accepted.

    ParseError (a MessageError) otherwise: `.code` is the RFC's answer (400, 414, 416, 505), `.request` is
    there when that answer can be sent. Bytes after Content-Length are dropped (18.3), fewer are a 400.
    """
    head, separator, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not separator:
        raise ParseError(400, "No end of headers")
    if b"\r\n " in head or b"\r\n\t" in head:
        head = _FOLD.sub(b" ", head)
    try:
        text, charset = head.decode(), "utf-8"
    except UnicodeDecodeError:
        text, charset = head.decode("latin-1"), "latin-1"
    start, *lines = text.split("\r\n")
    message, fault = _parse_start_line(start)
    message.charset = charset
    message.body = body
    fault = _fill_headers(message.headers, lines) or fault
    if fault is None and ("\n" in text.replace("\r\n", "") or "\r" in text.replace("\r\n", "")):
        # Another parser would end the line there: relayed as it stands, it could smuggle a header.
        fault = MessageError(400, "Bare CR or LF in headers")
    if fault is None:
        try:
            _check(message)
            _cut_body(message)
        except MessageError as error:
            fault = error
    if fault is not None:
        raise ParseError(fault.code, fault.text, _answerable(message))
    return message


def _parse_start_line(line: str) -> tuple[Message, MessageError | None]:
    if line[:4].upper() == "SIP/":
        version, _, rest = line.partition(" ")
        code, _, phrase = rest.partition(" ")
        if version.upper() != "SIP/2.0" or len(code) != 3 or not code.isascii() or not code.isdigit():
            return Response(0, ""), MessageError(400, "Malformed status line")
        if not 100 <= int(code) <= 699:
            return Response(0, ""), MessageError(400, "Status code out of range")
        return Response(int(code), phrase), None
    bits = line.split(" ")
    method = bits[0]
    request = Request(method, bits[1] if len(bits) > 1 else "")
    if TOKEN_PATTERN.fullmatch(method) is None:
        return request, MessageError(400, "Malformed method")
    version_found = _VERSION.fullmatch(bits[-1]) if len(bits) > 2 else None
    if version_found is not None and version_found.groups() != ("2", "0"):
        return request, MessageError(505, "Version Not Supported")
    if version_found is None or len(bits) != 3 or not bits[1]:
        return request, MessageError(400, "Malformed request line")
    return request, None


def _fill_headers(headers: Headers, lines: Sequence[str]) -> MessageError | None:
    if len(lines) > MAX_HEADERS:
        return MessageError(400, "Too many headers")
    fault: MessageError | None = None
    grouped: dict[str, tuple[str, list[str]]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.rstrip(" \t")
        if not colon or TOKEN_PATTERN.fullmatch(name) is None:
            fault = fault or MessageError(400, "Malformed header line")
            continue
        lowered = name.lower()
        if len(lowered) == 1 and lowered in COMPACT_FORMS:
            name = COMPACT_FORMS[lowered]
            lowered = name.lower()
        group = grouped.get(lowered)
        if group is None:
            grouped[lowered] = (name, [value.strip()])
        else:
            group[1].append(value.strip())
    for name, values in grouped.values():
        headers._list.append((name, values))  # setlist() would search all the others first, for each
    for once in _ONCE:
        if once in grouped and len(grouped[once][1]) > 1:
            fault = fault or MessageError(400, f"Repeated {grouped[once][0]}")
    return fault


def _check(message: Message) -> None:
    """What routing, transactions and dialogs rely on; the rest is left to the one who asks for it."""
    headers = message.headers
    message.top_via  # noqa: B018  raises when malformed
    for name in ("From", "To"):
        parse_name_addr(message._required(name))
    if not message.call_id:
        raise MessageError(400, "Empty Call-ID")
    _, method = parse_cseq(message._required("CSeq"))
    if isinstance(message, Response):
        return
    if method != message.method:
        raise MessageError(400, "CSeq method does not match")
    if uri_headers(message.uri_text) and message.uri_text[:4].lower() != "tel:":
        raise MessageError(400, "Headers in the Request-URI")
    message.uri  # noqa: B018
    hops = message.max_forwards
    if hops is not None and hops > 255:
        raise MessageError(400, "Malformed Max-Forwards")
    if (contact := headers.get("Contact")) is not None and contact != "*":
        message.name_addrs("Contact")


def _cut_body(message: Message) -> None:
    length = message.content_length
    if length is None:
        return
    if length > len(message.body):
        raise MessageError(400, "Content-Length is larger than the message")
    message.body = message.body[:length]


def _answerable(message: Message) -> Request | None:
    """The request, if an answer would find its way: it has a Via with protocol and sent-by, and is no ACK."""
    if (
        isinstance(message, Response)
        or message.method == "ACK"
        or TOKEN_PATTERN.fullmatch(message.method) is None
    ):
        return None
    lines = message.headers.getlist("Via")
    echoed = [value for name in ECHOED for value in message.headers.getlist(name)]
    if not lines or any("\r" in value or "\n" in value for value in echoed):
        return None
    try:
        message.top_via  # noqa: B018
    except MessageError:
        via = salvage_via(lines[0].partition(",")[0])
        if via is None:
            return None
        message.headers.setlist("Via", [via])
    return message
