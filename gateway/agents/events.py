"""What the agents' journal holds.

The calls' journal (`gateway.events`) names a call in every record, and drops a record when its call is
reported. An agent's state belongs to no call and must outlive all of them, so the agents have a journal of
their own, on the same log files; `gateway.agents.journal` keeps it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.agents.states import NO_CALL, AgentState, AgentStatus
from gateway.model import CallId, InteractionId


class Direction(StrEnum):
    """Whether the agent was called or called (facts/call-detail.md 4.5)."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentStateChanged:
    """An agent's status from `at` on.

    before, before_since, before_reason, before_call: the state that ended here, and when it had begun
    by:     who changed it: a login, a token's name, "calls" or "system"
    """

    login: str
    at: int
    status: AgentStatus
    before: AgentState
    before_since: int
    before_reason: str = ""
    before_call: CallId = NO_CALL
    by: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentCallEnded:
    """The agent's part in a call is over: from `joined` to `at`.

    holds:   (begin, end) of the holds the agent made, in order
    number:  the other party's
    detail:  login of the agent who answered an internal outbound call, else ""
    supervision: the agent listened to somebody else's call
    """

    login: str
    at: int
    call: CallId
    interaction: InteractionId
    direction: Direction
    joined: int
    holds: tuple[tuple[int, int], ...] = ()
    number: str = ""
    detail: str = ""
    supervision: bool = False


AgentEvent = AgentStateChanged | AgentCallEnded
_KINDS: dict[str, type[AgentEvent]] = {"agent_state": AgentStateChanged, "agent_call": AgentCallEnded}
_NAMES = {cls: kind for kind, cls in _KINDS.items()}


def to_dict(event: AgentEvent) -> dict[str, Any]:
    """JSON-ready: `kind` and the fields."""
    return {"kind": _NAMES[type(event)], **dataclasses.asdict(event)}


def from_dict(record: dict[str, Any]) -> AgentEvent:
    """Inverse of `to_dict`; fields that are not known are dropped. ValueError for what is no event."""
    cls = _KINDS.get(str(record.get("kind")))
    if cls is None:
        raise ValueError(f"unknown kind {record.get('kind')!r}")
    values = _known(cls, record)
    try:
        if cls is AgentStateChanged:
            values["status"] = _status(values["status"])
            values["before"] = AgentState(values["before"])
        else:
            values["direction"] = Direction(values["direction"])
            values["holds"] = tuple((int(begin), int(end)) for begin, end in values.get("holds", ()))
        return cls(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"incomplete {record['kind']}: {error}") from error


def _status(record: dict[str, Any]) -> AgentStatus:
    values = _known(AgentStatus, record)
    for name in ("state", "after"):
        values[name] = AgentState(values[name])
    if values.get("restore") is not None:
        state, reason = values["restore"]
        values["restore"] = (AgentState(state), str(reason))
    return AgentStatus(**values)


def _known(cls: type[Any], record: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in record.items() if key in names}
