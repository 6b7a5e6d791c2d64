"""Header values taken apart: comma lists, name-addr, Via, CSeq (RFC 3261 25.1), linear in the input's length.

Own code and not sipmessage's because its quoted-string runs to the last quote of the header: two quoted
display names in one Contact, or `"A" <sip:a>;x="<sip:b>"`, are misread, and a parameter called `self` raises
TypeError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sipmessage import URI, Parameters

from gateway.errors import MessageError

TOKEN = r"[A-Za-z0-9\-.!%*_+`'~]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'

TOKEN_PATTERN = re.compile(TOKEN)
_PIECE = re.compile(rf'{_QUOTED}|<[^>]*>|[^",<]+', re.DOTALL)
_NAME_ADDR = re.compile(
    rf"\s*(?P<display>{_QUOTED}|[A-Za-z0-9\-.!%*_+`'~\s]*)\s*<(?P<uri>[^<>\s]+)>(?P<params>.*)", re.DOTALL
)
# Outside angle brackets a URI may not hold comma, question mark or semicolon (RFC 3261 20).
_ADDR_SPEC = re.compile(r'\s*(?P<uri>[^\s;,?<>"]+)(?P<params>(?:\s*;.*)?)', re.DOTALL)
_PARAM = re.compile(rf'\s*;\s*({TOKEN})(?:\s*=\s*({_QUOTED}|[^\s;,"=]+))?\s*', re.DOTALL)
_VIA = re.compile(
    rf"\s*SIP\s*/\s*2\.0\s*/\s*(?P<transport>{TOKEN})\s+"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._]+)(?:\s*:\s*(?P<port>\d{1,5}))?(?P<params>.*)",
    re.DOTALL | re.IGNORECASE,
)
_VIA_VERSION = re.compile(r"^\s*SIP\s*/\s*\d+\.\d+", re.IGNORECASE)
_CSEQ = re.compile(rf"(\d{{1,20}})\s+({TOKEN})")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+\-.]*):")
_MAX_URI = 4096
_MAX_TEL = 256


def split_values(value: str) -> list[str]:
    """Split a header value at commas outside quotes and angle brackets; MessageError(400) if one is open."""
    if "," not in value:
        return [value.strip()] if value.strip() else []
    values: list[str] = []
    start = position = 0
    while position < len(value):
        if value[position] == ",":
            values.append(value[start:position].strip())
            position = start = position + 1
            continue
        piece = _PIECE.match(value, position)
        if piece is None:
            raise MessageError(400, "Unbalanced quotes or brackets in a header")
        position = piece.end()
    values.append(value[start:].strip())
    if not all(values):
        raise MessageError(400, "Empty element in a header list")
    return values


def parse_params(text: str) -> dict[str, str | None]:
    """`;a=b;c` to {"a": "b", "c": None}: names in lower case, values without quotes, first one wins."""
    params: dict[str, str | None] = {}
    position, end = 0, len(text)
    while position < end:
        found = _PARAM.match(text, position)
        if found is None:
            if not text[position:].strip():
                break
            raise MessageError(400, "Malformed header parameter")
        name, value = found.groups()
        if value is not None and value.startswith('"'):
            value = unquote(value)
        params.setdefault(name.lower(), value)
        position = found.end()
    return params


def unquote(text: str) -> str:
    """The text of a quoted-string without quotes and escapes; anything else as it is."""
    if len(text) >= 2 and text.startswith('"') and text.endswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def parse_uri(text: str) -> URI:
    """A sip, sips or tel URI without its `?headers`; MessageError 416: another scheme, 400: malformed."""
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise MessageError(400, "Malformed URI")
    name = scheme.group(1).lower()
    if name not in ("sip", "sips", "tel"):
        raise MessageError(416, "Unsupported URI Scheme")
    rest = text[scheme.end() :]
    if len(rest) > (_MAX_TEL if name == "tel" else _MAX_URI):
        raise MessageError(414, "Request-URI Too Long")
    if name != "tel":
        at = rest.find("@") + 1
        question = rest.find("?", at)
        if question >= 0:
            rest = rest[:question]
    try:
        return URI.parse(f"{name}:{rest}")
    except (ValueError, TypeError):
        raise MessageError(400, "Malformed URI") from None


def uri_headers(text: str) -> str:
    """What follows `?` in a SIP URI (the escaped headers of RFC 3261 19.1.1), "" when there is nothing."""
    question = text.find("?", text.find("@") + 1)
    return text[question + 1 :] if question >= 0 else ""


@dataclass(frozen=True, slots=True)
class NameAddr:
    """One value of From, To, Contact, Route, Refer-To…: the URI byte-exact, parameter names in lower case."""

    uri_text: str
    display: str = ""
    params: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def uri(self) -> URI:
        """MessageError(416 | 400) when it is not a usable sip, sips or tel URI."""
        return parse_uri(self.uri_text)

    @property
    def tag(self) -> str | None:
        return self.params.get("tag")


def parse_name_addr(value: str) -> NameAddr:
    """One name-addr or addr-spec with its parameters; MessageError(400) when malformed."""
    found = _NAME_ADDR.fullmatch(value)
    if found is not None:
        display = found.group("display").strip()
        display = unquote(display) if display.startswith('"') else " ".join(display.split())
    else:
        found = _ADDR_SPEC.fullmatch(value)
        if found is None:
            raise MessageError(400, "Malformed address in a header")
        display = ""
    uri_text = found.group("uri")
    if _SCHEME.match(uri_text) is None:
        raise MessageError(400, "Malformed URI in a header")
    return NameAddr(uri_text, display, parse_params(found.group("params")))


@dataclass(frozen=True, slots=True)
class ViaValue:
    """One Via: `transport` in upper case, `host` as written (IPv6 in brackets), `port` None when absent."""

    transport: str
    host: str
    port: int | None
    params: Mapping[str, str | None]

    @property
    def branch(self) -> str:
        return self.params.get("branch") or ""

    @property
    def sent_by(self) -> str:
        """host:port in lower case as RFC 3261 17.2.3 compares it, the transport's default port filled in."""
        port = self.port if self.port is not None else (5061 if self.transport == "TLS" else 5060)
        return f"{self.host.lower()}:{port}"


def parse_via(value: str) -> ViaValue:
    """One Via value; MessageError(400) when malformed."""
    via = _parse_via_head(value)
    return ViaValue(
        via.group("transport").upper(), via.group("host"), _port(via), parse_params(via.group("params"))
    )


def salvage_via(value: str) -> str | None:
    """A Via that can carry a refusal back, made of one that is malformed; None when even its head is.

    Of a Via of another SIP version all but the version is kept, else protocol and sent-by only.
    """
    text = _VIA_VERSION.sub("SIP/2.0", value, count=1)
    try:
        via = _parse_via_head(text)
        port = "" if _port(via) is None else f":{_port(via)}"
    except MessageError:
        return None
    try:
        parse_params(via.group("params"))
    except MessageError:
        return f"SIP/2.0/{via.group('transport')} {via.group('host')}{port}"
    return text


def _parse_via_head(value: str) -> re.Match[str]:
    via = _VIA.fullmatch(value)
    if via is None:
        raise MessageError(400, "Malformed Via")
    return via


def _port(via: re.Match[str]) -> int | None:
    text = via.group("port")
    if text is None:
        return None
    port = int(text)
    if not 0 < port < 65536:
        raise MessageError(400, "Malformed port in Via")
    return port


def parse_cseq(value: str) -> tuple[int, str]:
    """(number, method); the number is below 2**31 (RFC 3261 8.1.1.5). MessageError(400) otherwise."""
    found = _CSEQ.fullmatch(value.strip())
    if found is None or int(found.group(1)) >= 2**31:
        raise MessageError(400, "Malformed CSeq")
    return int(found.group(1)), found.group(2)


def to_parameters(params: Mapping[str, str | None]) -> Parameters:
    """sipmessage's mapping of the same parameters; MessageError(400) for the one name it cannot hold."""
    if "self" in params:
        raise MessageError(400, "Unusable header parameter")
    return Parameters(**params)
