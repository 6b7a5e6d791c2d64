"""Making requests and responses, and the identifiers in them (RFC 3261 8.1.1, 8.2.6).

Import all of it from `gateway.sip.message`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence

from sipmessage import Headers

from gateway.errors import MessageError
from gateway.sip.message_types import Request, Response
from gateway.sip.message_values import parse_name_addr

BRANCH_COOKIE = "z9hG4bK"
ECHOED = ("Via", "From", "To", "Call-ID", "CSeq")
"""What every response copies from its request."""

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
    for name in ECHOED:
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
