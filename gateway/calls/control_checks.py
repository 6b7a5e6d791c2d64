"""What a command needs before it may change anything: the call, the participant, the way; and what it says
when that is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from gateway.calls.call import Call, CallState
from gateway.calls.context import CallContext
from gateway.calls.control_views import may_answer
from gateway.calls.dialling import Order
from gateway.calls.digits_after import PAUSE, DigitsAfter, sendable
from gateway.calls.hosting import host_of, may_disconnect, participants
from gateway.calls.leg import Leg, LegState
from gateway.calls.outgoing import outgoing
from gateway.calls.registry import CallRegistry
from gateway.errors import IllegalTransition, SipError, TandemError
from gateway.model import CallId, LegId, PartyType, Role
from gateway.trunks.identity import Caller

log = logging.getLogger("tandem.calls")

T = TypeVar("T")
_SHORTEST_NUMBER, _LONGEST_NUMBER = 1, 64
_NUMBER = frozenset("0123456789+*#-._abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class ControlError(TandemError):
    """A command that cannot be carried out: 403 not by him, 404 nobody there, 409 not now, 422 not with these
    words.

    reason: one bounded snake_case word; text: the cause, and the cure where there is one
    """

    def __init__(self, status: Literal[403, 404, 409, 422], reason: str, text: str) -> None:
        self.status, self.reason, self.text = status, reason, text
        super().__init__(f"{status} {reason}: {text}")


class Checks:
    """Finds what a command is about, or raises ControlError; shared by all commands."""

    def __init__(self, context: CallContext, registry: CallRegistry) -> None:
        self._context, self._registry = context, registry
        self._after = DigitsAfter(context)

    def _call(self, call_id: str) -> Call:
        call = self._registry.calls.get(CallId(call_id))
        if call is None or call.state is CallState.ENDED:
            raise ControlError(404, "unknown_call", f"there is no call {call_id}")
        return call

    @staticmethod
    def _own(call: Call, leg_id: str) -> Leg:
        """A leg that is in this call's hands."""
        if LegId(leg_id) in call.lent:
            raise ControlError(409, "in_consultation", "the participant is away in a consultation")
        leg = call.legs.get(LegId(leg_id))
        if leg is None:
            raise ControlError(404, "unknown_leg", f"there is no participant {leg_id} in the call")
        return leg

    def _present(self, call: Call, leg_id: str) -> Leg:
        """A participant who has been answered."""
        leg = self._own(call, leg_id)
        if leg.id not in call.joined or leg.id in call.away:
            raise ControlError(409, "wrong_state", f"the participant is {leg.state}, not in the conversation")
        return leg

    @staticmethod
    def _may_disconnect(call: Call, person: str, leg: Leg | None = None) -> None:
        """403 when this agent may not disconnect `leg`, or (None) everybody; "" may."""
        if not person or (leg is not None and leg.identity.login == person) or may_disconnect(call, person):
            return
        host = host_of(call)
        who = (host.identity.login or host.number) if host is not None else ""
        raise ControlError(
            403, "not_host", f"{who} hosts the conference and may disconnect others: you may leave"
        )

    @staticmethod
    def _rings(leg: Leg) -> None:
        """A leg that can be told to answer."""
        if leg.state is not LegState.RINGING:
            cure = {
                LegState.INCOMING: "this party calls: answer the one it calls",
                LegState.DIALLING: "it does not ring yet: try again when it does",
            }.get(leg.state, "it has been answered")
            raise ControlError(409, "wrong_state", f"the participant is {leg.state}; {cure}")
        if not may_answer(leg):
            raise ControlError(
                409,
                "not_answerable",
                "the telephone has not said that it can be answered from afar (Allow-Events: talk): answer "
                f'it there, or set talk_event = "always" of trunk {leg.trunk.name} if it can',
            )

    def _host(self, call: Call, by: str | None) -> Leg:
        self._needs_up(call)
        if by is not None:
            return self._present(call, by)
        present = [call.legs[leg] for leg in sorted(call.parties) if leg in call.legs]
        agents = [leg for leg in present if leg.identity.party is PartyType.AGENT]
        return next(iter(agents or present))

    @staticmethod
    def _needs_up(call: Call) -> None:
        if call.state is not CallState.UP:
            raise ControlError(409, "wrong_state", "nobody talks in this call yet")

    def _needs_room(self, call: Call) -> None:
        if self._context.rooms is None:
            raise ControlError(409, "no_rooms", "this gateway runs no conference rooms")
        self._needs_up(call)

    def _consultation(self, call: Call) -> Call | None:
        others = self._registry.calls.values()
        return next((c for c in others if c.primary is call and c.state is not CallState.ENDED), None)

    def _pair(self, call_id: str) -> tuple[Call, Call]:
        """The held call and its consultation, whichever of the two was named.

        A consultation that is held itself for the sake of another one is named as the held call of that.
        """
        call = self._call(call_id)
        consultation = self._consultation(call)
        if consultation is not None:
            primary = call
        elif call.primary is not None:
            primary, consultation = call.primary, call
        else:
            raise ControlError(409, "no_consultation", "the call has no consultation")
        if primary.lent.keys() & consultation.lent.keys():
            raise ControlError(
                409, "consultation_open", "the agent consults out of his consultation: finish that one first"
            )
        return primary, consultation

    def _agent(self, agent: str) -> tuple[str, str]:
        """Number and login of an agent given by either."""
        for known in self._context.config.agents:
            if known.login == agent:
                if not known.numbers:
                    raise ControlError(409, "no_number", f"agent {agent} has no number in the configuration")
                return known.numbers[0], agent
        if not any(character.isdigit() for character in agent):
            raise ControlError(404, "unknown_agent", f"there is no agent {agent}")
        _check_number(agent)
        return agent, self._context.directory.agents.get(agent, "")

    def _way(
        self,
        call: Call,
        number: str,
        by: Leg,
        trunk: str,
        *,
        caller: Caller | None = None,
        role: Role = Role.PARTICIPANT,
        digits: str = "",
        instead_of: Leg | None = None,
    ) -> tuple[Leg, Order]:
        """A new leg for `call`, and how to dial it; 409 when its party is there already.

        digits:     sent to the party when it has answered
        instead_of: whoever it may be, because it does not stay beside him
        """
        _check_number(number)
        if not sendable(digits):
            raise ControlError(422, "bad_digits", "digits are 0-9, *, #, A-D, and a comma for a pause")
        who = by.caller if caller is None else caller
        try:
            leg, order = outgoing(self._context, call, number, by=by, caller=who, trunk=trunk, role=role)
        except SipError as error:
            raise ControlError(422, "no_way", error.text) from error
        leg.extension = digits.upper().replace(PAUSE, "")
        there = {one for other in self._connected(call) for one in participants(other)} | {by}
        if any(_same_party(leg, other) for other in there - {instead_of}):
            raise ControlError(409, "already_there", f"{leg.number} is in the call, or being called")
        self._after.expect(leg, digits)
        return leg, order

    def _connected(self, call: Call) -> list[Call]:
        """The call, those held for its sake and those it is held for: a merge makes one of them."""
        first = _first(call)
        return [call, *(other for other in self._registry.calls.values() if _first(other) is first)]

    async def _in(self, call: Call, run: Callable[[], Awaitable[T]]) -> T:
        """Run it in the call's task; what goes wrong there is said in a ControlError's words.

        What it has done is in the record when this returns: a crash must not undo what was answered.
        """
        try:
            result = await call.command(run)
            await call.remembered()
        except ControlError:
            raise
        except IllegalTransition as error:
            raise ControlError(404, "unknown_call", "the call has ended") from error
        except SipError as error:
            log.warning("command_failed call=%s cause=%s", call.id, error)
            raise ControlError(409, "failed", error.text) from error
        return result


def _first(call: Call) -> Call:
    """The call that was held first of those that `call` is a consultation of, or itself."""
    *_, first = (call, *call.above())
    return first


def _same_party(leg: Leg, other: Leg) -> bool:
    """Behind an attendant's number sit as many as it has extensions."""
    return (leg.number, leg.extension) == (other.number, other.extension)


def _check_number(number: str) -> None:
    """422 for what cannot be dialled: control characters and URI syntax stay out of a Request-URI."""
    if not _SHORTEST_NUMBER <= len(number) <= _LONGEST_NUMBER or not set(number) <= _NUMBER:
        raise ControlError(422, "bad_number", "a number is 1 to 64 of digits, letters, + * # - . _")
