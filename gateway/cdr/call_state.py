"""A call as its events tell it: the fold that both call detail and recovery after a restart stand on.

Pure: no clock, no I/O. Folding a prefix of the journal gives exactly what the running gateway knew then.
Tolerant: a record lost to corruption, a repeated event, a clock set back (time never runs backwards inside
a call) change as little as possible and raise nothing; `incomplete` says so.

What the call layer must write for this to be right:
- a leg of ours is in the call from LegCreated on, also a caller's; both sides get LegAnswered;
- whoever talks is LegJoined, and LegLeft or LegEnded when he no longer does;
- a consultation is a call of its own (`consultation_of`), with a LegCreated of the agent as its caller.

After-call work (WorkBegan, WorkEnded) may come after the end, and the row is made again then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.events import (
    CallEnded,
    CallStarted,
    Event,
    LegAnswered,
    LegAttemptFailed,
    LegCreated,
    LegDialled,
    LegEnded,
    LegHeld,
    LegJoined,
    LegLeft,
    LegMedia,
    LegMuted,
    LegResumed,
    LegRinging,
    LegTransferred,
    MediaMoved,
    Noted,
    StageEntered,
    Waited,
    WorkBegan,
    WorkEnded,
)
from gateway.model import CallId, InteractionId, LegId, PartyType, ReleasedBy, Result, Role, Termination

_UNKNOWN = InteractionId("")
REPLACES = "replaces"
"""Mode of a transfer by an INVITE with Replaces."""


@dataclass(slots=True)
class Attempt:
    """One try of a peer; `sent` when an INVITE left, `sip_code` 0 while it has not failed."""

    peer: str
    attempt: int
    at: int
    sent: bool
    sip_code: int = 0
    text: str = ""


@dataclass(slots=True)
class LegState:
    """A leg; moments in milliseconds since the epoch, None while they have not come."""

    leg: LegId
    created: int
    trunk: str = ""
    party: PartyType = PartyType.EXTERNAL
    role: Role = Role.PARTICIPANT
    number: str = ""
    login: str = ""
    sip_call_id: str = ""
    host: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    ringing: int | None = None
    early_media: bool = False
    answered: int | None = None
    codec: str = ""
    srtp: bool = False
    muted: bool = False
    supervising: int | None = None
    """Since when it takes part as a supervisor, in whatever mode."""
    ended: int | None = None
    termination: Termination | None = None
    correlation: str = ""
    media: LegMedia | None = None

    @property
    def dialled(self) -> bool:
        """An INVITE of ours left for it."""
        return any(attempt.sent for attempt in self.attempts)

    @property
    def up(self) -> bool:
        """Answered and not over: its dialog must come back after a restart."""
        return self.answered is not None and self.ended is None


@dataclass(slots=True)
class Hold:
    """Somebody's hold; `end` None while it lasts. `player`: the leg whose music Teams put in its place."""

    leg: LegId
    by: PartyType
    start: int
    end: int | None = None
    player: LegId | None = None


@dataclass(slots=True)
class Span:
    """Time during which at least one of a group held; `end` None while it lasts."""

    start: int
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch with the same members."""

    start: int
    end: int
    members: tuple[LegId, ...]


@dataclass(slots=True)
class Transfer:
    """A transfer and how far it came (started, completed or failed), and when it began."""

    leg: LegId
    mode: str
    target: str
    outcome: str
    at: int
    began: int
    new_leg: LegId | None = None
    sip_code: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the contact center had the call from `at` on: ivr, queue, ringing or connected."""

    name: str
    at: int


@dataclass(slots=True)
class Work:
    """An agent's after-call work; `end` None while it lasts."""

    login: str
    start: int
    end: int | None = None


@dataclass(slots=True)
class CallState:
    """Everything the journal says about one call."""

    call: CallId
    start: int
    interaction: InteractionId = _UNKNOWN
    from_number: str = ""
    to_number: str = ""
    consultation_of: CallId | None = None
    last: int = 0
    legs: dict[LegId, LegState] = field(default_factory=dict)
    members: tuple[LegId, ...] = ()
    member_since: int = 0
    segments: list[Segment] = field(default_factory=list)
    answer: int | None = None
    """When two legs were first up at once: from here on it is talk or hold."""
    holds: list[Hold] = field(default_factory=list)
    agent_spans: list[Span] = field(default_factory=list)
    other_spans: list[Span] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    media: str = "bridge"
    moves: list[MediaMoved] = field(default_factory=list)
    waited_ivr: int = 0
    waited_queue: int = 0
    """Milliseconds before `start`, as the contact center told."""
    stages: list[Stage] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    revisions: int = 0
    """How often the row changed after the call's end."""
    end: int | None = None
    termination: Termination | None = None
    incomplete: bool = False

    @property
    def working(self) -> bool:
        """Somebody's after-call work lasts."""
        return any(work.end is None for work in self.work)

    def holding(self, leg: LegId, by: PartyType | None = None) -> Hold | None:
        """The hold that `leg` has on this call now."""
        for hold in self.holds:
            if hold.end is None and hold.leg == leg and (by is None or hold.by == by):
                return hold
        return None


def new_state(event: Event) -> CallState:
    """The state before `event`, the first one known of its call."""
    return CallState(
        call=event.call, start=event.at, last=event.at, incomplete=not isinstance(event, CallStarted)
    )


def fold(events: Iterable[Event]) -> dict[CallId, CallState]:
    """States of all calls in `events`, in the order in which the calls first appear."""
    states: dict[CallId, CallState] = {}
    for event in events:
        state = states.get(event.call)
        if state is None:
            state = states[event.call] = new_state(event)
        apply(state, event)
    return states


def apply(state: CallState, event: Event) -> None:
    """Take one event in; after CallEnded only after-call work is."""
    if isinstance(event, WorkBegan | WorkEnded):
        _worked(state, event)
        return
    if state.end is not None:
        return
    now = state.last = max(state.last, event.at)
    match event:
        case CallStarted():
            state.interaction = event.interaction
            state.from_number, state.to_number = event.from_number, event.to_number
            state.consultation_of = event.consultation_of
        case LegCreated():
            _created(state, event, now)
        case LegDialled():
            _attempt(_leg(state, event.leg, now), event.peer, event.attempt, now).sent = True
        case LegAttemptFailed():
            attempt = _attempt(_leg(state, event.leg, now), event.peer, event.attempt, now)
            attempt.sip_code, attempt.text = event.sip_code, event.text
        case LegRinging():
            leg = _leg(state, event.leg, now)
            leg.ringing = now if leg.ringing is None else leg.ringing
            leg.early_media = leg.early_media or event.early_media
        case LegAnswered():
            _answered(state, event, now)
        case LegJoined():
            _leg(state, event.leg, now)
            _members(state, (*(m for m in state.members if m != event.leg), event.leg), now)
        case LegLeft():
            _leave(state, event.leg, now)
        case LegHeld():
            _leg(state, event.leg, now)
            if state.holding(event.leg, event.by) is None:
                state.holds.append(Hold(event.leg, event.by, now))
                _spans(state, now)
        case LegResumed():
            hold = state.holding(event.leg, event.by)
            if hold is not None:
                hold.end = now
                _spans(state, now)
        case LegMuted():
            _leg(state, event.leg, now).muted = event.muted
        case Noted(what="supervision", leg=str(supervisor)):
            leg = _leg(state, LegId(supervisor), now)
            leg.supervising = now if leg.supervising is None else leg.supervising
        case Noted(what="host", leg=str(host)):
            _leg(state, LegId(host), now).host = True
        case LegTransferred():
            _transferred(state, event, now)
        case MediaMoved():
            state.media = event.to
            state.moves.append(event)
        case LegMedia():
            _leg(state, event.leg, now).media = event
        case Waited():
            state.waited_ivr, state.waited_queue = max(event.ivr_ms, 0), max(event.queue_ms, 0)
        case StageEntered():
            if not state.stages or state.stages[-1].name != event.stage:
                state.stages.append(Stage(event.stage, now))
        case LegEnded():
            _ended(state, event, now)
        case CallEnded():
            _finish(state, event.termination, now)


def _leg(state: CallState, leg: LegId, now: int) -> LegState:
    found = state.legs.get(leg)
    if found is None:
        state.incomplete = True
        found = state.legs[leg] = LegState(leg, created=now)
    return found


def _created(state: CallState, event: LegCreated, now: int) -> None:
    if event.leg not in state.legs:
        state.legs[event.leg] = LegState(
            leg=event.leg,
            created=now,
            trunk=event.trunk,
            party=event.party,
            role=event.role,
            number=event.number,
            login=event.login,
            sip_call_id=event.sip_call_id,
            host=event.host,
        )


def _attempt(leg: LegState, peer: str, number: int, now: int) -> Attempt:
    for known in leg.attempts:
        if known.attempt == number:
            return known
    leg.attempts.append(Attempt(peer, number, now, sent=False))
    return leg.attempts[-1]


def _answered(state: CallState, event: LegAnswered, now: int) -> None:
    leg = _leg(state, event.leg, now)
    if leg.answered is None:
        leg.answered, leg.codec, leg.srtp = now, event.codec, event.srtp
    if state.answer is None and sum(other.up for other in state.legs.values()) >= 2:
        state.answer = now


def _members(state: CallState, members: tuple[LegId, ...], now: int) -> None:
    if set(members) == set(state.members):
        return
    if state.members and now > state.member_since:
        begun, last = state.member_since, state.segments[-1] if state.segments else None
        if last is not None and last.end == begun and set(last.members) == set(state.members):
            # somebody came and went in the same millisecond
            begun = state.segments.pop().start
        state.segments.append(Segment(begun, now, state.members))
    state.members, state.member_since = members, now


def _leave(state: CallState, leg: LegId, now: int) -> None:
    _members(state, tuple(member for member in state.members if member != leg), now)
    for hold in state.holds:
        if hold.leg == leg and hold.end is None:
            hold.end = now
    _spans(state, now)


def _spans(state: CallState, now: int) -> None:
    """Keep the two unions: somebody of the agents holds, somebody else holds."""
    for spans, agents in ((state.agent_spans, True), (state.other_spans, False)):
        held = any(hold.end is None and (hold.by is PartyType.AGENT) is agents for hold in state.holds)
        running = bool(spans) and spans[-1].end is None
        if held and not running:
            spans.append(Span(now))
        elif running and not held:
            spans[-1].end = now


def _transferred(state: CallState, event: LegTransferred, now: int) -> None:
    for known in reversed(state.transfers):
        if known.outcome == "started" and (known.leg, known.mode) == (event.leg, event.mode):
            break
    else:
        known = Transfer(event.leg, event.mode, event.target, event.outcome, now, now)
        state.transfers.append(known)
    known.outcome, known.at = event.outcome, now
    known.target = event.target or known.target
    known.new_leg = event.new_leg or known.new_leg
    known.sip_code = event.sip_code or known.sip_code
    if known.outcome == "completed" and known.mode == REPLACES:
        _retrieved(state, known, now)


def _retrieved(state: CallState, back: Transfer, now: int) -> None:
    """A transfer by Teams whose new leg Teams replaces again was a hold: its music player was in the user's
    place meanwhile, which has no number (facts/direct-routing.md 5). That of the user decides nothing: the
    one that was dialled and the one that he presents when he takes the call back need not be the same.
    """
    away = next((t for t in state.transfers if t.outcome == "completed" and t.new_leg == back.leg), None)
    legs = [state.legs.get(leg) for leg in (away.leg, back.leg, back.new_leg) if leg] if away else []
    if away is None or away.mode == REPLACES or len(legs) < 3:
        return
    if any(leg is None or leg.party is not PartyType.TEAMS_EXPERT for leg in legs):
        return
    if legs[1] is not None and legs[1].number:
        return
    state.transfers = [transfer for transfer in state.transfers if transfer not in (away, back)]
    state.holds.append(Hold(away.leg, PartyType.TEAMS_EXPERT, away.began, now, player=back.leg))
    state.other_spans = _with(state.other_spans, away.began, now)


def _with(spans: list[Span], start: int, end: int) -> list[Span]:
    """`spans` and a past stretch, as one union in order of time."""
    before = [span for span in spans if span.end is not None and span.end < start]
    after = [span for span in spans if span.start > end]
    touched = [span for span in spans if span not in before and span not in after]
    ends = [end, *(span.end for span in touched)]
    last = None if None in ends else max(e for e in ends if e is not None)
    return [*before, Span(min([start, *(span.start for span in touched)]), last), *after]


def _ended(state: CallState, event: LegEnded, now: int) -> None:
    leg = _leg(state, event.leg, now)
    if leg.ended is None:
        leg.ended, leg.termination, leg.correlation = now, event.termination, event.correlation
    _leave(state, event.leg, now)


def _worked(state: CallState, event: WorkBegan | WorkEnded) -> None:
    began = event.at if isinstance(event, WorkBegan) else event.began
    known = next((w for w in state.work if (w.login, w.start) == (event.login, began)), None)
    if known is None:
        known = Work(event.login, began)
        state.work.append(known)
    if isinstance(event, WorkEnded) and known.end is None:
        known.end = max(event.at, began)
        state.revisions += state.end is not None


def _finish(state: CallState, termination: Termination, now: int) -> None:
    for leg in state.legs.values():
        _leave(state, leg.leg, now)
        leg.ended = now if leg.ended is None else leg.ended
    state.end, state.termination = now, termination


def closing_events(state: CallState, at: int, reason: str = "gateway_restart") -> list[Event]:
    """The events that end a call which a crash cut off and which cannot be picked up again.

    at: when it was found dead, milliseconds; a call that has ended needs none. Released by the system,
    Q.850 41 (temporary failure); SIP 200 for a call that was up, 503 for one that was being set up.
    """
    if state.end is not None:
        return []
    now = max(at, state.last)
    events: list[Event] = [
        LegEnded(call=state.call, at=now, leg=leg.leg, termination=_cut(leg.answered is not None, reason))
        for leg in state.legs.values()
        if leg.ended is None
    ]
    events.append(CallEnded(call=state.call, at=now, termination=_cut(state.answer is not None, reason)))
    return events


def _cut(answered: bool, reason: str) -> Termination:
    return Termination(Result.FAILED, reason, 200 if answered else 503, 41, ReleasedBy.SYSTEM)
