"""Every command of the control API and the agent desktop, on the running calls.

A command is checked first, in the call's own task, and a ControlError means that nothing has changed. What
takes time (a party that is dialled) goes on after the command has returned: the journal's events tell.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.calls.added_party import AddedParty
from gateway.calls.audibility import MusicPolicy, Supervision, SupervisorMode
from gateway.calls.call import Call, CallState
from gateway.calls.consultation import BACK, complete_transfer, consult, consulting, merge, other_leg
from gateway.calls.control_checks import Checks
from gateway.calls.control_checks import ControlError as ControlError
from gateway.calls.control_views import CallView, view_of
from gateway.calls.control_views import LegView as LegView
from gateway.calls.dialling import Order
from gateway.calls.digits import DIGITS
from gateway.calls.holding import restore, set_hold, set_muted, set_party_hold
from gateway.calls.hosting import make_host
from gateway.calls.leg import Leg, LegState
from gateway.calls.outgoing import agent_trunk, leg_to
from gateway.calls.placing import PlacedAgent
from gateway.calls.routing import PartyIdentity
from gateway.calls.semi_attended import complete_ringing, rung
from gateway.calls.signals import HandedOver
from gateway.calls.transfer import transfer
from gateway.errors import MediaError
from gateway.model import PartyType, ReleasedBy, Result, Role, Termination
from gateway.trunks.identity import Caller

log = logging.getLogger("tandem.calls")

T = TypeVar("T")


class CallControl(Checks):
    """The commands. `call_id` and `leg_id` are ids of `CallView` and `LegView`; all raise ControlError."""

    # ---- looking ----

    def calls(self) -> list[CallView]:
        """Every running call, in the order in which they began."""
        return [self._view(call) for call in self._registry.calls.values() if call.started_at]

    def show(self, call_id: str) -> CallView:
        return self._view(self._call(call_id))

    # ---- calls ----

    async def place(self, *, agent: str, number: str, trunk: str = "", digits: str = "") -> CallView:
        """Ring the agent (a login or a number), then call `number` for him. Returns while his phone rings.

        While he holds a call, this is a consultation of it, as if he had dialled at his telephone.
        digits, here and below: sent to the called party when it has answered, as an attendant wants them
        """
        dialled, login = self._agent(agent)
        name = agent_trunk(self._context)
        if not name:
            raise ControlError(409, "no_agent_trunk", 'no trunk reaches agents: give one party = "agent"')
        through = self._context.trunks[name]
        refusal = self._registry.limits.refusal(through)
        if refusal:
            raise ControlError(409, refusal, "no new call can be taken now")
        own = through.e164(dialled)
        identity = PartyIdentity(PartyType.AGENT, login)
        call = self._registry.new_call(self._registry.held_by(identity))
        leg = leg_to(self._context, call, through, identity, number=own, role=Role.CALLER)
        try:
            target, order = self._way(call, number, leg, trunk, role=Role.CALLEE, digits=digits)
        except ControlError:
            self._registry.discard(call)
            raise

        async def first() -> None:
            call.begin(leg.number, target.number)
            await call.dial(leg, Order(leg.number, Caller(target.number)), PlacedAgent(target, order))

        call.start(first)
        return await self._in(call, lambda: self._viewed(call))

    async def hang_up(self, call_id: str, leg_id: str | None = None, *, person: str = "") -> None:
        """End the call for all, or hang up one party as if it had done so itself.

        person, here and in `remove`: the agent who asks for it himself; 403 when he may not, because another
        one hosts the conference. "" for everybody else.
        """
        call = self._call(call_id)

        async def run() -> None:
            if leg_id is not None:
                leg = self._own(call, leg_id)
                self._may_disconnect(call, person, leg)
                await call.leave(
                    leg, _ended("hung_up", ReleasedBy(leg.role.value), up=leg.state is LegState.UP)
                )
                return
            self._may_disconnect(call, person)
            agents = (leg for leg in call.legs.values() if leg.identity.party is PartyType.AGENT)
            agent = next(agents, None)
            by = ReleasedBy(agent.role.value) if agent is not None else ReleasedBy.SYSTEM
            await call.end(_ended("ended_by_command", by, up=call.state is CallState.UP))

        await self._in(call, run)

    async def answer(self, call_id: str, leg_id: str) -> None:
        """Let a telephone that rings answer, as if its user had taken the call; events tell when it has.

        A browser's page answers by itself; a SIP telephone is asked by NOTIFY with `Event: talk`.
        """
        call = self._call(call_id)

        async def run() -> Leg:
            leg = self._own(call, leg_id)
            self._rings(leg)
            return leg

        leg = await self._in(call, run)
        # the answer comes in the call's own task, which therefore must not wait here
        code = await leg.talk()
        log.info("leg_asked_to_answer call=%s leg=%s code=%d", call_id, leg_id, code)
        if code >= 300 and leg.state is LegState.RINGING:
            text = (
                "the page is gone for now"
                if code == 480
                else f"the telephone does not let itself be ({code})"
            )
            raise ControlError(409, "not_answerable", f"{text}: answer it there")

    async def set_music(self, call_id: str, policy: MusicPolicy) -> None:
        """Who hears music while somebody holds this call."""
        call = self._call(call_id)

        async def run() -> None:
            before = call.music
            if before is policy:
                return
            call.music = policy
            try:
                await call.rewire()
            except MediaError:
                call.music = before
                await call.settle()
                raise
            await call.records.noted("hold_music", policy=policy.value)

        await self._in(call, run)

    async def set_stage(self, call_id: str, stage: str) -> None:
        """Where the contact center has the call now, one of `call_detail.STAGES`; for the records alone."""
        call = self._call(call_id)
        await self._in(call, functools.partial(call.records.stage, stage))

    # ---- one participant ----

    async def hold(self, call_id: str, leg_id: str) -> None:
        """This leg's party puts the call on hold; nobody is signalled anything."""
        await self._change(call_id, leg_id, lambda call, leg: set_hold(call, leg, True))

    async def resume(self, call_id: str, leg_id: str) -> None:
        """409 held_by_phone: its own telephone holds the call and has to retrieve it."""

        async def run(call: Call, leg: Leg) -> bool:
            if leg.held:
                raise ControlError(409, "held_by_phone", "the party's own telephone holds; retrieve it there")
            return await set_hold(call, leg, False)

        await self._change(call_id, leg_id, run)

    async def hold_party(self, call_id: str, leg_id: str, by: str) -> None:
        """`by` puts the participant `leg_id` on hold: it hears music and is not heard."""
        await self._hold_party(call_id, leg_id, by, True)

    async def resume_party(self, call_id: str, leg_id: str, by: str) -> None:
        await self._hold_party(call_id, leg_id, by, False)

    async def _hold_party(self, call_id: str, leg_id: str, by: str, held: bool) -> None:
        if self._call(call_id) and leg_id == by:
            raise ControlError(422, "own_leg", "a party cannot be put on hold by itself: hold the call")

        async def run(call: Call, leg: Leg) -> bool:
            return await set_party_hold(call, leg, self._present(call, by), held)

        await self._change(call_id, leg_id, run)

    async def mute(self, call_id: str, leg_id: str, muted: bool) -> None:
        async def run(call: Call, leg: Leg) -> bool:
            if muted and self._context.rooms is None and call.sound.would_mix(call.muted | {leg.id}):
                raise ControlError(
                    409, "no_rooms", "this gateway runs no conference rooms: hold the call instead"
                )
            return await set_muted(call, leg, muted)

        await self._change(call_id, leg_id, run)

    async def digits(self, call_id: str, leg_id: str, digits: str) -> None:
        """Send DTMF to this leg's party; returns when the last one is over."""
        if not digits or not set(digits.upper()) <= DIGITS:
            raise ControlError(422, "bad_digits", "digits are 0-9, *, #, A-D")
        leg = self._present(self._call(call_id), leg_id)
        for digit in digits.upper():
            try:
                await leg.anchor.send_digit(digit)
            except MediaError as error:
                raise ControlError(409, "digits_not_sent", error.text) from error

    async def remove(self, call_id: str, leg_id: str, *, person: str = "") -> None:
        """Disconnect a participant; the others go on."""
        call = self._call(call_id)

        async def run() -> None:
            leg = self._own(call, leg_id)
            self._may_disconnect(call, person, leg)
            await self._out(call, leg, _ended("removed", ReleasedBy.PARTICIPANT, up=leg.state is LegState.UP))

        await self._in(call, run)

    @staticmethod
    async def _out(call: Call, leg: Leg, over: Termination) -> None:
        if leg.id in call.dialling:
            await call.dial_over(leg, over)
        else:
            await call.leave(leg, over)

    # ---- more participants ----

    async def add(
        self, call_id: str, number: str, *, by: str | None = None, trunk: str = "", digits: str = ""
    ) -> CallView:
        """Call `number` into the call; those present hear it ring.

        by: who becomes the host if there is none yet; an agent where it is not given
        """
        call = self._call(call_id)

        async def run() -> CallView:
            self._needs_room(call)
            host = self._host(call, by)
            leg, order = self._way(call, number, host, trunk, digits=digits)
            await make_host(call, host)
            await call.dial(leg, order, AddedParty(), like=host)
            return self._view(call)

        return await self._in(call, run)

    async def supervise(self, call_id: str, leg_id: str, number: str, mode: SupervisorMode) -> CallView:
        """Call a supervisor who listens to, whispers to, or barges in on the leg's conversation."""
        call = self._call(call_id)

        async def run() -> CallView:
            self._needs_room(call)
            supervised = self._present(call, leg_id)
            leg, order = self._way(call, number, supervised, "")
            supervision = call.supervisors[leg.id] = Supervision(mode, supervised.id)
            await call.dial(leg, order, AddedParty(supervision), like=supervised)
            return self._view(call)

        return await self._in(call, run)

    async def supervise_mode(self, call_id: str, leg_id: str, mode: SupervisorMode) -> None:
        """Change how the supervisor `leg_id` takes part."""
        call = self._call(call_id)

        async def run() -> None:
            leg = self._present(call, leg_id)
            current = call.supervisors.get(leg.id)
            if current is None:
                raise ControlError(409, "no_supervisor", "this participant does not supervise")
            try:
                await call.supervise(leg, Supervision(mode, current.of))
            except MediaError:
                await call.supervise(leg, current)
                raise

        await self._in(call, run)

    # ---- consultation and transfer ----

    async def consult(
        self, call_id: str, leg_id: str, number: str, *, trunk: str = "", digits: str = ""
    ) -> CallView:
        """The party `leg_id` holds the call and is connected to `number` in a call of its own: that one."""
        call = self._call(call_id)

        async def run() -> CallView:
            self._needs_up(call)
            agent = self._present(call, leg_id)
            if self._consultation(call) is not None:
                raise ControlError(409, "consultation_open", "end, merge or transfer the open one first")
            target, order = self._way(
                call, number, agent, trunk, role=Role.CALLEE, digits=digits, instead_of=agent
            )
            other = self._registry.new_call(call)
            try:
                await consult(call, other, agent, target, order)
            except BaseException:
                self._registry.discard(other)
                raise
            return self._view(other)

        return await self._in(call, run)

    async def merge(self, call_id: str) -> CallView:
        """Make one conference of a call and its consultation; the view of it."""
        primary, consultation = self._pair(call_id)
        self._needs_room(primary)
        await self._moved(primary, consultation, lambda: merge(consultation, primary))
        return self._view(primary)

    async def back(self, call_id: str) -> CallView:
        """End the consultation and retrieve the held call."""
        primary, consultation = self._pair(call_id)
        agent = consulting(consultation)
        place = other_leg(primary, consultation)
        await self._in(consultation, lambda: consultation.end(BACK))

        async def retrieve() -> CallView:
            leg = primary.legs.get(agent.id) if agent is not None else None
            leg = leg or (place if place is not None and place.id in primary.legs else None)
            if leg is not None and not leg.held:
                await set_hold(primary, leg, False)
                await primary.settle()
            return self._view(primary)

        return await self._in(primary, retrieve)

    async def complete_transfer(self, call_id: str) -> None:
        """The consultation's other party takes the agent's place; the agent is hung up. When the held call
        was a consultation itself, he has the call back instead that he holds for that.

        One who still rings takes it when he answers: until then the party who waits hears ringing, and when
        he does not answer the agent has his held call back.
        """
        primary, consultation = self._pair(call_id)
        await self._moved(
            primary, consultation, lambda: complete_transfer(consultation, primary), while_ringing=True
        )

    async def transfer(
        self, call_id: str, leg_id: str, number: str, *, trunk: str = "", digits: str = ""
    ) -> None:
        """Blind: `number` is called and takes the place of `leg_id`, who comes back when it fails."""
        call = self._call(call_id)

        async def run() -> None:
            self._needs_up(call)
            leg = self._present(call, leg_id)
            other = next((call.legs[o] for o in sorted(call.parties) if o != leg.id and o in call.legs), leg)
            new, order = self._way(
                call, number, leg, trunk, caller=other.caller, digits=digits, instead_of=leg
            )
            await transfer(call, leg, new, order)

        await self._in(call, run)

    async def _moved(
        self,
        primary: Call,
        consultation: Call,
        move: Callable[[], Awaitable[HandedOver]],
        *,
        while_ringing: bool = False,
    ) -> None:
        async def run() -> HandedOver:
            if primary.state is not CallState.UP:
                raise ControlError(409, "wrong_state", f"the held call is {primary.state}")
            if consultation.lent:
                raise ControlError(409, "consultation_open", "a party of the consultation is in another one")
            if len(consultation.parties) < 2 or consultation.state is not CallState.UP:
                ringing = rung(consultation) if while_ringing else None
                if ringing is None:
                    raise ControlError(409, "not_answered", "the consulted party has not answered yet")
                return await complete_ringing(consultation, primary, ringing)
            return await move()

        signal = await self._in(consultation, run)
        await signal.settled.wait()
        if signal.error:
            raise ControlError(409, "not_joined", signal.error)

    # ---- what commands are made of ----

    async def _change(
        self, call_id: str, leg_id: str, change: Callable[[Call, Leg], Awaitable[bool]]
    ) -> None:
        """Change something about a participant; what is so already is no error and changes nothing."""
        call = self._call(call_id)

        async def run() -> None:
            leg, holds, muted = self._present(call, leg_id), set(call.holds), set(call.muted)
            if not await change(call, leg):
                return
            try:
                await call.rewire()
            except MediaError:
                await restore(call, holds, muted)
                raise

        await self._in(call, run)

    def _view(self, call: Call) -> CallView:
        return view_of(call, self._consultation(call))

    async def _viewed(self, call: Call) -> CallView:
        return self._view(call)


def _ended(reason: str, by: ReleasedBy, *, up: bool) -> Termination:
    """How a leg or call ends that a command ends; one that nobody has answered is given up."""
    if up:
        return Termination(Result.COMPLETED, reason, 200, 16, by)
    return Termination(Result.ABANDONED, "cancelled", 487, 16, by)
