"""SIP messages: parsed once, kept as received, built and written byte-exact (RFC 3261 7, 8.1.1, 8.2.6).

sipmessage supplies `Headers` and the typed accessors; start line, header syntax and the values that routing
stands on are checked here when a message arrives, everything else when it is asked for.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence

import sipmessage
from sipmessage import URI, Address, AuthChallenge, AuthCredentials, CSeq, Headers, MediaType, Via
from sipmessage.message import COMPACT_FORMS

from gateway.errors import MessageError
from gateway.sip.message_values import (
    TOKEN_PATTERN,
    NameAddr,
    ViaValue,
    parse_cseq,
    parse_name_addr,
    parse_uri,
    parse_via,
    salvage_via,
    split_values,
    to_parameters,
    uri_headers,
)

BRANCH_COOKIE = "z9hG4bK"
MAX_HEADERS = 256
_ONCE = ("from", "to", "call-id", "cseq", "max-forwards", "content-length")
_FOLD = re.compile(rb"[ \t]*\r\n[ \t]+")
_VERSION = re.compile(r"SIP/(\d+)\.(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,10}")

PHRASES = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
    199: "Early Dialog Terminated", 200: "OK", 202: "Accepted", 204: "No Notification",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily", 305: "Use Proxy",
    380: "Alternative Service", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required",
    403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required",
    408: "Request Timeout", 410: "Gone", 412: "Conditional Request Failed", 413: "Request Entity Too Large",
    414: "Request-URI Too Long", 415: "Unsupported Media Type", 416: "Unsupported URI Scheme",
    420: "Bad Extension", 421: "Extension Required", 422: "Session Interval Too Small",
    423: "Interval Too Brief",
    428: "Use Identity Header", 429: "Provide Referrer Identity", 433: "Anonymity Disallowed",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
    483: "Too Many Hops", 484: "Address Incomplete", 485: "Ambiguous", 486: "Busy Here",
    487: "Request Terminated", 488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending",
    493: "Undecipherable", 494: "Security Agreement Required", 500: "Server Internal Error",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Server Time-out",
    505: "Version Not Supported", 513: "Message Too Large", 600: "Busy Everywhere", 603: "Decline",
    604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}  # fmt: skip


class ParseError(MessageError):
    """A message that could not be taken; `request` is set when it can be answered (statelessly) with `code`."""

    def __init__(self, code: int, text: str, request: Request | None = None) -> None:
        self.request = request
        super().__init__(code, text)


class _Message(sipmessage.Message):
    """What requests and responses share. Typed accessors raise MessageError(400) and nothing else."""

    body: bytes
    headers: Headers
    charset: str = "utf-8"
    """latin-1 when the headers were not UTF-8 (old PBX display names): answers go back in the same bytes."""

    @property
    def call_id(self) -> str:
        return self._required("Call-ID")

    @call_id.setter
    def call_id(self, value: str) -> None:
        self.headers.set("Call-ID", value)

    @property
    def cseq(self) -> CSeq:
        return CSeq(*parse_cseq(self._required("CSeq")))

    @cseq.setter
    def cseq(self, value: CSeq) -> None:
        self.headers.set("CSeq", str(value))

    @property
    def from_address(self) -> Address:
        return _address(self.from_)

    @from_address.setter
    def from_address(self, value: Address) -> None:
        self.headers.set("From", str(value))

    @property
    def to_address(self) -> Address:
        return _address(self.to)

    @to_address.setter
    def to_address(self, value: Address) -> None:
        self.headers.set("To", str(value))

    @property
    def via(self) -> list[Via]:
        vias = (parse_via(text) for text in self.values("Via"))
        return [Via(via.transport, via.host, via.port, to_parameters(via.params)) for via in vias]

    @via.setter
    def via(self, value: list[Via]) -> None:
        self.headers.setlist("Via", [str(via) for via in value])

    @property
    def content_type(self) -> MediaType | None:
        text = self.headers.get("Content-Type")
        if text is None:
            return None
        try:
            return MediaType.parse(text)
        except (ValueError, TypeError):
            raise MessageError(400, "Malformed Content-Type") from None

    @content_type.setter
    def content_type(self, value: MediaType | None) -> None:
        self._set_optional_str("Content-Type", None if value is None else str(value))

    @property
    def from_(self) -> NameAddr:
        return parse_name_addr(self._required("From"))

    @property
    def to(self) -> NameAddr:
        return parse_name_addr(self._required("To"))

    @property
    def from_tag(self) -> str | None:
        return self.from_.tag

    @property
    def to_tag(self) -> str | None:
        return self.to.tag

    @property
    def top_via(self) -> ViaValue:
        values = self.values("Via")
        if not values:
            raise MessageError(400, "Missing Via")
        return parse_via(values[0])

    def values(self, name: str) -> list[str]:
        """Every value of a comma-separated header, each as received, over all its lines."""
        return [value for line in self.headers.getlist(name) for value in split_values(line)]

    def name_addrs(self, name: str) -> list[NameAddr]:
        """Contact, Route, Record-Route, P-Asserted-Identity… with the URIs byte-exact."""
        return [parse_name_addr(value) for value in self.values(name)]

    def tokens(self, name: str) -> frozenset[str]:
        """Allow, Supported, Require… as a set, in lower case except for methods (Allow)."""
        found = (token for value in self.headers.getlist(name) for token in value.split(","))
        stripped = (token.strip() for token in found)
        return frozenset(t.upper() if name.lower() == "allow" else t.lower() for t in stripped if t)

    def _required(self, name: str) -> str:
        value = self.headers.get(name)
        if value is None:
            raise MessageError(400, f"Missing {name}")
        return value

    def _get_address_list(self, key: str) -> list[Address]:
        return [_address(value) for value in self.name_addrs(key)]

    def _get_optional_int(self, key: str) -> int | None:
        value = self.headers.get(key)
        if value is None:
            return None
        if _NUMBER.fullmatch(value) is None:
            raise MessageError(400, f"Malformed {key}")
        return int(value)

    def _get_auth_challenge(self, key: str) -> AuthChallenge | None:
        try:
            return super()._get_auth_challenge(key)
        except (ValueError, TypeError):
            raise MessageError(400, f"Malformed {key}") from None

    def _get_auth_credentials(self, key: str) -> AuthCredentials | None:
        try:
            return super()._get_auth_credentials(key)
        except (ValueError, TypeError):
            raise MessageError(400, f"Malformed {key}") from None

    def __bytes__(self) -> bytes:
        return to_bytes(self)  # type: ignore[arg-type]  # only the two subclasses exist


class Request(_Message):
    """A request; `uri_text` is the Request-URI as received or as it will be sent."""

    def __init__(self, method: str, uri_text: str, body: bytes = b"") -> None:
        self.method = method
        self.uri_text = uri_text
        self.body = body
        self.headers = Headers()

    @property
    def uri(self) -> URI:
        """MessageError(416 | 400) when it is not a usable sip, sips or tel URI."""
        return parse_uri(self.uri_text)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri_text}>"


class Response(_Message):
    """A response; `code` is 100..699."""

    def __init__(self, code: int, phrase: str, body: bytes = b"") -> None:
        self.code = code
        self.phrase = phrase
        self.body = body
        self.headers = Headers()

    def __repr__(self) -> str:
        return f"<Response {self.code} {self.phrase}>"


Message = Request | Response


def _address(value: NameAddr) -> Address:
    return Address(uri=value.uri, name=value.display, parameters=to_parameters(value.params))


def parse_message(data: bytes) -> Message:
    """Parse one whole message; folding, compact forms and any letter case are accepted.

    ParseError (a MessageError) otherwise: `.code` is the RFC's answer (400, 414, 416, 505), `.request` is there
    when that answer can be sent. Bytes after Content-Length are dropped (RFC 3261 18.3), fewer are a 400.
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
    if not lines or any("\r" in line or "\n" in line for line in lines):
        return None
    try:
        message.top_via  # noqa: B018
    except MessageError:
        via = salvage_via(lines[0].partition(",")[0])
        if via is None:
            return None
        port = "" if via.port is None else f":{via.port}"
        message.headers.setlist("Via", [f"SIP/2.0/{via.transport} {via.host}{port}"])
    return message


def make_response(
    request: Request,
    code: int,
    phrase: str | None = None,
    *,
    to_tag: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    content_type: str | None = None,
) -> Response:
    """The answer of RFC 3261 8.2.6: Via, From, To, Call-ID, CSeq copied as received, a To tag above 100.

    `to_tag` is used when the request has none; without it a random one is made. Record-Route is copied into
    101..299 (12.1.1), Timestamp into 100 (8.2.6.1).
    """
    response = Response(code, phrase if phrase is not None else PHRASES.get(code, "Unknown"), body)
    response.charset = request.charset
    copied = response.headers
    for name in ("Via", "From", "To", "Call-ID", "CSeq"):
        values = request.headers.getlist(name)
        if values:
            copied.setlist(name, list(values) if name == "Via" else values[:1])
    to = copied.get("To")
    if code > 100 and to is not None:
        try:
            if parse_name_addr(to).tag is None:
                copied.set("To", f"{to};tag={to_tag or new_tag()}")
        except MessageError:
            pass  # the To is why we refuse: it goes back as it came
    if 100 < code < 300 and (record_route := request.headers.getlist("Record-Route")):
        copied.setlist("Record-Route", list(record_route))
    if code == 100 and (timestamp := request.headers.get("Timestamp")) is not None:
        copied.set("Timestamp", timestamp)
    _extend(copied, headers, content_type)
    return response


def make_request(
    method: str,
    uri_text: str,
    *,
    from_: str,
    to: str,
    call_id: str,
    cseq: int,
    contact: str | None = None,
    max_forwards: int = 70,
    route: Sequence[str] = (),
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    content_type: str | None = None,
) -> Request:
    """A request without Via (the transaction layer puts it on). Header texts are sent exactly as given."""
    request = Request(method, uri_text, body)
    request.headers.set("Max-Forwards", str(max_forwards))
    if route:
        request.headers.setlist("Route", list(route))
    request.headers.set("From", from_)
    request.headers.set("To", to)
    request.headers.set("Call-ID", call_id)
    request.headers.set("CSeq", f"{cseq} {method}")
    if contact is not None:
        request.headers.set("Contact", contact)
    _extend(request.headers, headers, content_type)
    return request


def _extend(target: Headers, headers: Iterable[tuple[str, str]], content_type: str | None) -> None:
    for name, value in headers:
        target.add(name, value)
    if content_type is not None:
        target.set("Content-Type", content_type)


def to_bytes(message: Message) -> bytes:
    """The message on the wire: Via first, Content-Length last and right.

    MessageError(500) if a value holds a line break: it would start a header of its own.
    """
    if isinstance(message, Request):
        start = f"{message.method} {message.uri_text} SIP/2.0"
    else:
        start = f"SIP/2.0 {message.code} {message.phrase}"
    lines = [start]
    lines += [f"Via: {value}" for value in message.headers.getlist("Via")]
    for name in message.headers.keys():  # noqa: SIM118  not a dict
        if name.lower() not in ("via", "content-length"):
            lines += [f"{name}: {value}" for value in message.headers.getlist(name)]
    lines.append(f"Content-Length: {len(message.body)}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise MessageError(500, "A header value holds a line break")
    try:
        head = text.encode(message.charset)
    except UnicodeEncodeError:
        head = text.encode("utf-8", "replace")
    return head + b"\r\n\r\n" + message.body


def stateless_tag(request: Request) -> str:
    """A To tag that is the same for every retransmission of `request` (RFC 3261 8.2.7)."""
    parts = (request.headers.get(name) or "" for name in ("Via", "From", "Call-ID", "CSeq"))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def new_branch() -> str:
    """A fresh Via branch (RFC 3261 8.1.1.7)."""
    return BRANCH_COOKIE + secrets.token_hex(12)


def new_tag() -> str:
    """64 random bits (RFC 3261 19.3 asks for 32)."""
    return secrets.token_hex(8)


def new_call_id(host: str) -> str:
    """128 random bits at `host`; an empty host leaves the part out."""
    return f"{secrets.token_hex(16)}@{host}" if host else secrets.token_hex(16)
