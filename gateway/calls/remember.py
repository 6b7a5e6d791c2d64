"""A call as a record for `snapshots`, and the call made of it again by the next gateway.

What the journal says as well (who has hung up, who holds) is taken from there, because it is written first.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.calls.audibility import Hold, MusicPolicy, Supervision, SupervisorMode
from gateway.calls.call import Call, CallState, Loan
from gateway.calls.context import CallContext
from gateway.calls.leg import Leg, LegState
from gateway.calls.outgoing import agent_trunk
from gateway.calls.page_leg import BROWSER, PageTrunk, resume_page
from gateway.calls.routing import PartyIdentity
from gateway.calls.snapshots import SnapshotStore
from gateway.cdr.call_state import CallState as Told
from gateway.model import CallId, LegId, PartyType, Role, Termination
from gateway.phone.session import PageSession
from gateway.sip import orphans
from gateway.sip.profile import Profile
from gateway.sip.session import Session
from gateway.sip.session_state import TALKING
from gateway.trunks.trunk import SipTrunk
from media import anchor_state

log = logging.getLogger("tandem.calls")

VERSION = 1


# ---- writing ----


def capture(call: Call) -> dict[str, Any]:
    """The call as it stands, ready for JSON; SRTP keys are in it."""
    room = call.sound.room
    joined = call.joined | _joining(call)
    return {
        "version": VERSION,
        "interaction": call.interaction,
        "from": call.from_number,
        "to": call.to_number,
        "started_at": call.started_at,
        "up": call.state is CallState.UP or len(joined) > 1,
        "primary": call.primary.id if call.primary is not None else None,
        # of these the next gateway may find some gone
        "above": [above.id for above in call.above()],
        "joined": sorted(joined),
        "away": sorted(call.away),
        "muted": sorted(call.muted),
        "holds": [[hold.by, hold.of] for hold in call.holds],
        "held_at": dict(call.held_at),
        "supervisors": {leg: [how.mode, how.of] for leg, how in call.supervisors.items()},
        "lent": {leg: [loan.to.id, loan.role, _leg(loan.leg)] for leg, loan in call.lent.items()},
        "passing": [_leg(leg) for leg in call.passing.values() if leg.state is not LegState.ENDED],
        "borrowed": sorted(call.borrowed),
        "replacing": dict(call.replacing),
        "answered_at": dict(call.answered_at),
        "music": call.music,
        "room": room.snapshot() if room is not None else None,
        "legs": [_leg(leg) for leg in call.legs.values() if leg.state is not LegState.ENDED],
    }


def _joining(call: Call) -> set[LegId]:
    """Legs that are about to be members: they have answered, or their callers are being answered."""
    up = {leg.id for leg in call.legs.values() if leg.state is LegState.UP and leg.patchable}
    return up - call.away


def _leg(leg: Leg) -> dict[str, Any]:
    session = leg.session if isinstance(leg.session, Session) else None
    page = leg.session if isinstance(leg.session, PageSession) and leg.session.state in TALKING else None
    media = leg.anchored and leg.anchor.established
    talking = session is not None and (session.state in TALKING or bool(leg.answering)) and not leg.offering
    if session is not None and talking and session.over:
        talking = False
    return {
        "id": leg.id,
        "trunk": leg.trunk.name,
        "tenant": leg.tenant,
        "role": leg.role,
        "party": leg.identity.party,
        "login": leg.identity.login,
        "number": leg.number,
        "withheld": leg.withheld,
        "host": leg.host,
        "held": leg.held,
        "correlation": leg.correlation,
        "extension": leg.extension,
        "moves": leg.moves,
        "referred": session is not None and bool(session.refers),
        "session": session.snapshot(leg.answering or None) if session is not None and talking else None,
        "page": page.snapshot() if page is not None else None,
        "invite": _invite(session, leg.answering if talking else None) if session is not None else None,
        "anchor": anchor_state.capture(leg.anchor) if media else None,
    }


def _invite(session: Session, answer: bytes | None) -> dict[str, Any] | None:
    """What is owed to an INVITE; `answer` None: it is to be ended, b"": nothing is owed any more."""
    if answer is None:
        return orphans.record(session)
    return orphans.record_answer(session, answer) if answer else None


# ---- reading ----


@dataclass
class Remembered:
    """A call made again; its task has not been started.

    cut:     legs that were being set up, or whose dialog or trunk is gone: to be ended in the call
    invites: what to tell the peers of those (`orphans.tell`)
    room:    snapshot of its conference, None when it had none
    fresh:   members of whom the journal does not know as such yet
    referred: legs that wait for the end of their REFER
    doubtful: legs that the journal has on hold and the record has not, or the other way round: ask them
    links:   the record; `link` resolves what it says of other calls once all are there
    replaced: legs of a consultation whose parties have taken their place here, by their id
    over:    how it ends if it cannot go on; None: as what was cut off
    """

    call: Call
    cut: list[Leg] = field(default_factory=list)
    invites: list[dict[str, Any]] = field(default_factory=list)
    room: dict[str, Any] | None = None
    fresh: set[LegId] = field(default_factory=set)
    referred: set[LegId] = field(default_factory=set)
    doubtful: set[LegId] = field(default_factory=set)
    links: Mapping[str, Any] = field(default_factory=dict)
    replaced: dict[LegId, Leg] = field(default_factory=dict)
    over: Termination | None = None


def readable(record: Mapping[str, Any]) -> bool:
    """Whether it has the form that `untangle` and `rebuild` expect of every record."""
    parts = {"legs": list, "lent": dict, "joined": list, "away": list}
    return (
        record.get("version") == VERSION
        and isinstance(record.get("above", []), list)
        and all(isinstance(record.get(name), form) for name, form in parts.items())
        and all(isinstance(leg, dict) and "id" in leg for leg in record["legs"])
    )


def waiting(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """INVITEs without an answer, of a call that the journal does not know: its record is written first."""
    if not readable(record):
        return []
    invites = [leg.get("invite") for leg in record["legs"]]
    return [one for one in invites if isinstance(one, dict) and "answer" not in one]


def untangle(records: Mapping[CallId, dict[str, Any]], told: Mapping[CallId, Told]) -> None:
    """Put each leg into exactly one of the calls, whatever moment of a move the records are from.

    A leg that moves is first in the record of the call that gives it (`lent`, `passing`), then in both, then
    in that of the call that takes it. The one that has booked it and has it after the most moves is right;
    where nobody has booked it yet, the giver has it still: of several, of whom each has lent it to the next,
    the last.
    """
    best: dict[str, tuple[int, CallId]] = {}
    over = {leg for state in told.values() for leg, one in state.legs.items() if one.ended is not None}
    for call, record in records.items():
        for leg in record["legs"]:
            if leg["id"] in told[call].legs:
                claim = (int(leg.get("moves", 0)), call)
                best[leg["id"]] = max(best.get(leg["id"], claim), claim)
    givers: dict[str, tuple[int, CallId]] = {}
    for call, record in records.items():
        for leg in _given(record):
            if leg["id"] not in best and leg["id"] not in over:
                claim = (len(record.get("above", ())), call)
                givers[leg["id"]] = max(givers.get(leg["id"], claim), claim)
    for call, record in records.items():
        mine = [leg for leg in record["legs"] if best.get(leg["id"], (0, ""))[1] == call]
        for leg in _given(record):
            if givers.get(leg["id"], (0, ""))[1] == call:
                log.warning("leg_taken_back call=%s leg=%s", call, leg["id"])
                del givers[leg["id"]]
                record["lent"].pop(leg["id"], None)
                record["joined"] = sorted({*record["joined"], leg["id"]})
                mine.append(leg)
        record["legs"] = mine


def _given(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Legs that the call has given away, as they come back."""
    spare = [{**entry[2], "role": entry[1]} for entry in record["lent"].values() if len(entry) > 2]
    return [*record.get("passing", ()), *spare]


def rebuild(context: CallContext, call: Call, record: Mapping[str, Any], told: Told) -> Remembered:
    """`call` (new, with the id of the record) as it was. ValueError, KeyError, TypeError: unreadable."""
    if record.get("version") != VERSION:
        raise ValueError(f"snapshot of version {record.get('version')}")
    found = Remembered(call, room=record["room"], links=record)
    call.from_number, call.to_number = str(record["from"]), str(record["to"])
    call.started_at = int(record["started_at"])
    call.records.begun = True
    call.state = CallState.UP if record["up"] else CallState.SETUP
    call.music = MusicPolicy(record["music"])
    ended = {leg for leg, state in told.legs.items() if state.ended is not None}
    for one in record["legs"]:
        if one["id"] not in ended and one["id"] in told.legs:
            _rebuild_leg(context, found, one)
    here = call.legs.keys() | set(record["lent"])
    call.joined = {LegId(leg) for leg in record["joined"] if leg in here}
    call.away = {LegId(leg) for leg in record["away"] if leg in here}
    call.muted = {LegId(leg) for leg in record["muted"] if leg in here}
    call.borrowed = {LegId(leg) for leg in record["borrowed"] if leg in here}
    call.replacing = {LegId(new): LegId(old) for new, old in record.get("replacing", {}).items()}
    call.answered_at = {LegId(leg): int(at) for leg, at in record["answered_at"].items() if leg in here}
    call.held_at = {LegId(leg): int(at) for leg, at in record["held_at"].items() if leg in here}
    call.supervisors = {
        LegId(leg): Supervision(SupervisorMode(mode), LegId(of))
        for leg, (mode, of) in record["supervisors"].items()
        if leg in here
    }
    # a supervisor whom the others do not have among them is no member for the journal
    found.fresh = {leg for leg in call.joined - set(told.members) if not call.aloof(leg)}
    call.holds = _holds(record["holds"], told, here)
    recorded = {by for by, _ in record["holds"]}
    holding = {hold.by for hold in call.holds}
    for leg in call.legs.values():
        # a page holds by command alone: nobody has to be asked
        if (leg.id in recorded) != (leg.id in holding) and not isinstance(leg.trunk, PageTrunk):
            leg.held = leg.id in holding
            found.doubtful.add(leg.id)
    return found


def _holds(recorded: list[list[str | None]], told: Told, here: set[LegId] | set[str]) -> set[Hold]:
    """The recorded ones, corrected by what the journal knows of who holds."""
    holding = {hold.leg for hold in told.holds if hold.end is None and hold.leg in here}
    holds = {
        Hold(LegId(by) if by else None, LegId(of) if of else None)
        for by, of in recorded
        if (by is None or by in holding) and (of is None or of in here)
    }
    # who held nobody but parties that have left holds nobody: `cut_off` writes that down
    of = {by: {of for who, of in recorded if who == by} for by, _ in recorded}
    free = {by for by, held in of.items() if held and all(one and one not in here for one in held)}
    return holds | {Hold(leg) for leg in holding - free if not any(hold.by == leg for hold in holds)}


def _rebuild_leg(context: CallContext, found: Remembered, record: Mapping[str, Any]) -> None:
    call = found.call
    try:
        name = str(record["trunk"])
        trunk = PageTrunk(context.trunks[agent_trunk(context)]) if name == BROWSER else context.trunks[name]
    except KeyError:
        # without its trunk nobody knows how to speak to the peer: its session timer will tell it
        log.warning("leg_not_restored call=%s leg=%s trunk=%s cause=no_such_trunk",
                    call.id, record["id"], record["trunk"])  # fmt: skip
        return
    leg = Leg(
        context.bay,
        trunk,
        tenant=str(record["tenant"]),
        role=Role(record["role"]),
        identity=PartyIdentity(PartyType(record["party"]), str(record["login"])),
        number=str(record["number"]),
        withheld=bool(record.get("withheld", False)),
        post=call.post,
    )
    leg.id = LegId(record["id"])
    leg.host, leg.held = bool(record["host"]), bool(record["held"])
    leg.correlation, leg.moves = str(record["correlation"]), int(record.get("moves", 0))
    leg.extension = str(record.get("extension", ""))
    if record.get("referred"):
        found.referred.add(leg.id)
    if record["anchor"] is not None:
        leg.resume_media(anchor_state.restore(context.bay, leg.id, trunk.media, record["anchor"]))
    if record["session"] is not None:
        leg.state = LegState.UP
        leg.session = _session(context, leg, record["session"])
    if record.get("page") is not None:
        resume_page(context, leg, record["page"])
    if record["invite"] is not None:
        found.invites.append(record["invite"])
    call.legs[leg.id] = leg
    if leg.session is None or not leg.anchored:
        found.cut.append(leg)


def _session(context: CallContext, leg: Leg, record: dict[str, Any]) -> Session:
    profile = Profile.from_record(record["profile"])
    if isinstance(leg.trunk, SipTrunk):
        profile = dataclasses.replace(profile, credentials=leg.trunk.credentials)
    return context.agent.restore(record, leg.handle, profile)


def link(found: Remembered, calls: Mapping[CallId, Call]) -> Call | None:
    """What it lent and borrowed, once every call is there again; the call it is a consultation of."""
    call = found.call
    above = found.links.get("above") or [found.links["primary"]]
    primary = next((calls[one] for one in above if one in calls), None)
    if primary is None:
        call.borrowed.clear()
    for leg_id, (_, role, *_) in found.links["lent"].items():
        # not where it was lent to: that call may have lent it to another one, and have ended since
        other = next((one for one in calls.values() if one is not call and leg_id in one.legs), None)
        leg = other.legs.get(leg_id) if other is not None else None
        if other is not None and leg is not None and leg.state is LegState.UP:
            call.lent[leg.id] = Loan(leg, other, Role(role))
            # one that was on its way back from there is so no longer
            other.borrowed.add(leg.id)
            continue
        for group in (call.joined, call.away, call.muted):
            group.discard(leg_id)
    return primary


class Memory:
    """`CallContext.memory`: puts calls into the store."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store

    def mark(self, call: Call) -> None:
        """It has changed; written in a moment."""
        self._store.mark(call.id, lambda: capture(call))

    async def save(self, call: Call) -> None:
        """It has changed; returns when it is written."""
        await self._store.save(call.id, lambda: capture(call))

    def drop(self, call: Call) -> None:
        """It is over."""
        self._store.drop(call.id)
