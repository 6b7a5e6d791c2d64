# ruff: noqa: E501 - a table of prose; one line a column reads best
"""The columns of call detail, written down once: the SQL table, the documents and the API's schema derive from it.

Names and meaning follow the Call Detail report of the contact center; where its documentation does not name
a column, the name is ours in its style (facts/call-detail.md 4.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.model import PartyType, ReleasedBy

SCHEMA_VERSION = 3
"""Goes up when a column is added or a rule changes; rows carry it in `detail.schema_version`."""


class CallType(StrEnum):
    """What kind of call; decided by who called whom."""

    INBOUND = "Inbound"
    OUTBOUND = "Outbound"
    INTERNAL = "Internal"
    EXTERNAL = "External"


class Disposition(StrEnum):
    """How the call ended, in the report's style."""

    CALLER_TERMINATED = "caller_terminated"
    CALLEE_TERMINATED = "callee_terminated"
    PARTICIPANT_TERMINATED = "participant_terminated"
    SYSTEM_TERMINATED = "system_terminated"
    TRANSFERRED = "transferred"
    CONFERENCED = "conferenced"
    ABANDONED_IVR = "abandoned_ivr"
    ABANDONED_QUEUE = "abandoned_queue"
    ABANDONED_RINGING = "abandoned_ringing"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    DECLINED = "declined"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    TIME = "time"
    INTEGER = "integer"
    REAL = "real"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `unit` and `rule` are what a reader of a report needs to know."""

    name: str
    kind: Kind
    unit: str
    rule: str
    nullable: bool = False
    values: tuple[str, ...] = ()


def _text(name: str, unit: str, rule: str, values: tuple[str, ...] = ()) -> Column:
    return Column(name, Kind.TEXT, unit, rule, values=values)


def _seconds(name: str, rule: str) -> Column:
    return Column(name, Kind.INTEGER, "seconds", rule)


_PARTIES = ("", *PartyType)

COLUMNS: tuple[Column, ...] = (
    _text("id", "32 hexadecimal digits", "The call's own id; the key by which every sink recognises a repeated row."),
    _text("global_interaction_id", "UUID", "Shared by all calls of one customer interaction: consultations, conferences and transfers."),
    _text("media_type", "word", "Always VOICE.", ("VOICE",)),
    _text("type", "word", "Internal: agent calls agent. Outbound: an agent calls anyone else. Inbound: anyone else calls and an agent is on the call or was rung. External: no agent at all.", tuple(CallType)),
    Column("start_time", Kind.TIME, "UTC, whole seconds", "When the call entered or was placed: when it reached the gateway, less what its caller had waited in the contact center before, where a trusted header told. The whole row belongs to this moment."),
    Column("answer_time", Kind.TIME, "UTC, whole seconds", "When two parties were first connected, after any menu or queue of the contact center; empty when that never happened.", nullable=True),
    Column("end_time", Kind.TIME, "UTC, whole seconds", "When the last party was gone."),
    _seconds("duration", "end_time - start_time; always ivr_time + queue_time + pending_time + talk_time + hold_time."),
    _seconds("ivr_time", "Time in a voice menu of the contact center before the answer: as the header named by `ivr_time_header` says, and from stage `ivr` of the control API to the next stage. 0 where nobody tells."),
    _seconds("queue_time", "Time in a service queue of the contact center before the answer: as the header named by `queue_time_header` says, and from stage `queue` to the next stage. 0 where nobody tells."),
    _seconds("pending_time", "Dialing and ringing: what of the time from start_time to answer_time, or to end_time of a call never answered, is neither ivr_time nor queue_time."),
    _seconds("talk_time", "Connected time that is not hold_time. A hold by a Teams user, a customer or anyone but an agent stays talk time. talk_time + hold_time = end_time - answer_time."),
    _seconds("hold_time", "Time during which at least one agent held, once however many did; a hold still open at the end closes there. Holds by others add nothing."),
    Column("hold_count", Kind.INTEGER, "count", "Stretches of hold_time; a second hold during a hold is the same stretch."),
    _seconds("max_hold", "The longest stretch of hold_time."),
    _seconds("acw_time", "Agents' After Call Work on this call, added up, beside duration and not part of it. The row is there when the call ends, and again with the same id and a higher `detail.revision` when work that lasted longer is over."),
    _text("from_phone", "phone number", "The caller's number as presented, also where he withheld it from the called party and our trunk was told it; empty when nobody told it."),
    _text("original_destination_phone", "phone number", "The number first called."),
    _text("connected_to_phone", "phone number", "The number of the party that answered first; empty when nobody did."),
    _text("transferred_from_phone", "phone number", "Who transferred the call away, of the last transfer that succeeded. A hold of Teams by transfer to its music player is none once it is retrieved."),
    _text("transferred_to_phone", "phone number", "Where the last successful transfer went; empty when that has no number, as a Teams user whom Teams names by its own identifier."),
    _text("caller_party_type", "word", "Who called: agent, teams_expert (a Teams user by Direct Routing) or external.", _PARTIES),
    _text("callee_party_type", "word", "Who answered first, or else was rung first; empty when nobody was.", _PARTIES),
    _text("caller_login_id", "login", "The calling agent's login; empty for others."),
    _text("callee_login_id", "login", "The login of the agent who answered first, or else was rung first; empty for others."),
    _text("caller_trunk", "trunk name", "The trunk the caller is on."),
    _text("callee_trunk", "trunk name", "The trunk the called party is on; empty when nobody was called."),
    _text("disposition", "word", "How it ended: transferred or conferenced when that happened, else who hung up, else why it was never answered.", tuple(Disposition)),
    _text("released_by", "word", "Which side ended it; system is the gateway itself.", tuple(ReleasedBy)),
    Column("sip_code", Kind.INTEGER, "SIP status", "Final status of the call; 200 for one that was answered and hung up."),
    _text("reason", "word", "Why it ended, one word of a bounded set."),
    _text("teams_correlation_id", "text", "Microsoft's id of the call from the Reason of its last message; quote it to Microsoft's support."),
    Column("mos", Kind.REAL, "1.0 to 4.5", "Mean opinion score of the leg that heard worst; empty when no RTCP report came.", nullable=True),
    Column("detail", Kind.JSON, "object", "Milliseconds, segments per change of members, who held when (others' holds too, which are not part of Call Detail), legs with codecs, loss, jitter, round trip and SIP codes, transfers, room moves."),
)  # fmt: skip


def markdown() -> str:
    """The table for the documents."""
    lines = [
        f"Call detail, schema version {SCHEMA_VERSION}",
        "",
        "| column | unit | rule |",
        "|---|---|---|",
    ]
    for column in COLUMNS:
        values = f" One of: {', '.join(v or '(empty)' for v in column.values)}." if column.values else ""
        lines.append(f"| {column.name} | {column.unit} | {column.rule}{values} |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """JSON Schema of a row as every sink and the API give it; times are ISO 8601 with `Z`."""
    kinds: dict[Kind, dict[str, Any]] = {
        Kind.TEXT: {"type": "string"},
        Kind.TIME: {"type": "string", "format": "date-time"},
        Kind.INTEGER: {"type": "integer"},
        Kind.REAL: {"type": "number"},
        Kind.JSON: {"type": "object"},
    }
    properties: dict[str, Any] = {}
    for column in COLUMNS:
        found = dict(kinds[column.kind])
        found["description"] = f"{column.rule} Unit: {column.unit}."
        if column.values:
            found["enum"] = [str(value) for value in column.values]
        if column.nullable:
            found["type"] = [found["type"], "null"]
        properties[column.name] = found
    return {
        "title": f"Call detail, schema version {SCHEMA_VERSION}",
        "type": "object",
        "properties": properties,
        "required": [column.name for column in COLUMNS],
        "additionalProperties": False,
    }
