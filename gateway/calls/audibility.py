"""Who hears whom and who hears music: one pure function, the only place that knows the rules.

Hold, mute, consultation and supervision are arguments of `audibility`, never actions of their own; the
patch bay and the rooms are made to agree with what it returns.

The rules, in the order they win:

1. Nobody hears himself. A leg that is being dialled (`ringing`) hears nothing, but those present hear it:
   that is the progress of the dialling. A hold in its early media concerns nobody else.
2. A party who holds the call (`Hold(by=leg)`) neither hears nor is heard, and hears no music: his device
   plays its own or nothing. Everybody's hold counts alike, the agent's and the Teams user's: the product
   says "when a Teams user is in the conference and the call is placed on hold, the remaining participants
   hear the hold music" and does not say who places it. Hold *time* is the business of call detail.
3. A party held by somebody (`Hold(by=…, of=leg)`) takes no part in speech and hears music.
4. A muted party is not heard.
5. A consultation is a conversation aside. Those in it talk among themselves under rules 1 to 4; for the
   others, the one who consults has put the call on hold.
6. A supervisor who listens hears what the supervised conversation hears and is heard by nobody; who
   whispers is heard by the supervised leg alone; who barges in is a party like any other. One who only
   listens or whispers is no participant to the others: his hold gives no music and he gets none.
7. Music, while somebody holds the conversation: `remaining` to everyone who remains, `alone` to the one
   who remains alone, `never` to nobody (rule 3 included).

Those who remain keep hearing each other, with the music beneath (`_talk`). The product's sentence says what
they hear in addition; it does not say that the conference breaks up, and an expert and a customer who are
left with each other expect to go on talking.

A hold, consultation or supervision falls with the one who makes it: it counts only while his leg takes part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from gateway.model import LegId, PartyType


class MusicPolicy(StrEnum):
    """`[media] hold_music`: who hears music while somebody holds."""

    REMAINING = "remaining"
    ALONE = "alone"
    NEVER = "never"


class SupervisorMode(StrEnum):
    LISTEN = "listen"
    WHISPER = "whisper"
    BARGE = "barge"


@dataclass(frozen=True, slots=True)
class Supervision:
    """`of` is the supervised leg: whose conversation is heard, and who hears a whisper."""

    mode: SupervisorMode
    of: LegId


@dataclass(frozen=True, slots=True)
class Participant:
    """A leg's membership in a call.

    party, host: for call detail and permissions; audibility is the same for all (rule 2)
    ringing:     dialled and not yet answered; its sound is early media
    supervision: set for a supervisor, None for everybody else
    """

    leg: LegId
    party: PartyType
    host: bool = False
    ringing: bool = False
    supervision: Supervision | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold and its holder.

    by: the leg that holds; None when a command without a leg does (only together with `of`)
    of: None: the whole call is held; else that leg alone is
    """

    by: LegId | None
    of: LegId | None = None

    def __post_init__(self) -> None:
        if self.by is None and self.of is None:
            raise ValueError("a hold of the whole call needs its holder")


@dataclass(frozen=True, slots=True)
class Consultation:
    """`by` talks aside with the legs in `targets`; merging or going back is removing this."""

    by: LegId
    targets: frozenset[LegId]


@dataclass(frozen=True, slots=True)
class Edges:
    """speech: (speaker, listener) pairs; music: the legs that hear the hold music."""

    speech: frozenset[tuple[LegId, LegId]] = frozenset()
    music: frozenset[LegId] = frozenset()

    def heard_by(self, listener: LegId) -> frozenset[LegId]:
        return frozenset(speaker for speaker, who in self.speech if who == listener)


@dataclass(frozen=True, slots=True)
class _Conversation:
    """One circle of people: the main one, or a consultation aside. Sets of legs, disjoint as named.

    talkers: take part and may hear; dialled: only heard; held: music only; on_hold: somebody holds it
    """

    talkers: frozenset[LegId]
    dialled: frozenset[LegId]
    held: frozenset[LegId]
    on_hold: bool


def audibility(
    participants: Collection[Participant],
    holds: Collection[Hold] = (),
    *,
    muted: Collection[LegId] = (),
    consultations: Collection[Consultation] = (),
    music: MusicPolicy = MusicPolicy.REMAINING,
) -> Edges:
    """The edges that should exist now; a function of the sets alone, so the order of events cannot matter.

    Names of legs that take no part are ignored (an event may overtake a departure). Of two consultations
    that share a leg only the one whose `by` sorts first counts. ValueError: a leg twice in `participants`.
    """
    by_leg = {participant.leg: participant for participant in participants}
    if len(by_leg) != len(participants):
        raise ValueError("a leg takes part twice")
    silent = frozenset(muted)
    aside = _circles(by_leg, consultations)
    conversations = {circle: _converse(circle, by_leg, holds, aside) for circle in {None, *aside.values()}}

    speech: set[tuple[LegId, LegId]] = set()
    listeners: set[LegId] = set()
    for conversation in conversations.values():
        speech.update(_talk(conversation, silent))
        listeners.update(_music(conversation, music))
    for participant in participants:
        if _aloof(participant) and not _holds(participant.leg, holds) and not participant.ringing:
            speech.update(_supervise(participant, by_leg, conversations, aside, silent, holds))
    return Edges(frozenset(speech), frozenset(listeners))


def attending(participants: Collection[Participant], holds: Collection[Hold]) -> frozenset[LegId]:
    """Who neither holds nor is held, and is not being rung: for whom an announcement is."""
    by_leg = {participant.leg: participant for participant in participants}
    away = {leg for leg in by_leg if _holds(leg, holds) or _is_held(leg, holds, by_leg)}
    return frozenset(leg for leg, p in by_leg.items() if not p.ringing and leg not in away)


def _circles(
    by_leg: dict[LegId, Participant], consultations: Collection[Consultation]
) -> dict[LegId, LegId | None]:
    """Leg -> the leg whose consultation it is in; legs of the main conversation are absent."""
    aside: dict[LegId, LegId | None] = {}
    for consultation in sorted(consultations, key=lambda c: (c.by, sorted(c.targets))):
        members = {consultation.by, *consultation.targets}
        if consultation.by not in by_leg or not members.isdisjoint(aside):
            continue
        aside.update((leg, consultation.by) for leg in members if leg in by_leg)
    followers = {
        participant.leg: aside[participant.supervision.of]
        for participant in by_leg.values()
        if participant.supervision is not None and participant.supervision.of in aside
    }
    return followers | aside


def _converse(
    circle: LegId | None,
    by_leg: dict[LegId, Participant],
    holds: Collection[Hold],
    aside: dict[LegId, LegId | None],
) -> _Conversation:
    members = [p for leg, p in by_leg.items() if aside.get(leg) == circle and not _aloof(p)]
    ringing = {p.leg for p in members if p.ringing}
    holders = {p.leg for p in members if _holds(p.leg, holds)}
    held = {p.leg for p in members if _is_held(p.leg, holds, by_leg)} - holders
    consulting = circle is None and any(not _aloof(by_leg[leg]) for leg in aside if aside[leg] == leg)
    return _Conversation(
        talkers=frozenset(p.leg for p in members) - holders - held - ringing,
        dialled=frozenset(ringing - holders - held),
        held=frozenset(held - ringing),
        on_hold=bool(holders - ringing) or consulting,
    )


def _talk(conversation: _Conversation, silent: frozenset[LegId]) -> Iterator[tuple[LegId, LegId]]:
    """Speech goes on among those who remain, whether or not music plays to them as well."""
    for speaker in (conversation.talkers | conversation.dialled) - silent:
        for listener in conversation.talkers - {speaker}:
            yield speaker, listener


def _music(conversation: _Conversation, policy: MusicPolicy) -> frozenset[LegId]:
    if policy is MusicPolicy.NEVER:
        return frozenset()
    alone = policy is MusicPolicy.REMAINING or len(conversation.talkers) == 1
    return conversation.held | (conversation.talkers if conversation.on_hold and alone else frozenset())


def _supervise(
    supervisor: Participant,
    by_leg: dict[LegId, Participant],
    conversations: dict[LegId | None, _Conversation],
    aside: dict[LegId, LegId | None],
    silent: frozenset[LegId],
    holds: Collection[Hold],
) -> Iterator[tuple[LegId, LegId]]:
    conversation = conversations[aside.get(supervisor.leg)]
    if not _is_held(supervisor.leg, holds, by_leg):
        for speaker in (conversation.talkers | conversation.dialled) - silent:
            yield speaker, supervisor.leg
        assert supervisor.supervision is not None
        whispers = supervisor.supervision.mode is SupervisorMode.WHISPER and supervisor.leg not in silent
        if whispers and supervisor.supervision.of in conversation.talkers:
            yield supervisor.leg, supervisor.supervision.of


def _aloof(participant: Participant) -> bool:
    """A supervisor who is not a party to the others."""
    return participant.supervision is not None and participant.supervision.mode is not SupervisorMode.BARGE


def _holds(leg: LegId, holds: Collection[Hold]) -> bool:
    return any(hold.by == leg and hold.of is None for hold in holds)


def _is_held(leg: LegId, holds: Collection[Hold], by_leg: dict[LegId, Participant]) -> bool:
    return any(hold.of == leg and (hold.by is None or hold.by in by_leg) for hold in holds)
