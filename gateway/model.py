"""Ids and values every room shares: parties, trunks, and how a leg or call ended."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

CallId = NewType("CallId", str)
"""Our own id of a Call (not the SIP Call-ID): 32 hexadecimal digits."""
LegId = NewType("LegId", str)
"""Our own id of a Leg: 32 hexadecimal digits; also its call-id in rtpengine."""
InteractionId = NewType("InteractionId", str)
"""Global interaction id: UUID text, shared by every call of one customer interaction."""


def new_call_id() -> CallId:
    return CallId(uuid.uuid4().hex)


def new_leg_id() -> LegId:
    return LegId(uuid.uuid4().hex)


def new_interaction_id() -> InteractionId:
    return InteractionId(str(uuid.uuid4()))


class PartyType(StrEnum):
    """Who sits behind a leg; decides whose hold counts as hold time (facts/call-detail.md 5.1, 5.2)."""

    AGENT = "agent"
    TEAMS_EXPERT = "teams_expert"
    EXTERNAL = "external"


class TrunkKind(StrEnum):
    SIP = "sip"
    DIRECT_ROUTING = "direct-routing"


class Role(StrEnum):
    """A leg's part in its call."""

    CALLER = "caller"
    CALLEE = "callee"
    PARTICIPANT = "participant"


class ReleasedBy(StrEnum):
    """Which side ended it; SYSTEM is the gateway itself (time limits, faults, drain)."""

    CALLER = "caller"
    CALLEE = "callee"
    PARTICIPANT = "participant"
    SYSTEM = "system"


class Result(StrEnum):
    """How an attempt or call ended, in one word."""

    COMPLETED = "completed"
    ABANDONED = "abandoned"
    BUSY = "busy"
    DECLINED = "declined"
    NO_ANSWER = "no_answer"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


_LEVELS = {
    Result.FAILED: logging.ERROR,
    Result.UNREACHABLE: logging.WARNING,
    Result.REJECTED: logging.WARNING,
}


@dataclass(frozen=True, slots=True)
class Termination:
    """One ending, made once; SIP answer, log level, metric and call-detail row derive from it.

    reason:    one lower-case word or words_joined_so for logs, metrics and rows (bounded set)
    sip_code:  the final SIP status of the attempt; 200 for an answered call that was hung up
    q850:      ITU-T Q.850 cause (16 = normal clearing)
    text:      the peer's own words (Reason text, with Teams' correlation id), "" when none
    """

    result: Result
    reason: str
    sip_code: int
    q850: int
    released_by: ReleasedBy
    text: str = ""

    @property
    def log_level(self) -> int:
        return _LEVELS.get(self.result, logging.INFO)

    @property
    def reason_header(self) -> str:
        """Reason header value (RFC 3326) to send with the BYE, CANCEL or final response."""
        return f'Q.850;cause={self.q850};text="{self.reason}"'
