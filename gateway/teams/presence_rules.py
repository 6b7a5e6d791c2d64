"""Busy sync between desk and Teams: one table, one pure decision (Microsoft Teams integration overview).

Teams to desk: Teams becomes Busy and InACall -> Not Ready, "Busy in an External System"; it leaves -> the
previous state, only if the desk is still so. Desk to Teams: Busy -> Busy and InACall, only if availability is
Available; Busy becomes Ready or Not Ready, or log-out -> Available, only if the sync had set it.

Notes N1..N15 are those of facts/graph.md 2.3. The table's rules stand in groups; of each group the first rule
that fits is carried out, in the order of the groups. Moments are seconds of the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from gateway.agents.states import EXTERNAL_BUSY, AgentState

Pair = tuple[str, str]
IN_A_CALL: Pair = ("Busy", "InACall")
MARKER: Pair = ("Busy", "InAConferenceCall")
WIDER: frozenset[Pair] = frozenset(
    {IN_A_CALL, MARKER, ("Busy", "InAMeeting"), ("DoNotDisturb", "Presenting")}
)
"""Meetings, group calls and presenting too (N6); an option for `Options.enter` and `Options.stay`."""


@dataclass(frozen=True)
class Options:
    """enter:  what of Teams makes the desk Not Ready; stay: what, besides, does not end it (N6)
    written:   what we write while Busy: IN_A_CALL, or MARKER to tell ours from a 1:1 call (N4)
    lifetime:  seconds that what we wrote lasts unless repeated, 300 to 14400 (N9)
    quarantine: seconds after a release in which a Busy may be our own echo (N2)
    confirm:   seconds after which a Busy in quarantine must still be there
    leave:     seconds that a call must be over before we believe it (N6)
    available: seconds after a release when our session is taken away (N10)
    """

    enter: frozenset[Pair] = frozenset({IN_A_CALL})
    stay: frozenset[Pair] = frozenset()
    written: Pair = IN_A_CALL
    lifetime: float = 900.0
    quarantine: float = 75.0
    confirm: float = 5.0
    leave: float = 4.0
    available: float = 60.0


class Grip(StrEnum):
    """Teams to desk: whether the sync made the desk Not Ready, or still has to."""

    NONE = "none"
    PENDING = "pending"
    HELD = "held"


class Ours(StrEnum):
    """Desk to Teams: whether the Busy in Teams is the sync's."""

    NONE = "none"
    SET = "set"
    QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Memory:
    """What is remembered of one agent.

    in_call:  Teams said busy and has not left since; leaving: it seems to have, the debounce runs
    until:    end of what we set, or of the quarantine
    echoed:   our own Busy was seen; confirmed: a Busy in quarantine was read once
    sequence: of the newest presence seen, None where Graph does not number them
    """

    in_call: bool = False
    leaving: bool = False
    grip: Grip = Grip.NONE
    ours: Ours = Ours.NONE
    until: float = 0.0
    echoed: bool = False
    confirmed: bool = False
    sequence: int | None = None

    @property
    def lasting(self) -> tuple[object, ...]:
        """What must survive a restart (N12)."""
        return self.in_call, self.grip, self.ours, self.until if self.ours is Ours.SET else 0.0

    def document(self) -> dict[str, Any]:
        return {"in_call": self.in_call, "grip": self.grip, "ours": self.ours, "until": self.until}

    @classmethod
    def of(cls, document: dict[str, Any]) -> Memory:
        return cls(
            in_call=bool(document["in_call"]),
            grip=Grip(document["grip"]),
            ours=Ours(document["ours"]),
            until=float(document["until"]),
        )


class Event(StrEnum):
    NOTIFIED = "notified"
    READ = "read"
    ASKED = "asked"
    DESK = "desk"
    RESUMED = "resumed"
    WRITTEN = "written"
    NOT_WRITTEN = "not_written"
    REFUSED = "refused"
    LEAVE_DUE = "leave_due"
    REFRESH_DUE = "refresh_due"
    CLEAR_DUE = "clear_due"
    LOOKED = "looked"


class Act(StrEnum):
    """What is to be done; READ, ASK and LOOK come back as READ, ASKED and LOOKED with what Graph shows."""

    DESK_BUSY = "desk_busy"
    DESK_FREE = "desk_free"
    ASK = "ask"
    READ = "read"
    READ_SOON = "read_soon"
    READ_AFTER_QUARANTINE = "read_after_quarantine"
    WRITE_BUSY = "write_busy"
    WRITE_AVAILABLE = "write_available"
    CLEAR = "clear"
    CLEAR_LATER = "clear_later"
    NO_CLEAR = "no_clear"
    LEAVE_LATER = "leave_later"
    STAY = "stay"
    REFRESH_LATER = "refresh_later"
    REFRESH_SOON = "refresh_soon"
    NO_REFRESH = "no_refresh"
    LOOK_LATER = "look_later"
    LOG_HIDDEN = "log_hidden"


@dataclass(frozen=True)
class Desk:
    """The agent's state, and the one before it where it has just changed."""

    state: AgentState
    reason: str = ""
    before: AgentState | None = None


@dataclass(frozen=True)
class Situation:
    event: Event
    memory: Memory
    desk: Desk
    now: float
    options: Options = field(default_factory=Options)
    pair: Pair | None = None
    sequence: int | None = None

    @property
    def entering(self) -> bool:
        return self.pair in self.options.enter

    @property
    def staying(self) -> bool:
        return self.pair in self.options.enter | self.options.stay

    @property
    def engaged(self) -> bool:
        """The desk is in a state that passes by itself: nothing is laid over it (N13)."""
        return self.desk.state in _ENGAGED

    @property
    def settled(self) -> bool:
        return self.desk.state in (AgentState.READY, AgentState.NOT_READY)

    @property
    def out(self) -> bool:
        return self.desk.state is AgentState.LOGGED_OUT

    @property
    def external(self) -> bool:
        return self.desk.state is AgentState.NOT_READY and self.desk.reason == EXTERNAL_BUSY

    @property
    def ours_now(self) -> bool:
        return self.memory.ours is Ours.SET and self.now < self.memory.until

    @property
    def quarantined(self) -> bool:
        return self.memory.ours is Ours.QUARANTINE and self.now < self.memory.until


_ENGAGED = frozenset({AgentState.BUSY, AgentState.AFTER_CALL_WORK, AgentState.SUPERVISING})
When = Callable[[Situation], bool]
Change = Callable[[Situation], dict[str, Any]]


def _nothing(_: Situation) -> dict[str, Any]:
    return {}


def _always(_: Situation) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """`change` gives the fields of Memory that become different; `last`: no further group is looked at."""

    name: str
    events: frozenset[Event]
    when: When
    acts: tuple[Act, ...] = ()
    change: Change = _nothing
    last: bool = False


def _rule(
    name: str,
    events: Event | tuple[Event, ...],
    when: When = _always,
    *acts: Act,
    change: Change = _nothing,
    last: bool = False,
) -> Rule:
    return Rule(name, frozenset((events,) if isinstance(events, Event) else events), when, acts, change, last)


def _quarantine(s: Situation) -> dict[str, Any]:
    return {
        "ours": Ours.QUARANTINE,
        "until": s.now + s.options.quarantine,
        "confirmed": False,
        "echoed": False,
    }


def _numbered(s: Situation) -> dict[str, Any]:
    return {"sequence": s.sequence}


def _set(s: Situation) -> dict[str, Any]:
    return {"ours": Ours.SET, "until": s.now + s.options.lifetime, "echoed": False, "confirmed": False}


E, A = Event, Act
_SEEN = (E.NOTIFIED, E.READ, E.ASKED, E.RESUMED)
_RELEASE = (A.NO_REFRESH, A.WRITE_AVAILABLE, A.CLEAR_LATER, A.READ_AFTER_QUARANTINE)
_STALE = {"ours": Ours.NONE, "confirmed": False}

ORDER: tuple[Rule, ...] = (
    _rule(
        "duplicate_or_late",  # N5
        E.NOTIFIED,
        lambda s: (
            s.sequence is not None and s.memory.sequence is not None and s.sequence <= s.memory.sequence
        ),
        last=True,
    ),
    _rule(
        "unnumbered_is_a_hint",  # N5
        E.NOTIFIED,
        lambda s: (
            s.sequence is None
            and not s.ours_now
            and not s.quarantined
            and (s.entering != s.memory.in_call or s.memory.leaving)
        ),
        A.READ,
        last=True,
    ),
    _rule("numbered", _SEEN, lambda s: s.sequence is not None, change=_numbered),
)

ELAPSED: tuple[Rule, ...] = (
    _rule(
        "quarantine_over",  # N3
        (*_SEEN, E.DESK),
        lambda s: s.memory.ours is Ours.QUARANTINE and not s.quarantined,
        change=lambda s: dict(_STALE),
    ),
    _rule(
        "expired",  # N9: what lapsed is not ours to set back
        (*_SEEN, E.REFRESH_DUE, E.NOT_WRITTEN, E.DESK),
        lambda s: s.memory.ours is Ours.SET and not s.ours_now,
        A.NO_REFRESH,
        change=lambda s: dict(_STALE),
    ),
)

TO_TEAMS: tuple[Rule, ...] = (
    # what Teams shows
    _rule(
        "own_echo",  # N1
        (E.NOTIFIED, E.READ),
        lambda s: s.ours_now and s.pair == s.options.written and s.entering,
        change=lambda s: {"echoed": True},
        last=True,
    ),
    _rule(
        "own_marker",  # N4
        (E.NOTIFIED, E.READ),
        lambda s: s.ours_now and s.pair == s.options.written,
        change=lambda s: {"echoed": True},
    ),
    _rule(
        "not_told_apart_from_ours",  # N1, N3: until the release
        (E.NOTIFIED, E.READ),
        lambda s: s.ours_now and (s.options.written == IN_A_CALL or not (s.entering or s.memory.in_call)),
        last=True,
    ),
    _rule(
        "late_echo_or_call",  # N2: believe only what Graph says when asked
        E.NOTIFIED,
        lambda s: s.quarantined and s.entering and not s.memory.in_call,
        A.READ,
        last=True,
    ),
    _rule(
        "must_stay",  # N2
        E.READ,
        lambda s: s.quarantined and s.entering and not s.memory.in_call and not s.memory.confirmed,
        A.READ_SOON,
        change=lambda s: {"confirmed": True},
        last=True,
    ),
    _rule(
        "echo_gone",  # N2
        (E.NOTIFIED, E.READ),
        lambda s: s.quarantined and not s.entering,
        change=lambda s: {"confirmed": False},
    ),
    # the desk becomes busy
    _rule(
        "still_ours",
        (E.DESK,),
        lambda s: s.desk.state is AgentState.BUSY and s.ours_now,
    ),
    _rule(
        "busy_asks",  # N8: read right before writing
        E.DESK,
        lambda s: s.desk.state is AgentState.BUSY,
        A.ASK,
    ),
    _rule("no_longer_busy", E.ASKED, lambda s: s.desk.state is not AgentState.BUSY, last=True),
    _rule(
        "busy",  # N8, N11: Available/OutOfOffice is Available, AvailableIdle and Offline are not
        E.ASKED,
        lambda s: s.pair is not None and s.pair[0] == "Available",
        A.NO_CLEAR,
        A.WRITE_BUSY,
        change=_set,
    ),
    _rule(
        "busy_perhaps_our_own",  # N2: the read may be behind; the check after the quarantine decides
        E.ASKED,
        lambda s: s.quarantined and s.entering,
        last=True,
    ),
    _rule("not_available", E.ASKED),
    _rule(
        "written",  # N9
        E.WRITTEN,
        lambda s: s.memory.ours is Ours.SET,
        A.REFRESH_LATER,
        A.LOOK_LATER,
        change=lambda s: {"until": s.now + s.options.lifetime},
    ),
    _rule(
        "refused",
        E.REFUSED,
        lambda s: s.memory.ours is Ours.SET,
        A.NO_REFRESH,
        change=lambda s: dict(_STALE),
    ),
    _rule("perhaps_written", E.NOT_WRITTEN, lambda s: s.ours_now, A.REFRESH_SOON),
    _rule("refresh", E.REFRESH_DUE, lambda s: s.ours_now and s.engaged, A.WRITE_BUSY),  # N9
    _rule(
        "hidden",  # N11
        E.LOOKED,
        lambda s: s.ours_now and not s.memory.echoed and s.pair != s.options.written,
        A.LOG_HIDDEN,
        last=True,
    ),
    # the desk is busy no more
    _rule(
        "log_out_releases",  # N10, N15
        (E.DESK, E.RESUMED),
        lambda s: s.out and s.ours_now,
        A.NO_REFRESH,
        A.WRITE_AVAILABLE,
        A.CLEAR,
        change=lambda s: dict(_STALE),
    ),
    _rule(
        "log_out_clears",  # N10
        (E.DESK, E.RESUMED),
        lambda s: s.out and s.memory.ours is Ours.QUARANTINE,
        A.NO_CLEAR,
        A.CLEAR,
        change=lambda s: dict(_STALE),
    ),
    _rule("release", E.DESK, lambda s: s.settled and s.ours_now, *_RELEASE, change=_quarantine),  # N3, N10
    _rule(
        "resume_releases",  # N12: what Teams shows may be ours, so the desk is not told
        E.RESUMED,
        lambda s: s.settled and s.ours_now,
        *_RELEASE,
        change=_quarantine,
        last=True,
    ),
    _rule("clear", E.CLEAR_DUE, lambda s: s.memory.ours is not Ours.SET, A.CLEAR),  # N10
    # after a restart
    _rule("resume", E.RESUMED, lambda s: s.ours_now and s.engaged, A.WRITE_BUSY, last=True),  # N12
    _rule(
        "resume_perhaps_our_own",  # N2, N12: read while the contact ended; the check afterwards decides
        E.RESUMED,
        lambda s: s.quarantined and s.entering and not s.memory.in_call,
        A.CLEAR_LATER,
        A.READ_AFTER_QUARANTINE,
        last=True,
    ),
    _rule(
        "resume_clears",
        E.RESUMED,
        lambda s: s.memory.ours is Ours.QUARANTINE,
        A.CLEAR,
        change=lambda s: dict(_STALE),
    ),
    _rule(
        "resume_busy",
        E.RESUMED,
        lambda s: s.desk.state is AgentState.BUSY and s.pair is not None and s.pair[0] == "Available",
        A.WRITE_BUSY,
        change=_set,
    ),
)

TO_DESK: tuple[Rule, ...] = (
    _rule(
        "log_out_forgets",  # N12
        E.DESK,
        lambda s: s.out,
        A.STAY,
        change=lambda s: {"grip": Grip.NONE, "in_call": False, "leaving": False},
    ),
    _rule("log_in_looks", E.DESK, lambda s: s.desk.before is AgentState.LOGGED_OUT and s.settled, A.READ),
    _rule(
        "by_hand",  # N12
        (E.DESK, E.RESUMED),
        lambda s: s.memory.grip is Grip.HELD and s.settled and not s.external,
        change=lambda s: {"grip": Grip.NONE},
    ),
    _rule(
        "pending_now",  # N13
        E.DESK,
        lambda s: s.memory.grip is Grip.PENDING and s.settled and s.memory.in_call,
        A.DESK_BUSY,
        change=lambda s: {"grip": Grip.HELD},
    ),
    _rule("nobody_there", _SEEN, lambda s: s.out),
    _rule(
        "call_while_busy",  # N13
        _SEEN,
        lambda s: s.entering and not s.memory.in_call and s.engaged,
        change=lambda s: {"in_call": True, "leaving": False, "grip": Grip.PENDING},
    ),
    _rule(
        "call",
        _SEEN,
        lambda s: s.entering and not s.memory.in_call,
        A.DESK_BUSY,
        change=lambda s: {"in_call": True, "leaving": False, "grip": Grip.HELD},
    ),
    _rule(
        "call_goes_on",  # N6
        _SEEN,
        lambda s: s.staying and s.memory.in_call,
        A.STAY,
        change=lambda s: {"leaving": False},
    ),
    _rule("not_known_now", _SEEN, lambda s: s.pair is None),  # N12: Graph was silent, which ends no call
    _rule(
        "perhaps_over",  # N6
        _SEEN,
        lambda s: s.memory.in_call and not s.memory.leaving,
        A.LEAVE_LATER,
        change=lambda s: {"leaving": True},
    ),
    _rule(
        # N12: agents give the state back only if it is still ours; a change by hand that was under way when
        # we made them Not Ready has ended our grip and not that state
        "call_over",
        E.LEAVE_DUE,
        lambda s: s.memory.leaving,
        A.DESK_FREE,
        change=lambda s: {"in_call": False, "leaving": False, "grip": Grip.NONE},
    ),
)
TABLE: tuple[tuple[Rule, ...], ...] = (ORDER, ELAPSED, TO_TEAMS, TO_DESK)


@dataclass(frozen=True)
class Decision:
    memory: Memory
    acts: tuple[Act, ...]
    rules: tuple[str, ...]


def decide(situation: Situation) -> Decision:
    """The memory afterwards, what to do in its order, and the names of the rules that said so."""
    acts: list[Act] = []
    names: list[str] = []
    for group in TABLE:
        for rule in group:
            if situation.event in rule.events and rule.when(situation):
                acts += rule.acts
                names.append(rule.name)
                situation = replace(situation, memory=replace(situation.memory, **rule.change(situation)))
                if rule.last:
                    return Decision(situation.memory, tuple(acts), tuple(names))
                break
    return Decision(situation.memory, tuple(acts), tuple(names))
