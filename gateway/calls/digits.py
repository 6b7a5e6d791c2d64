"""DTMF that comes in SIP INFO instead of RTP (RFC 4733 passes through rtpengine untouched)."""

from __future__ import annotations

from gateway.sip.message import Request

DIGITS = frozenset("0123456789*#ABCD")
DEFAULT_MS = 160
SHORTEST_MS, LONGEST_MS = 40, 6000


def dtmf_of(request: Request) -> tuple[str, int] | None:
    """(digit, milliseconds) of an INFO with application/dtmf-relay or application/dtmf; None for others."""
    kind = (request.headers.get("Content-Type") or "").split(";")[0].strip().lower()
    if request.method != "INFO" or kind not in ("application/dtmf-relay", "application/dtmf"):
        return None
    text = request.body.decode("ascii", "replace")
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition("=") for line in text.splitlines())
    }
    digit = (fields.get("signal", "") if kind.endswith("relay") else text.strip()).upper()
    if len(digit) != 1 or digit not in DIGITS:
        return None
    duration = fields.get("duration", "")
    milliseconds = int(duration) if duration.isascii() and duration.isdigit() else DEFAULT_MS
    return digit, min(max(milliseconds, SHORTEST_MS), LONGEST_MS)
