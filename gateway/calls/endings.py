"""Our own failures as endings, and what a peer is told about them."""

from __future__ import annotations

from gateway.calls.leg import Leg
from gateway.errors import MediaError, Overloaded, SipError
from gateway.model import ReleasedBy, Result, Termination
from gateway.sip.message import Message
from gateway.sip.session_values import warning as warning_header
from gateway.trunks.reasons import SipAnswer, correlation, parse_reasons, reason_text


def failure(error: SipError) -> Termination:
    """How a leg or call ends that our own side could not serve."""
    if error.code in (400, 415, 488):
        return Termination(Result.FAILED, "media_refused", error.code, 65, ReleasedBy.SYSTEM, error.text)
    if isinstance(error, Overloaded):
        return Termination(Result.REJECTED, error.reason, error.code, 42, ReleasedBy.SYSTEM, error.text)
    reason = "no_media" if error.code == 503 else "internal_error"
    return Termination(Result.FAILED, reason, error.code, 41, ReleasedBy.SYSTEM, error.text)


def warning(leg: Leg, error: SipError) -> tuple[str, str]:
    """Warning header with our name toward this peer.

    What rtpengine and the rooms say is for our log: it may name them and their addresses.
    """
    text = "media cannot be served" if isinstance(error, MediaError) else error.text
    return warning_header(leg.trunk.profile(leg.tenant).contact_host, text)


def refusal(leg: Leg, error: SipError) -> SipAnswer:
    """The final response to an INVITE that we cannot serve as it is."""
    return SipAnswer(error.code, "", (warning(leg, error), ("Reason", failure(error).reason_header)))


def correlation_of(message: Message | None) -> str:
    """Teams' correlation id from a message's Reason texts, "" when there is none (facts 3.3)."""
    if message is None:
        return ""
    return correlation(reason_text(parse_reasons(message.headers.getlist("Reason"))))[0]
