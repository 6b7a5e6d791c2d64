"""SIP text for the test peers: messages, addresses, framing. Own code: it shares no bug with the gateway.

Header names keep the case they are written in, header values keep every byte: what a test asserts on is what
was on the wire.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

COMPACT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
    "c": "content-type",
    "s": "subject",
    "k": "supported",
    "e": "content-encoding",
    "o": "event",
    "r": "refer-to",
    "b": "referred-by",
    "x": "session-expires",
}
LISTS = {"via", "route", "record-route", "contact", "allow", "supported", "require", "accept"}
PHRASES = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    415: "Unsupported Media Type",
    422: "Session Interval Too Small",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    491: "Request Pending",
    500: "Server Internal Error",
    503: "Service Unavailable",
    504: "Server Time-out",
    600: "Busy Everywhere",
    603: "Decline",
}


class WireError(ValueError):
    """Bytes that are no SIP message."""


def canonical(name: str) -> str:
    """The lower-case long form of a header name."""
    lower = name.strip().lower()
    return COMPACT.get(lower, lower)


def split_list(value: str) -> list[str]:
    """Split at commas outside quotes and angle brackets."""
    parts: list[str] = []
    quoted, depth, start = False, 0, 0
    for index, char in enumerate(value):
        if char == '"' and value[index - 1 : index] != "\\":
            quoted = not quoted
        elif not quoted and char == "<":
            depth += 1
        elif not quoted and char == ">":
            depth -= 1
        elif char == "," and not quoted and depth == 0:
            parts.append(value[start:index].strip())
            start = index + 1
    parts.append(value[start:].strip())
    return [part for part in parts if part]


@dataclass
class WireMessage:
    """One SIP message; `raw` holds the bytes as they were received or sent."""

    start: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    raw: bytes = b""

    @property
    def is_request(self) -> bool:
        return not self.start.startswith("SIP/2.0 ")

    @property
    def method(self) -> str:
        """The request's method, or the method of the CSeq for a response."""
        return self.start.split(" ", 1)[0] if self.is_request else self.cseq[1]

    @property
    def uri(self) -> str:
        return self.start.split(" ")[1] if self.is_request else ""

    @property
    def code(self) -> int:
        """0 for a request."""
        return 0 if self.is_request else int(self.start.split(" ")[1])

    @property
    def phrase(self) -> str:
        return "" if self.is_request else self.start.split(" ", 2)[2]

    @property
    def cseq(self) -> tuple[int, str]:
        number, _, method = self.need("CSeq").partition(" ")
        return int(number), method.strip()

    @property
    def branch(self) -> str:
        return parameters(self.all("Via")[0]).get("branch", "")

    @property
    def call_id(self) -> str:
        return self.need("Call-ID")

    @property
    def from_tag(self) -> str:
        return parameters(address(self.need("From")).tail).get("tag", "")

    @property
    def to_tag(self) -> str:
        return parameters(address(self.need("To")).tail).get("tag", "")

    def get(self, name: str, default: str = "") -> str:
        wanted = canonical(name)
        return next((value for key, value in self.headers if canonical(key) == wanted), default)

    def need(self, name: str) -> str:
        value = self.get(name)
        if not value:
            raise WireError(f"{self.start!r} has no {name}")
        return value

    def all(self, name: str) -> list[str]:
        """Every value of a header; comma-separated lists are taken apart."""
        wanted = canonical(name)
        found = [value for key, value in self.headers if canonical(key) == wanted]
        return [part for value in found for part in split_list(value)] if wanted in LISTS else found

    def names(self) -> set[str]:
        return {canonical(key) for key, _ in self.headers}

    def set(self, name: str, value: str) -> None:
        """Replace the header in its place, or append it."""
        wanted = canonical(name)
        for index, (key, _) in enumerate(self.headers):
            if canonical(key) == wanted:
                self.headers[index] = (key, value)
                return
        self.headers.append((name, value))

    def drop(self, name: str) -> None:
        wanted = canonical(name)
        self.headers = [pair for pair in self.headers if canonical(pair[0]) != wanted]

    def sdp(self) -> bytes:
        """The session description, also out of multipart/mixed; empty when there is none."""
        kind = self.get("Content-Type").lower()
        if kind.startswith("application/sdp"):
            return self.body
        if not kind.startswith("multipart/"):
            return b""
        boundary = parameters(self.get("Content-Type"))["boundary"].strip('"')
        for part in self.body.split(b"--" + boundary.encode()):
            head, _, content = part.partition(b"\r\n\r\n")
            if b"application/sdp" in head.lower():
                return content.removesuffix(b"\r\n") + b"\r\n"
        return b""

    def to_bytes(self) -> bytes:
        """Serialise; Content-Length is written in the case of the other headers and always right."""
        upper = bool(self.headers) and self.headers[0][0].isupper()
        self.set("CONTENT-LENGTH" if upper else "Content-Length", str(len(self.body)))
        lines = [self.start, *(f"{key}: {value}" for key, value in self.headers)]
        self.raw = "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body
        return self.raw


def parse(raw: bytes) -> WireMessage:
    """One whole message (a datagram, or a framed piece of a stream); folded headers are unfolded."""
    head, gap, body = raw.partition(b"\r\n\r\n")
    if not gap:
        raise WireError("no empty line after the headers")
    lines = head.decode("utf-8", "surrogateescape").replace("\r\n ", " ").replace("\r\n\t", " ").split("\r\n")
    headers: list[tuple[str, str]] = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise WireError(f"no header: {line!r}")
        headers.append((name.strip(), value.strip()))
    parts = lines[0].split(" ", 2)
    if len(parts) != 3 or "SIP/2.0" not in (parts[0], parts[2]):
        raise WireError(f"no SIP start line: {lines[0]!r}")
    message = WireMessage(lines[0], headers, body, raw)
    length = message.get("Content-Length")
    if length:
        if int(length) > len(body):
            raise WireError(f"Content-Length {length}, body {len(body)}")
        message.body = body[: int(length)]
    return message


class Framer:
    """Cuts a byte stream into messages by Content-Length (RFC 3261 18.3); skips and counts keep-alives."""

    def __init__(self) -> None:
        self._buffer = b""
        self.pings = 0
        self.pongs = 0

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        found: list[bytes] = []
        while True:
            while self._buffer.startswith(b"\r\n"):
                ping = self._buffer.startswith(b"\r\n\r\n")
                self.pings += ping
                self.pongs += not ping
                self._buffer = self._buffer[4 if ping else 2 :]
            head, gap, rest = self._buffer.partition(b"\r\n\r\n")
            if not gap:
                return found
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if canonical(name.decode("latin-1")) == "content-length":
                    length = int(value)
            if len(rest) < length:
                return found
            found.append(self._buffer[: len(head) + 4 + length])
            self._buffer = rest[length:]


@dataclass(frozen=True)
class Address:
    """A name-addr or addr-spec: display name as written, the URI's text, the header parameters' text."""

    display: str
    uri: str
    tail: str


def address(value: str) -> Address:
    before, bracket, rest = value.partition("<")
    if bracket:
        uri, _, tail = rest.partition(">")
        return Address(before.strip(), uri, tail)
    uri, semicolon, tail = value.partition(";")
    return Address("", uri.strip(), semicolon + tail)


@dataclass(frozen=True)
class Uri:
    """A SIP URI taken apart; `port` 0 when absent, parameters in lower-case names."""

    scheme: str
    user: str
    host: str
    port: int
    params: dict[str, str]
    headers: str


def uri(text: str) -> Uri:
    scheme, _, rest = text.partition(":")
    rest, _, headers = rest.partition("?")
    user = ""
    if "@" in rest:
        user, _, rest = rest.rpartition("@")
    hostport, _, params = rest.partition(";")
    host, port = hostport, ""
    if hostport.startswith("["):
        host, _, port = hostport[1:].partition("]")
        port = port.lstrip(":")
    elif ":" in hostport:
        host, _, port = hostport.partition(":")
    return Uri(scheme.lower(), user, host, int(port or 0), parameters(";" + params), headers)


def parameters(text: str) -> dict[str, str]:
    """`;name=value` pairs after the first semicolon; a flag has the value ''."""
    found: dict[str, str] = {}
    for part in text.split(";")[1:]:
        name, _, value = part.partition("=")
        if name.strip():
            found[name.strip().lower()] = value.strip()
    return found


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def new_tag() -> str:
    return secrets.token_hex(6)


def new_branch() -> str:
    return "z9hG4bK" + secrets.token_hex(8)


def build_response(
    request: WireMessage,
    code: int,
    phrase: str = "",
    *,
    to_tag: str = "",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    content_type: str = "application/sdp",
    upper: bool = False,
) -> WireMessage:
    """A response with the request's Via, From, To, Call-ID, CSeq and Record-Route copied as they are.

    `to_tag` is added when the request's To has none; `upper` writes the names as Microsoft's proxy does.
    """
    copied = {"via", "from", "to", "call-id", "cseq", "record-route"}
    message = WireMessage(f"SIP/2.0 {code} {phrase or PHRASES.get(code, 'Unknown')}")
    for name, value in request.headers:
        key = canonical(name)
        if key not in copied or (key == "record-route" and not 100 < code < 300):
            continue
        if key == "to" and to_tag and not request.to_tag:
            value += f";tag={to_tag}"
        message.headers.append((key if not upper else key.upper(), value))
    if not upper:
        titles = {"via": "Via", "from": "From", "to": "To", "call-id": "Call-ID", "cseq": "CSeq"}
        message.headers = [(titles.get(key, "Record-Route"), value) for key, value in message.headers]
    message.headers.extend((name.upper() if upper else name, value) for name, value in headers)
    if body:
        message.headers.append(("CONTENT-TYPE" if upper else "Content-Type", content_type))
        message.body = body
    return message
