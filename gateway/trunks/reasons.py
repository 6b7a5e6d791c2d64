"""Endings in both directions: what a peer said -> Termination -> what the other side is told.

Tables: SIP status to Q.850 cause RFC 3398 8.2.6.1 (RFC 4497 agrees), cause to SIP status RFC 3398 7.2.4.1;
Reason header RFC 3326; Teams' habits facts/direct-routing.md 3.5. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import MessageError
from gateway.model import ReleasedBy, Result, Termination, TrunkKind
from gateway.sip.message_values import split_values

NORMAL_CLEARING = 16
NORMAL_CAUSES = frozenset({16, 17, 18, 19, 21, 26, 31})
"""Q.850 causes with which an answered call ends well: somebody put the phone down."""

_Q850_OF_STATUS = {
    400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 407: 21, 408: 102, 410: 22, 413: 127,
    414: 127, 415: 79, 416: 127, 420: 127, 421: 127, 423: 127, 480: 18, 481: 41, 482: 25, 483: 25, 484: 28,
    485: 1, 486: 17, 487: 16, 488: 65, 500: 41, 501: 79, 502: 38, 503: 41, 504: 102, 505: 127, 513: 127,
    600: 17, 603: 21, 604: 1, 606: 65,
}  # fmt: skip

_STATUS_OF_Q850 = {
    1: 404, 2: 404, 3: 404, 17: 486, 18: 408, 19: 480, 20: 480, 21: 403, 22: 410, 23: 410, 26: 404, 27: 502,
    28: 484, 29: 501, 31: 480, 34: 503, 38: 503, 41: 503, 42: 503, 47: 503, 55: 403, 57: 403, 58: 503,
    65: 488, 70: 488, 79: 501, 87: 403, 88: 503, 102: 504, 111: 500, 127: 500,
}  # fmt: skip

_PHRASES = {
    400: "Bad Request", 403: "Forbidden", 404: "Not Found", 408: "Request Timeout", 410: "Gone",
    480: "Temporarily Unavailable", 482: "Loop Detected", 483: "Too Many Hops", 484: "Address Incomplete",
    486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 500: "Server Internal Error",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Server Time-out",
    600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}  # fmt: skip

# result and reason word of a final status to our INVITE; what is missing is FAILED "peer_refused"
_ENDINGS: dict[int, tuple[Result, str]] = {
    401: (Result.FAILED, "credentials_refused"),
    402: (Result.REJECTED, "forbidden"),
    403: (Result.REJECTED, "forbidden"),
    404: (Result.NOT_FOUND, "unknown_number"),
    407: (Result.FAILED, "credentials_refused"),
    408: (Result.UNREACHABLE, "timeout"),
    410: (Result.NOT_FOUND, "number_gone"),
    480: (Result.NO_ANSWER, "unavailable"),
    482: (Result.FAILED, "loop"),
    483: (Result.FAILED, "loop"),
    484: (Result.NOT_FOUND, "number_incomplete"),
    485: (Result.NOT_FOUND, "number_ambiguous"),
    486: (Result.BUSY, "busy"),
    487: (Result.ABANDONED, "cancelled"),
    488: (Result.FAILED, "media_refused"),
    415: (Result.FAILED, "media_refused"),
    502: (Result.UNREACHABLE, "unreachable"),
    503: (Result.UNREACHABLE, "overloaded"),
    504: (Result.UNREACHABLE, "timeout"),
    600: (Result.BUSY, "busy"),
    603: (Result.DECLINED, "declined"),
    604: (Result.NOT_FOUND, "unknown_number"),
    606: (Result.FAILED, "media_refused"),
    607: (Result.DECLINED, "declined"),
    608: (Result.REJECTED, "forbidden"),
}

# a status that speaks about our own request or hop means something else to the other side
_TOLD_AS = {
    400: 500, 401: 403, 402: 403, 405: 500, 406: 500, 407: 403, 413: 500, 414: 500, 415: 488, 416: 500,
    420: 500, 421: 500, 422: 500, 423: 500, 481: 500, 485: 404, 487: 480, 489: 500, 491: 500, 493: 500,
    494: 500, 505: 500, 513: 500, 607: 603, 608: 603,
}  # fmt: skip

# Teams documents no meaning for these, but one for their neighbours (facts 3.5)
_TOLD_TEAMS_AS = {410: 404, 501: 500, 502: 503, 600: 486, 604: 404, 606: 488}

_GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_CORRELATED = re.compile(rf"\s*(?P<guid>{_GUID})\s*(?:;\s*(?P<phrase>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reason:
    """One Reason header value (RFC 3326): protocol in upper case, cause 0 when it has none."""

    protocol: str
    cause: int
    text: str


@dataclass(frozen=True, slots=True)
class SipAnswer:
    """A final response for the other side: status, phrase, and the headers to send with it."""

    code: int
    phrase: str
    headers: tuple[tuple[str, str], ...] = ()


def parse_reasons(values: Iterable[str]) -> tuple[Reason, ...]:
    """The Reason values that can be read, in order; rubbish is left out, nothing raises."""
    found: list[Reason] = []
    for value in _each(values):
        protocol, _, rest = value.partition(";")
        cause, text = 0, ""
        for name, content in _parameters(rest):
            if name == "cause" and content.isascii() and content.isdigit() and len(content) < 8:
                cause = int(content)
            elif name == "text":
                text = content
        if protocol.strip():
            found.append(Reason(protocol.strip().upper(), cause, text))
    return tuple(found)


def _each(values: Iterable[str]) -> list[str]:
    found: list[str] = []
    for line in values:
        try:
            found.extend(split_values(line))
        except MessageError:
            continue
    return found


def _parameters(text: str) -> list[tuple[str, str]]:
    """`a=b;c="d;e"` in pairs; a quoted string keeps its semicolons (Teams: `text="<guid>;<phrase>"`)."""
    pattern = re.compile(r';?\s*([^=;\s"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
    return [
        (name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else bare.strip())
        for name, quoted, bare in pattern.findall(text)
    ]


def correlation(text: str) -> tuple[str, str]:
    """Teams' Reason text `<guid>;<phrase>` as (guid in lower case, phrase); ("", text) when it has no guid.

    The guid is what Microsoft's support and call records know the call by (facts 3.3, 8).
    """
    match = _CORRELATED.fullmatch(text)
    if match is None:
        return "", text
    return match["guid"].lower(), (match["phrase"] or "").strip()


def reason_text(reasons: Iterable[Reason]) -> str:
    """The peer's own words: the first text there is, Teams' guid and sub-code kept; "" when none."""
    return next((reason.text for reason in reasons if reason.text), "")


def _cause(reasons: Iterable[Reason], fallback: int) -> int:
    return next((r.cause for r in reasons if r.protocol == "Q.850" and 0 < r.cause < 128), fallback)


def q850_of(status: int) -> int:
    """The cause for a final status; classes of their own: 4xx 127, 5xx 41, 6xx 21, 3xx 23."""
    known = _Q850_OF_STATUS.get(status)
    if known is not None:
        return known
    return {3: 23, 5: 41, 6: 21}.get(status // 100, 127)


def status_of(q850: int) -> int:
    """The final status for a cause (RFC 3398 7.2.4.1); an unknown or normal cause is 480."""
    return _STATUS_OF_Q850.get(q850, 480)


def from_response(
    code: int, phrase: str = "", reasons: Iterable[str] = (), *, by: ReleasedBy, rang: bool = False
) -> Termination:
    """How an outgoing INVITE ended that got the final status `code` (300..699).

    reasons: the response's Reason header values; by: the side that answered (normally CALLEE);
    rang: an 18x had been heard, which turns a time-out into "nobody answered".
    """
    parsed = parse_reasons(reasons)
    if 300 <= code < 400:
        result, word = Result.UNREACHABLE, "redirected"
    else:
        default = "peer_failed" if 500 <= code < 600 else "peer_refused"
        result, word = _ENDINGS.get(code, (Result.FAILED, default))
    if rang and code in (408, 504):
        result, word = Result.NO_ANSWER, "no_answer"
    return Termination(
        result=result,
        reason=word,
        sip_code=code,
        q850=_cause(parsed, 19 if rang and code in (408, 480) else q850_of(code)),
        released_by=by,
        text=reason_text(parsed) or phrase,
    )


def from_timeout(*, rang: bool, text: str = "") -> Termination:
    """No final response came: ring timeout after an 18x, or plain silence."""
    if rang:
        return Termination(Result.NO_ANSWER, "no_answer", 480, 19, ReleasedBy.SYSTEM, text)
    return Termination(Result.UNREACHABLE, "timeout", 408, 102, ReleasedBy.SYSTEM, text)


def from_transport(text: str) -> Termination:
    """No peer of the trunk could be reached: refused, TLS failed, name unknown."""
    return Termination(Result.UNREACHABLE, "unreachable", 503, 38, ReleasedBy.SYSTEM, text)


def from_cancel(reasons: Iterable[str] = ()) -> Termination:
    """The caller gave up before an answer."""
    parsed = parse_reasons(reasons)
    elsewhere = any(r.protocol == "SIP" and r.cause == 200 for r in parsed)
    return Termination(
        Result.COMPLETED if elsewhere else Result.ABANDONED,
        "answered_elsewhere" if elsewhere else "cancelled",
        487,
        _cause(parsed, 26 if elsewhere else NORMAL_CLEARING),
        ReleasedBy.CALLER,
        reason_text(parsed),
    )


def from_bye(reasons: Iterable[str] = (), *, by: ReleasedBy) -> Termination:
    """An answered call was hung up; a Reason with a cause that is no normal one makes it a failure."""
    parsed = parse_reasons(reasons)
    cause = _cause(parsed, 0)
    status = next((r.cause for r in parsed if r.protocol == "SIP" and 300 <= r.cause < 700), 0)
    if not cause:
        cause = q850_of(status) if status else NORMAL_CLEARING
    failed = cause not in NORMAL_CAUSES
    return Termination(
        Result.FAILED if failed else Result.COMPLETED,
        "peer_failed" if failed else "hangup",
        200,
        cause,
        by,
        reason_text(parsed),
    )


def answer_for(termination: Termination, toward: TrunkKind) -> SipAnswer:
    """The final response to the caller's INVITE when the other side ended like that.

    Definite endings stay definite (486 and 603 make nobody hunt on), a lack of capacity or of reachable
    peers stays 503 so that Teams tries another gateway (its FailoverResponseCodes are 408, 503, 504), and
    what concerned only our own request to the other side becomes 500. Q.850 goes along as Reason.
    """
    code = termination.sip_code
    if not 400 <= code < 700:
        code = status_of(termination.q850)
    code = _TOLD_AS.get(code, code)
    if termination.result is Result.NO_ANSWER and code in (408, 504):
        # 408 and 504 make Teams try the next trunk, and the phone that rang would ring a second time
        code = 480
    if toward is TrunkKind.DIRECT_ROUTING:
        code = _TOLD_TEAMS_AS.get(code, code)
    if code not in _PHRASES:
        code = {4: 480, 5: 500}.get(code // 100, 603)
    return SipAnswer(code, _PHRASES[code], (("Reason", termination.reason_header),))


def bye_headers(termination: Termination) -> tuple[tuple[str, str], ...]:
    """Headers for the BYE or CANCEL that tells the other leg about this ending."""
    return (("Reason", termination.reason_header),)
