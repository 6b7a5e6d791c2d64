"""Header values read as text, so that what Teams must get back byte-exact is never rebuilt by a parser.

Pure functions. A value that cannot be read is a MessageError(400).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP

from sipmessage import Headers

from gateway.errors import MessageError
from gateway.sip.message import Message, Request, parse_name_addr, split_values
from gateway.sip.transport_types import bracketed

SDP_TYPE = "application/sdp"

OWNED = frozenset(
    name.lower()
    for name in (
        "Via",
        "From",
        "To",
        "Call-ID",
        "CSeq",
        "Contact",
        "Max-Forwards",
        "Allow",
        "Supported",
        "User-Agent",
        "Server",
        "Content-Length",
        "Content-Type",
        "Session-Expires",
        "Min-SE",
        "Route",
        "Record-Route",
        "RSeq",
        "RAck",
        "Authorization",
        "Proxy-Authorization",
    )
)
"""Headers the stack writes itself; a caller's own value for one of them is dropped."""

_URI_USER = re.compile(r"^sips?:(?P<user>[^@]*)@", re.IGNORECASE)
_URI_HOST = re.compile(
    r"^(?P<scheme>sips?):(?:[^@]*@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^:;?>\s\[\]]+)(?::(?P<port>\d{1,5}))?(?P<rest>.*)$",
    re.IGNORECASE,
)


def header_list(headers: Headers, name: str) -> list[str]:
    """All values of a list header in order, each as written."""
    return [part for value in headers.getlist(name) for part in split_values(value)]


def tokens(headers: Headers, name: str) -> list[str]:
    """The option tags or methods of a token-list header, as written."""
    return [token.strip() for value in headers.getlist(name) for token in value.split(",") if token.strip()]


def allowed_methods(message: Message) -> frozenset[str] | None:
    """Methods of the Allow header, upper case; None when the message has no Allow at all."""
    if message.headers.get("Allow") is None:
        return None
    return frozenset(token.upper() for token in tokens(message.headers, "Allow"))


def tag_of(value: str) -> str:
    """The tag parameter of a From or To value, "" when there is none (RFC 2543 peers)."""
    return parse_name_addr(value).tag or ""


def uri_of(value: str) -> str:
    """The URI of a name-addr or addr-spec, byte-exact."""
    return parse_name_addr(value).uri_text


def uri_user(uri: str) -> str:
    """The user part of a sip URI as written, "" when it has none."""
    match = _URI_USER.match(uri)
    return match.group("user") if match else ""


def has_loose_route(route: str) -> bool:
    """Whether a Route value's URI carries the `lr` parameter (RFC 3261 16.12)."""
    return re.search(r";\s*lr\s*(?:[;=?]|$)", uri_of(route), re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a URI points: the place to send to, before any name is resolved."""

    host: str
    port: int | None
    transport: str
    secure: bool

    @property
    def is_address(self) -> bool:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def hop_of(uri: str) -> Hop:
    """Host, port and transport parameter of a sip or sips URI (RFC 3261 8.1.2)."""
    match = _URI_HOST.match(uri.strip())
    if match is None:
        raise MessageError(416, "Not a usable SIP URI to send to")
    parameters = re.search(r";\s*transport\s*=\s*([^;?\s]+)", match.group("rest"), re.IGNORECASE)
    maddr = re.search(r";\s*maddr\s*=\s*([^;?\s]+)", match.group("rest"), re.IGNORECASE)
    host = maddr.group(1) if maddr else match.group("host")
    port = match.group("port")
    return Hop(
        host=host.strip("[]"),
        port=int(port) if port else None,
        transport=parameters.group(1).lower() if parameters else "",
        secure=match.group("scheme").lower() == "sips",
    )


def cseq_of(message: Message) -> int:
    """CSeq number; MessageError(400) when it is missing or malformed."""
    return message.cseq.sequence


def positive_int(headers: Headers, name: str) -> int | None:
    """A header that begins with a whole number (`Retry-After: 5 (busy)`); None when absent or not a
    number.
    """
    match = re.match(r"\s*(\d{1,10})", headers.get(name) or "")
    return int(match.group(1)) if match else None


def extra_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The caller's headers without those that the stack writes itself: never two of them in a message."""
    return [(name, value) for name, value in headers if name.lower() not in OWNED]


def media_type(message: Message) -> str:
    """Type and subtype of the body, lower case, without parameters; "" when not given."""
    return (message.headers.get("Content-Type") or "").split(";")[0].strip().lower()


def session_description(message: Message) -> bytes | None:
    """The SDP a message carries, also out of a multipart body (PIDF-LO, facts 3.2); None when there is none.

    A body that is something else, or is encoded, is MessageError(415): nothing in it can be used.
    """
    if not message.body:
        return None
    encoding = (message.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise MessageError(415, "Unsupported Content-Encoding")
    kind = media_type(message)
    if kind == SDP_TYPE:
        return message.body
    if kind.startswith("multipart/"):
        return _from_multipart(message)
    if isinstance(message, Request) and _is_optional(message):
        return None
    raise MessageError(415, f"Unsupported Content-Type {kind or 'missing'}")


def _is_optional(message: Message) -> bool:
    return "handling=optional" in (message.headers.get("Content-Disposition") or "").replace(" ", "").lower()


def _from_multipart(message: Message) -> bytes | None:
    head = f"Content-Type: {message.headers.get('Content-Type')}\r\n\r\n".encode()
    parsed = BytesParser(policy=HTTP).parsebytes(head + message.body)
    for part in parsed.walk():
        if part.get_content_type() == SDP_TYPE:
            payload = part.get_payload(decode=True)
            return payload if isinstance(payload, bytes) else None
    raise MessageError(415, "No application/sdp part in the multipart body")


def directions_agree(offer: bytes, answer: bytes) -> bool:
    """Whether `answer` may answer `offer` as far as direction goes (RFC 3264 6.1)."""
    legal = {
        "sendrecv": {"sendrecv", "sendonly", "recvonly", "inactive"},
        "sendonly": {"recvonly", "inactive"},
        "recvonly": {"sendonly", "inactive"},
        "inactive": {"inactive"},
    }
    return _direction(answer) in legal[_direction(offer)]


def _direction(sdp: bytes) -> str:
    found = re.findall(rb"^a=(sendrecv|sendonly|recvonly|inactive)\s*$", sdp, re.MULTILINE)
    return found[-1].decode() if found else "sendrecv"


def warning(host: str, text: str) -> tuple[str, str]:
    """A Warning header of the miscellaneous kind (RFC 3261 20.43)."""
    safe = text.replace("\\", "").replace('"', "'")
    return "Warning", f'399 {bracketed(host) or "gateway"} "{safe}"'


def merged(*groups: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Header groups one after the other; a name in an earlier group hides it in the later ones."""
    result: list[tuple[str, str]] = []
    seen: set[str] = set()
    for group in groups:
        names = {name.lower() for name, _ in group}
        result.extend((name, value) for name, value in group if name.lower() not in seen)
        seen |= names
    return result
