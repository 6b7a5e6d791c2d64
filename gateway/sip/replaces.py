"""The Replaces header (RFC 3891): a new INVITE that takes the place of a dialog we have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import MessageError, SipError
from gateway.sip.message import Request
from gateway.sip.session_state import OVER, TALKING, SessionState

if TYPE_CHECKING:
    from gateway.sip.session import Session
    from gateway.sip.useragent import UserAgent


@dataclass(frozen=True, slots=True)
class Replaces:
    """Tags from our view: `local_tag` is the header's to-tag, `remote_tag` its from-tag."""

    call_id: str
    local_tag: str
    remote_tag: str
    early_only: bool


def parse_replaces(request: Request) -> Replaces | None:
    """None when the request has no Replaces; MessageError(400) for several, or one that cannot be read
    (RFC 3891 3).
    """
    values = request.headers.getlist("Replaces")
    if not values:
        return None
    if len(values) != 1 or "," in values[0]:
        raise MessageError(400, "More than one Replaces")
    return read_replaces(values[0])


def read_replaces(value: str) -> Replaces:
    """One Replaces value, as in the header or unescaped from a Refer-To; MessageError(400)."""
    call_id, *parameters = (part.strip() for part in value.split(";"))
    found: dict[str, str] = {}
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        key = name.strip().lower()
        if key in found:
            raise MessageError(400, f"Replaces with two {key}")
        found[key] = value.strip()
    if not call_id or not found.get("to-tag") or not found.get("from-tag"):
        raise MessageError(400, "Malformed Replaces")
    return Replaces(call_id, found["to-tag"], found["from-tag"], "early-only" in found)


def match_replaces(agent: UserAgent, replaces: Replaces, *, unanswered: bool = False) -> Session:
    """The session to be replaced (RFC 3891 3); SipError 481 none, 486 early-only but answered, 603 already
    over.

    An early dialog matches only when we sent its INVITE, or with `unanswered`: for a REFER that we carry out
    ourselves the rule against it (a race of our 200 with the replacing one) has no reason.
    """
    for local, remote in (
        (replaces.local_tag, replaces.remote_tag),
        (_null(replaces.local_tag), _null(replaces.remote_tag)),
    ):
        session = agent.find(replaces.call_id, local, remote)
        if session is None:
            continue
        if session.state in OVER:
            raise SipError(603, "The dialog to be replaced has ended")
        if session.state in TALKING:
            if replaces.early_only:
                raise SipError(486, "The dialog to be replaced is answered")
            return session
        if session.state is SessionState.PROCEEDING:
            return session
        if unanswered and session.state is SessionState.INCOMING:
            return session
    raise SipError(481, "No dialog matches Replaces")


def _null(tag: str) -> str:
    """Tag "0" stands for no tag at all (RFC 3891 6.1)."""
    return "" if tag == "0" else tag
