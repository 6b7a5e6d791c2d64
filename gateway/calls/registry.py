"""All calls of the gateway: admits new ones, keeps them by id, lets them drain."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping

from gateway.calls.audibility import Hold
from gateway.calls.call import Call, CallState
from gateway.calls.consultation import same_agent
from gateway.calls.context import CallContext
from gateway.calls.incoming import Incoming, caller_identity
from gateway.calls.keypad import pressed
from gateway.calls.leg import Leg
from gateway.calls.limits import Limits
from gateway.calls.routing import PartyIdentity
from gateway.calls.signals import Command, MediaLost, NewKey, Signal
from gateway.calls.takeover import Takeover
from gateway.calls.transfer import Transfers
from gateway.errors import MediaError, SipError
from gateway.model import CallId, InteractionId, ReleasedBy, Result, Termination
from gateway.sip.message import Request
from gateway.sip.profile import Profile
from gateway.sip.session import Session
from gateway.sip.transport_flow import Flow
from gateway.trunks.trunk import Recognition, Trunk
from media.digits import Digit
from media.patchbay import Anchor

log = logging.getLogger("tandem.calls")

_SETTLE_POLL = 0.05

RETRY_AFTER = "5"
"""Seconds an overloaded gateway asks for; Teams puts the trunk in hold-down so long (facts 3.5)."""


class CallRegistry:
    """Every running call. `profile_for` and `on_invite` are the session layer's door (`Application`)."""

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self._transfers = Transfers(context, self.find)
        self._calls: dict[CallId, Call] = {}
        self.limits = Limits(context, self._calls)
        self._restoring: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def calls(self) -> Mapping[CallId, Call]:
        return self._calls

    @property
    def leg_count(self) -> int:
        return sum(len(call.legs) for call in self._calls.values())

    # ---- the session layer's door ----

    def profile_for(self, request: Request, flow: Flow) -> Profile | SipError | None:
        """How we look to the sender; None = silence for strangers, a SipError = refuse."""
        origin = self.context.trunks.recognise(request, flow)
        if isinstance(origin, Recognition):
            return origin.trunk.profile(origin.tenant, flow.local)
        return origin

    def on_invite(self, session: Session) -> None:
        """A new call, or 503 while we cannot take one."""
        flow = session.flow
        origin = self.context.trunks.recognise(session.request, flow) if flow is not None else None
        if not isinstance(origin, Recognition):
            error = origin or SipError(403, "Forbidden")
            session.reject(error.code, error.text)
            return
        if session.replaces is not None:
            self._replace(session, session.replaces, origin)
            return
        refusal = self.limits.refusal(origin.trunk)
        if refusal:
            self.limits.refused[refusal] += 1
            log.warning("call_refused trunk=%s code=503 cause=%s", origin.trunk.name, refusal)
            session.reject(
                503,
                headers=(("Retry-After", RETRY_AFTER), ("Reason", f'Q.850;cause=42;text="{refusal}"')),
            )
            return
        call = self.new_call(self._held_by_caller(session, origin))
        first = Incoming(self.context, call, session, origin)
        session.handler = first.leg.handle
        self.limits.entering(call.id)
        call.start(first)

    def _replace(self, session: Session, replaced: Session, origin: Recognition) -> None:
        """INVITE with Replaces (RFC 3891): never a new call, and only for a leg of the same trunk."""
        found = self.find(replaced)
        if found is not None and found[1].trunk is origin.trunk:
            call, leg = found
            takeover = Takeover(self.context, call, session, origin, leg)
            session.handler = takeover.leg.handle
            call.post(Command(takeover, too_late=lambda: session.reject(481)))
            return
        log.warning("replaces_refused trunk=%s code=481", origin.trunk.name)
        session.reject(481)

    def find(self, session: Session) -> tuple[Call, Leg] | None:
        """The leg that a session belongs to, and the call that has it now."""
        for call in self._calls.values():
            for leg in call.legs.values():
                if leg.session is session:
                    return call, leg
        return None

    def takes_part(self, trunk: Trunk, tenant: str, number: str) -> bool:
        """Whether a running call has `number` (E.164) on another trunk and a leg of `tenant` on `trunk`."""
        return any(
            any(leg.trunk is trunk and leg.tenant == tenant for leg in call.legs.values())
            and any(
                leg.trunk is not trunk and leg.trunk.e164(leg.number) == number for leg in call.legs.values()
            )
            for call in self._calls.values()
        )

    def held_by(self, identity: PartyIdentity) -> Call | None:
        """The call that an agent has on hold, the latest of several: one that he makes now is a consultation
        of it (facts/call-detail.md 4.6).
        """
        return _latest(self._held(), identity)

    def _held_by_caller(self, session: Session, origin: Recognition) -> Call | None:
        held = self._held()
        if not held:
            return None
        headers = session.request.headers
        number = origin.trunk.caller(headers).number
        return _latest(held, caller_identity(self.context, origin.trunk, number, headers))

    def _held(self) -> list[tuple[int, Call, Leg]]:
        """Calls on hold, by whom, and since when: by the records' clock, which nobody sets back."""
        return [
            (call.held_at.get(leg.id, 0), call, leg)
            for call in self._calls.values()
            if call.holds
            for leg in call.legs.values()
            if Hold(leg.id) in call.holds
        ]

    def pressed(self, digit: Digit) -> None:
        """rtpengine's news: a party has pressed a key (Engine.on_digit)."""
        for call in self._calls.values():
            leg = call.legs.get(digit.leg)
            if leg is not None:
                call.post(Command(functools.partial(_pressed, call, leg, digit)))
                return

    # ---- life ----

    def new_call(self, primary: Call | None = None) -> Call:
        """A call that is counted; `start` it. `primary`: the held call it is a consultation of."""
        call = Call(
            self.context,
            on_end=self._ended,
            on_refer=self._transfers,
            limits=self.limits,
            primary=primary,
        )
        self._calls[call.id] = call
        self._idle.clear()
        return call

    def discard(self, call: Call) -> None:
        """A call that was never started."""
        self._ended(call)

    def known_call(self, call_id: CallId, interaction: InteractionId) -> Call:
        """A call that an earlier gateway had under these ids; counted, and to be made as it was."""
        call = Call(
            self.context,
            on_end=self._ended,
            on_refer=self._transfers,
            limits=self.limits,
            known_as=(call_id, interaction),
        )
        self._calls[call.id] = call
        self._idle.clear()
        return call

    def unknown_call(self, call: Call) -> None:
        """It could not be made again."""
        self._ended(call)

    async def settle(self, limit: float) -> None:
        """Before a restart: give what is being set up `limit` seconds, then end what still is. Calls that
        are up go on."""
        self.limits.draining = True
        clock = self.context.clock
        end = clock.now() + limit
        while any(map(_unsettled, self._calls.values())) and clock.now() < end:  # noqa: ASYNC110
            await asyncio.sleep(_SETTLE_POLL)
        over = Termination(Result.FAILED, "gateway_restart", 503, 41, ReleasedBy.SYSTEM)
        early = [call for call in self._calls.values() if call.state is CallState.SETUP]
        for call in early:
            call.terminate(over)
        await asyncio.gather(*(call.join() for call in early))

    async def freeze(self) -> None:
        """Stop every call's task where it stands, and write down how that is. Nobody is told anything."""
        for task in self._restoring:
            task.cancel()
        calls = list(self._calls.values())
        await asyncio.gather(*(call.freeze() for call in calls))
        await asyncio.gather(*(call.remembered() for call in calls))

    def _ended(self, call: Call) -> None:
        self._calls.pop(call.id, None)
        if not self._calls:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until no call is left."""
        await self._idle.wait()

    async def end_all(self, reason: str = "shutdown") -> None:
        """Hang up every call."""
        over = Termination(Result.COMPLETED, reason, 200, 41, ReleasedBy.SYSTEM)
        for task in self._restoring:
            task.cancel()
        calls = list(self._calls.values())
        for call in calls:
            call.terminate(over)
        await asyncio.gather(*(call.join() for call in calls))

    def media_restarted(self) -> None:
        """rtpengine came back (Engine.on_restarted): connect its legs again, end what it lost."""
        task = asyncio.get_running_loop().create_task(self._restore_media(), name="restore-media")
        self._restoring.add(task)
        task.add_done_callback(self._restoring.discard)

    async def _restore_media(self) -> None:
        def tell(anchor: Anchor, news: Callable[[Leg], Signal]) -> None:
            for call in self._calls.values():
                leg = call.legs.get(anchor.leg)
                if leg is not None:
                    call.post(news(leg))
                    return

        try:
            await self.context.bay.restored(
                on_lost=lambda anchor: tell(anchor, lambda leg: MediaLost(leg, None)),
                on_rekey=lambda anchor: tell(anchor, NewKey),
            )
        except MediaError as error:
            log.error("media_not_restored cause=%s", error.text)


def _unsettled(call: Call) -> bool:
    return call.state is CallState.SETUP or bool(call.dialling)


async def _pressed(call: Call, leg: Leg, digit: Digit) -> None:
    if leg.id in call.joined:
        pressed(call, leg, digit.digit, digit.ms, as_sound=True)


def _latest(held: list[tuple[int, Call, Leg]], identity: PartyIdentity) -> Call | None:
    """Of the calls in `CallRegistry._held` the one that this agent has held last."""
    his = [(since, call) for since, call, leg in held if same_agent(leg, identity)]
    return max(his, key=lambda one: one[0])[1] if his else None
