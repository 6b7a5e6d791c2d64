"""A contact center's floor at random: agents call, hold, consult, merge, transfer, confer and are supervised,
Teams users hold, callers hang up, and now and then the gateway dies. What happens is written as the journal
has it, and beside it the truth about every call, counted stretch by stretch with nothing but sets.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.cdr.call_state import closing_events, fold
from gateway.events import (
    CallEnded,
    CallStarted,
    Event,
    LegAnswered,
    LegCreated,
    LegDialled,
    LegEnded,
    LegHeld,
    LegJoined,
    LegLeft,
    LegMuted,
    LegResumed,
    LegRinging,
    LegTransferred,
    MediaMoved,
    Noted,
    WorkBegan,
    WorkEnded,
)
from gateway.model import CallId, InteractionId, LegId, PartyType, ReleasedBy, Result, Role, Termination
from tests.cdr.events import START

AGENT, EXPERT, CUSTOMER = PartyType.AGENT, PartyType.TEAMS_EXPERT, PartyType.EXTERNAL
_OVER = Termination(Result.COMPLETED, "hangup", 200, 16, ReleasedBy.CALLER)
_BUSY = Termination(Result.BUSY, "busy", 486, 17, ReleasedBy.CALLEE)


@dataclass
class Party:
    leg: LegId
    kind: PartyType
    login: str = ""
    up: bool = False


@dataclass
class Truth:
    """A call as it really was; moments and lengths in milliseconds."""

    call: CallId
    interaction: InteractionId
    began: int
    primary: CallId | None = None
    parties: dict[LegId, Party] = field(default_factory=dict)
    talking: set[LegId] = field(default_factory=set)
    holding: set[LegId] = field(default_factory=set)
    logins: set[str] = field(default_factory=set)
    sent: bool = False
    answered: int | None = None
    ended: int | None = None
    reason: str = ""
    hold: int = 0
    others_hold: int = 0
    largest: int = 0
    transferred: bool = False
    work: int = 0

    def pass_time(self, length: int) -> None:
        if self.ended is not None or not length:
            return
        self.largest = max(self.largest, len(self.talking))
        if self.answered is None:
            return
        kinds = {self.parties[leg].kind for leg in self.holding}
        self.hold += length if AGENT in kinds else 0
        self.others_hold += length if kinds - {AGENT} else 0


@dataclass(frozen=True)
class Moment:
    """Who talked and who held, by running call, when the journal had so many `events`."""

    events: int
    talking: dict[CallId, set[LegId]]
    holding: dict[CallId, set[LegId]]


class Floor:
    """`run(steps)`, then look at `journal` and `calls`; `seen` counts what has happened, `moments` are those
    at which time passed.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now = START
        self.journal: list[Event] = []
        self.calls: dict[CallId, Truth] = {}
        self.seen: Counter[str] = Counter()
        self.moments: list[Moment] = []
        self._numbers = itertools.count()
        self._work: list[tuple[CallId, str, int]] = []

    def run(self, steps: int) -> None:
        acts: list[Callable[[], object]] = [
            *[self.call] * 3, *[self.hold] * 3, *[self.resume] * 3, *[self.consult] * 3, *[self.merge] * 2,
            *[self.attended] * 2, self.blind, *[self.add] * 2, *[self.leave] * 2, self.supervise, self.mute,
            *[self.hang_up] * 2, *[self.work_over] * 2, self.crash,
        ]  # fmt: skip
        for _ in range(steps):
            self._pass(self.dice.choice((0, 3, 400, 5000, 900_000)))
            act = self.dice.choice(acts)
            if act != self.crash or self.dice.random() < 0.2:
                act()
        self._pass(self.dice.randrange(5000))

    # ---- what may happen ----

    def call(self, primary: Truth | None = None, agent: Party | None = None) -> Truth:
        number = next(self._numbers)
        giid = primary.interaction if primary else InteractionId(f"giid-{number}")
        truth = Truth(CallId(f"{number:032x}"), giid, self.now, primary.call if primary else None)
        self.calls[truth.call] = truth
        self._tell(
            CallStarted(
                call=truth.call, at=self.now, interaction=giid, from_number="+1", to_number="+2",
                consultation_of=truth.primary,
            )
        )  # fmt: skip
        caller = self._party(truth, Role.CALLER, agent)
        if primary is not None:
            self._answer(truth, caller)
            self._join(truth, caller)
        self._dial(truth, Role.CALLEE, [caller])
        return truth

    def hold(self) -> None:
        truth, party = self._somebody()
        if truth and party and party.leg in truth.talking:
            self._tell(LegHeld(call=truth.call, at=self.now, leg=party.leg, by=party.kind))
            truth.holding.add(party.leg)
            self.seen[f"hold by {party.kind}"] += 1

    def resume(self) -> None:
        truth, party = self._somebody()
        if truth and party:
            self._tell(LegResumed(call=truth.call, at=self.now, leg=party.leg, by=party.kind))
            truth.holding.discard(party.leg)

    def consult(self) -> None:
        truth, agent = self._somebody()
        if truth and agent and agent.kind is AGENT and len(truth.talking) > 1:
            self._tell(LegHeld(call=truth.call, at=self.now, leg=agent.leg, by=AGENT))
            truth.holding.add(agent.leg)
            self.call(truth, agent)
            self.seen["consultation"] += 1

    def merge(self) -> None:
        aside, primary = self._consultation()
        if aside and primary:
            moved = [party for party in aside.parties.values() if party.leg in aside.talking]
            self._end(aside, "merged", moving=True)
            for party in moved:
                self._move(primary, party)
            self._tell(MediaMoved(call=primary.call, at=self.now, to="room-1", cause="conference"))
            self.seen["merge"] += 1

    def attended(self) -> None:
        aside, primary = self._consultation()
        if aside and primary:
            agent, *others = [party for party in aside.parties.values() if party.leg in aside.talking]
            self._end(aside, "transferred", moving=True)
            for party in others:
                self._move(primary, party)
            self._transferred(primary, agent.leg, "attended", others[0].leg if others else None)
            if agent.leg in primary.parties:
                self._gone(primary, primary.parties[agent.leg])
            self.seen["attended transfer"] += 1

    def blind(self) -> None:
        truth, party = self._somebody()
        if truth and party and len(truth.talking) > 1:
            if party.leg in truth.talking:
                self._out(truth, party)
            new = self._dial(truth, Role.PARTICIPANT, [], must=True)
            self._transferred(truth, party.leg, "blind", new.leg)
            self._gone(truth, party)
            self.seen["blind transfer"] += 1

    def add(self) -> None:
        truth, _ = self._somebody()
        if truth and len(truth.talking) > 1:
            self._dial(truth, Role.PARTICIPANT, [])
            self.seen["party added"] += 1

    def supervise(self) -> None:
        """Listens; now and then barges in, which makes a member of him."""
        truth, _ = self._somebody()
        if truth and len(truth.talking) > 1:
            boss = self._party(
                truth, Role.PARTICIPANT, Party(LegId(f"l{next(self._numbers)}"), AGENT, "boss")
            )
            self._tell(
                LegDialled(call=truth.call, at=self.now, leg=boss.leg, peer="udp:x", attempt=1),
                LegAnswered(call=truth.call, at=self.now, leg=boss.leg, codec="PCMA"),
                Noted(
                    call=truth.call, at=self.now, what="supervision", leg=boss.leg, detail={"mode": "listen"}
                ),
            )
            boss.up = truth.sent = True
            self.seen["supervision"] += 1
            if self.dice.random() < 0.5:
                self._join(truth, boss)
                self.seen["barge"] += 1

    def mute(self) -> None:
        truth, party = self._somebody()
        if truth and party:
            self._tell(LegMuted(call=truth.call, at=self.now, leg=party.leg, muted=True))

    def leave(self) -> None:
        truth, party = self._somebody()
        if truth and party:
            self._gone(truth, party)
            if len(truth.talking) < 2:
                self._end(truth, "hangup")

    def hang_up(self) -> None:
        truth, _ = self._somebody()
        if truth:
            self._end(truth, "hangup")

    def work_over(self) -> None:
        if self._work:
            call, login, began = self._work.pop(self.dice.randrange(len(self._work)))
            self._tell(WorkEnded(call=call, at=self.now, login=login, began=began))
            self.calls[call].work += self.now - began
            self.seen["after-call work"] += 1

    def crash(self) -> None:
        """The gateway dies; some of its calls come back as they were, the others are ended in the journal."""
        states = fold(self.journal)
        for truth in self._running():
            if self.dice.random() < 0.5:
                self._tell(*closing_events(states[truth.call], self.now))
                truth.ended, truth.reason = self.now, "gateway_restart"
                self.seen["cut by a crash"] += 1
            else:
                self.seen["restored"] += 1

    # ---- what it is made of ----

    def _pass(self, length: int) -> None:
        running = {truth.call: truth for truth in self._running()}
        self.moments.append(
            Moment(
                len(self.journal),
                {call: set(truth.talking) for call, truth in running.items()},
                {call: set(truth.holding) for call, truth in running.items()},
            )
        )
        self.now += length
        for truth in self.calls.values():
            truth.pass_time(length)

    def _tell(self, *events: Event) -> None:
        self.journal.extend(events)

    def _running(self) -> list[Truth]:
        return [truth for truth in self.calls.values() if truth.ended is None]

    def _somebody(self) -> tuple[Truth | None, Party | None]:
        running = self._running()
        if not running:
            return None, None
        truth = self.dice.choice(running)
        parties = [party for party in truth.parties.values() if party.up]
        return truth, self.dice.choice(parties) if parties else None

    def _consultation(self) -> tuple[Truth | None, Truth | None]:
        for aside in self._running():
            primary = self.calls[aside.primary] if aside.primary else None
            if primary and primary.ended is None and len(aside.talking) > 1 and len(primary.talking) > 1:
                return aside, primary
        return None, None

    def _party(self, truth: Truth, role: Role, known: Party | None = None) -> Party:
        kind = self.dice.choice((AGENT, EXPERT, CUSTOMER))
        number = next(self._numbers)
        party = known or Party(LegId(f"l{number}"), kind, f"agent{number}" if kind is AGENT else "")
        party = Party(party.leg, party.kind, party.login)
        truth.parties[party.leg] = party
        if party.login:
            truth.logins.add(party.login)
        self._tell(
            LegCreated(
                call=truth.call, at=self.now, leg=party.leg, trunk="t", party=party.kind, role=role,
                number=f"+{number}", login=party.login,
            )
        )  # fmt: skip
        return party

    def _dial(self, truth: Truth, role: Role, waiting: list[Party], *, must: bool = False) -> Party:
        """Ring somebody, who answers, or not; those who wait for him join with him."""
        party = self._party(truth, role)
        if not must and self.dice.random() < 0.1:
            self._tell(LegEnded(call=truth.call, at=self.now, leg=party.leg, termination=_BUSY))
            del truth.parties[party.leg]
            if waiting:
                self._end(truth, "refused")
                self.seen["no INVITE left"] += not truth.sent
            return party
        self._tell(LegDialled(call=truth.call, at=self.now, leg=party.leg, peer="udp:x", attempt=1))
        truth.sent = True
        self._pass(self.dice.randrange(9000))
        self._tell(LegRinging(call=truth.call, at=self.now, leg=party.leg, sip_code=180))
        self._pass(self.dice.randrange(9000))
        if not must and self.dice.random() < 0.15:
            if waiting:
                self._end(truth, "no_answer")
            else:
                self._gone(truth, party)
            return party
        for one in [party, *waiting]:
            self._answer(truth, one)
        for one in [party, *waiting]:
            self._join(truth, one)
        return party

    def _answer(self, truth: Truth, party: Party) -> None:
        if not party.up:
            self._tell(LegAnswered(call=truth.call, at=self.now, leg=party.leg, codec="PCMA"))
            party.up = truth.sent = True
        if truth.answered is None and sum(one.up for one in truth.parties.values()) > 1:
            truth.answered = self.now

    def _join(self, truth: Truth, party: Party) -> None:
        self._tell(LegJoined(call=truth.call, at=self.now, leg=party.leg))
        truth.talking.add(party.leg)

    def _move(self, truth: Truth, party: Party) -> None:
        """From a consultation into the held call: its hold ends there, if it is the agent's own."""
        if party.leg in truth.parties:
            self._tell(LegResumed(call=truth.call, at=self.now, leg=party.leg, by=party.kind))
            truth.holding.discard(party.leg)
            self._join(truth, truth.parties[party.leg])
            return
        new = self._party(truth, Role.PARTICIPANT, party)
        self._answer(truth, new)
        self._join(truth, new)

    def _transferred(self, truth: Truth, leg: LegId, mode: str, new: LegId | None) -> None:
        self._tell(
            LegTransferred(
                call=truth.call,
                at=self.now,
                leg=leg,
                mode=mode,
                target="+9",
                outcome="completed",
                new_leg=new,
            )
        )
        truth.transferred = True

    def _out(self, truth: Truth, party: Party) -> None:
        self._tell(LegLeft(call=truth.call, at=self.now, leg=party.leg))
        truth.talking.discard(party.leg)
        truth.holding.discard(party.leg)

    def _gone(self, truth: Truth, party: Party) -> None:
        self._tell(LegEnded(call=truth.call, at=self.now, leg=party.leg, termination=_OVER))
        truth.talking.discard(party.leg)
        truth.holding.discard(party.leg)
        del truth.parties[party.leg]
        if party.login and party.up and self.dice.random() < 0.5:
            self._work.append((truth.call, party.login, self.now))
            self._tell(WorkBegan(call=truth.call, at=self.now, login=party.login))

    def _end(self, truth: Truth, reason: str, *, moving: bool = False) -> None:
        for party in list(truth.parties.values()):
            if moving:
                self._out(truth, party)
            else:
                self._gone(truth, party)
        over = Termination(Result.COMPLETED, reason, 200, 16, ReleasedBy.CALLER)
        self._tell(CallEnded(call=truth.call, at=self.now, termination=over))
        truth.ended, truth.reason = self.now, reason
