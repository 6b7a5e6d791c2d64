"""The journal's vocabulary: everything that happens to a call, as frozen records.

Each event names its call and the moment (`at`, milliseconds since the epoch, UTC). Call detail, the
event stream of the API and the recovery after a restart are pure functions of these. Fields may be added
with a default; none is ever renamed or removed, because old journals are read with today's code.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gateway.model import (
    CallId,
    InteractionId,
    LegId,
    PartyType,
    ReleasedBy,
    Result,
    Role,
    Termination,
)

_REGISTRY: dict[str, type[Event]] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Base of all journal records."""

    kind: ClassVar[str] = ""

    call: CallId
    at: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: `kind` and the fields, enums as their text, a Termination as an object."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


def _register(cls: type[Event]) -> type[Event]:
    _REGISTRY[cls.kind] = cls
    return cls


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class CallStarted(Event):
    """A call exists: an INVITE was admitted, or a command placed a call."""

    kind: ClassVar[str] = "call_started"
    interaction: InteractionId
    from_number: str
    to_number: str
    consultation_of: CallId | None = None


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegCreated(Event):
    """A leg joined the call's book-keeping; it need not have been answered.

    number: the far party's number as dialled or presented; also one that it withheld from the other party
    login:  the agent's login when the leg was recognised as an agent's, else ""
    sip_call_id: Call-ID of its dialog, "" until known
    """

    kind: ClassVar[str] = "leg_created"
    leg: LegId
    trunk: str
    party: PartyType
    role: Role
    number: str
    login: str = ""
    sip_call_id: str = ""
    host: bool = False


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegDialled(Event):
    """An INVITE left for `peer` (an address of the trunk); `attempt` counts from 1."""

    kind: ClassVar[str] = "leg_dialled"
    leg: LegId
    peer: str
    attempt: int


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegAttemptFailed(Event):
    """One hunting attempt ended without an answer; the leg may go on to the next peer."""

    kind: ClassVar[str] = "leg_attempt_failed"
    leg: LegId
    peer: str
    attempt: int
    sip_code: int
    text: str = ""


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegRinging(Event):
    """The first 18x of a leg; `early_media` when it carried a usable description."""

    kind: ClassVar[str] = "leg_ringing"
    leg: LegId
    sip_code: int
    early_media: bool = False


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegAnswered(Event):
    """The leg has a confirmed dialog and media; `codec` as `PCMA`, `PCMU` or `G722`."""

    kind: ClassVar[str] = "leg_answered"
    leg: LegId
    codec: str
    srtp: bool = False


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegJoined(Event):
    """Membership change: from here on the leg is one of those who talk (starts a segment)."""

    kind: ClassVar[str] = "leg_joined"
    leg: LegId


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegLeft(Event):
    """Membership change: the leg no longer talks here (hung up, transferred away, moved)."""

    kind: ClassVar[str] = "leg_left"
    leg: LegId


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegHeld(Event):
    """`leg` put the call on hold; `by` is the party type of the one who holds."""

    kind: ClassVar[str] = "leg_held"
    leg: LegId
    by: PartyType


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegResumed(Event):
    """`leg` retrieved the call it had held."""

    kind: ClassVar[str] = "leg_resumed"
    leg: LegId
    by: PartyType


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegMuted(Event):
    """A leg was muted or unmuted in its conference."""

    kind: ClassVar[str] = "leg_muted"
    leg: LegId
    muted: bool


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegTransferred(Event):
    """A transfer changed who talks.

    leg:     the one who transferred (REFER, Replaces or command)
    mode:    blind, attended or replaces
    target:  number or URI transferred to
    outcome: started, completed or failed
    new_leg: the leg that takes over, once it exists
    """

    kind: ClassVar[str] = "leg_transferred"
    leg: LegId
    mode: str
    target: str
    outcome: str
    new_leg: LegId | None = None
    sip_code: int = 0


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class MediaMoved(Event):
    """The call's sound moved: `to` is "bridge" or a room's name; `cause` one word."""

    kind: ClassVar[str] = "media_moved"
    to: str
    cause: str


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegMedia(Event):
    """RTP statistics of a leg, taken when its anchor is removed.

    packets/bytes are RTP; loss in packets as reported; jitter and rtt in milliseconds; MOS 1.0..4.5, None
    where no RTCP report came. `errors` are packets rtpengine could not use (wrong key, wrong source).
    """

    kind: ClassVar[str] = "leg_media"
    leg: LegId
    packets_received: int = 0
    packets_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    errors: int = 0
    lost: int | None = None
    jitter_ms: float | None = None
    rtt_ms: float | None = None
    mos: float | None = None


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class LegEnded(Event):
    """The leg is over; `correlation` is Teams' id from its Reason text, "" when none."""

    kind: ClassVar[str] = "leg_ended"
    leg: LegId
    termination: Termination
    correlation: str = ""


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class Waited(Event):
    """What a trusted header of the first INVITE told: how long the caller had waited in the contact center
    before it, milliseconds.
    """

    kind: ClassVar[str] = "waited"
    ivr_ms: int = 0
    queue_ms: int = 0


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class StageEntered(Event):
    """The contact center told where it has the call now: ivr, queue, ringing or connected."""

    kind: ClassVar[str] = "stage_entered"
    stage: str


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class CallEnded(Event):
    """The call is over and its row can be made; only WorkBegan and WorkEnded may follow under its id."""

    kind: ClassVar[str] = "call_ended"
    termination: Termination


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class WorkBegan(Event):
    """An agent's after-call work on this call began at `at`."""

    kind: ClassVar[str] = "work_began"
    login: str


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class WorkEnded(Event):
    """It is over; `began` as in WorkBegan's `at`. A row that was made before is made again."""

    kind: ClassVar[str] = "work_ended"
    login: str
    began: int


@_register
@dataclass(frozen=True, kw_only=True, slots=True)
class Noted(Event):
    """A remark worth keeping that changes no row: `what` is a bounded word, `detail` free but not secret."""

    kind: ClassVar[str] = "noted"
    what: str
    leg: LegId | None = None
    detail: dict[str, Any] = field(default_factory=dict)


LATE_KINDS = frozenset({WorkBegan.kind, WorkEnded.kind})
"""What may follow a call's CallEnded."""

KINDS: tuple[str, ...] = tuple(_REGISTRY)
"""Every kind of event."""


def from_dict(record: dict[str, Any]) -> Event:
    """Inverse of `Event.to_dict`; unknown fields are dropped, an unknown kind is a ValueError."""
    kind = record.get("kind")
    cls = _REGISTRY.get(str(kind))
    if cls is None:
        raise ValueError(f"unknown event kind {kind!r}")
    names = {f.name for f in dataclasses.fields(cls)}
    values = {key: value for key, value in record.items() if key in names}
    if isinstance(values.get("termination"), dict):
        values["termination"] = termination_from_dict(values["termination"])
    for key, enum in (("party", PartyType), ("by", PartyType), ("role", Role)):
        if key in values:
            values[key] = enum(values[key])
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"incomplete {kind} event: {error}") from error


def termination_from_dict(record: dict[str, Any]) -> Termination:
    """A Termination from its JSON object."""
    return Termination(
        result=Result(record["result"]),
        reason=str(record["reason"]),
        sip_code=int(record["sip_code"]),
        q850=int(record["q850"]),
        released_by=ReleasedBy(record["released_by"]),
        text=str(record.get("text", "")),
    )
