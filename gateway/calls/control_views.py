"""Calls as the control API and the agent desktop see them: frozen pictures of one moment."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.calls.audibility import Hold, MusicPolicy, SupervisorMode
from gateway.calls.call import Call
from gateway.calls.hosting import participants
from gateway.calls.leg import Leg, LegState
from gateway.calls.page_leg import PageTrunk
from gateway.model import CallId, InteractionId, LegId, PartyType, Role


@dataclass(frozen=True, slots=True)
class LegView:
    """A participant.

    number:  as dialled or presented, also when withheld from the other party
    login:   of a recognised agent, else ""
    state:   of its dialog: incoming, dialling, ringing, up
    answerable: its telephone rings, and `answer` lets it answer
    held:    its party has put the call on hold by its own description
    holding: it holds the call, by whatever means
    on_hold: somebody has put this one participant on hold
    away:    it takes part in `consultation` of its call for now
    answered_at: milliseconds since the epoch, None while it rings
    supervision: listen, whisper or barge; None for everybody who is no supervisor
    """

    id: LegId
    trunk: str
    number: str
    party: PartyType
    login: str
    role: Role
    host: bool
    state: str
    answerable: bool
    held: bool
    holding: bool
    on_hold: bool
    muted: bool
    away: bool
    codec: str
    answered_at: int | None
    supervision: SupervisorMode | None


@dataclass(frozen=True, slots=True)
class CallView:
    """A call.

    state: setup or up; started_at: milliseconds since the epoch
    consultation_of: the held call that this one is a consultation of
    consultation:    the consultation that is under way while this one is held
    """

    id: CallId
    interaction: InteractionId
    state: str
    started_at: int
    from_number: str
    to_number: str
    music: MusicPolicy
    in_room: bool
    consultation_of: CallId | None
    consultation: CallId | None
    legs: tuple[LegView, ...]


def view_of(call: Call, consultation: Call | None) -> CallView:
    """The picture of a call; `consultation`: the call that is a consultation of it."""
    return CallView(
        id=call.id,
        interaction=call.interaction,
        state=call.state.value,
        started_at=call.started_at,
        from_number=call.from_number,
        to_number=call.to_number,
        music=call.music,
        in_room=call.sound.in_room,
        consultation_of=call.primary.id if call.primary is not None else None,
        consultation=consultation.id if consultation is not None else None,
        legs=tuple(_leg(call, leg) for leg in participants(call)),
    )


def may_answer(leg: Leg) -> bool:
    """Whether its ringing telephone can be told to answer."""
    talk = leg.trunk.settings.talk_event
    able = isinstance(leg.trunk, PageTrunk) or talk == "always" or (talk == "auto" and leg.answerable)
    return able and leg.state is LegState.RINGING


def _leg(call: Call, leg: Leg) -> LegView:
    supervision = call.supervisors.get(leg.id)
    return LegView(
        id=leg.id,
        trunk=leg.trunk.name,
        number=leg.number,
        party=leg.identity.party,
        login=leg.identity.login,
        role=leg.role,
        host=leg.host,
        state=leg.state.value,
        answerable=may_answer(leg),
        held=leg.held,
        holding=Hold(leg.id) in call.holds,
        on_hold=any(hold.of == leg.id for hold in call.holds),
        muted=leg.id in call.muted,
        away=leg.id in call.lent,
        codec=str(leg.codec or ""),
        answered_at=call.answered_at.get(leg.id),
        supervision=supervision.mode if supervision is not None else None,
    )
