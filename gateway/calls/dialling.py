"""Calling one leg: through the peers of its trunk until one rings or gives a definite answer.

`Hunt` decides; here its decisions become lookups, INVITEs and timers. Everything runs in the call's task:
what takes time reports back through the inbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.calls.context import CallContext
from gateway.calls.leg import Leg, LegEdge, LegState
from gateway.calls.signals import AttemptTimeout, Command, Resolved, RingTimeout
from gateway.errors import SipError
from gateway.events import Event, LegAttemptFailed, LegDialled
from gateway.model import CallId, ReleasedBy, Termination
from gateway.sip.session_events import Failed, Progress
from gateway.sip.session_state import SessionState
from gateway.sip.transport_types import Target
from gateway.trunks.hunting import Attempt, Hunt, HuntState, Resolve
from gateway.trunks.identity import Caller, OutgoingInvite
from gateway.trunks.reasons import from_response, from_timeout, from_transport

log = logging.getLogger("tandem.calls")

Headers = Sequence[tuple[str, str]]
SENT_AFTER = 0.5
"""Seconds until the INVITE has left on whatever connection, and in whatever form the peer wanted."""


@dataclass(frozen=True, slots=True)
class Order:
    """Whom to call and as whom.

    number:  as routing rewrote it; caller: whom the called party is shown
    target:  a complete Request-URI to send instead of the one made from `number` (Refer-To, byte-exact)
    headers: to add to the INVITE
    """

    number: str
    caller: Caller
    headers: tuple[tuple[str, str], ...] = ()
    target: str = ""
    max_forwards: int = 70


class Dialling:
    """One leg's way to an answer. `progress`, `failed`, `answered` are fed by the call.

    remembered: writes down what the next gateway has to know of the call
    """

    def __init__(
        self,
        context: CallContext,
        call: CallId,
        leg: Leg,
        order: Order,
        record: Callable[..., Awaitable[None]],
    ) -> None:
        self.leg = leg
        self.order = order
        self._context = context
        self._call = call
        self._record = record
        self.remembered: Callable[[], Awaitable[None]] = _nothing
        self._offer = b""
        self._hunt: Hunt[Target] = leg.trunk.hunt(context.clock.now())
        self._attempt: Attempt[Target] | None = None
        self._lookup: asyncio.Task[None] | None = None

    @property
    def rang(self) -> bool:
        return self._hunt.rang

    @property
    def heard(self) -> bool:
        """The peer being tried has said something, be it 100."""
        session = self.leg.session
        return session is not None and session.state is not SessionState.CALLING

    async def start(self, like: Leg | None) -> Termination | None:
        """Anchor the leg and try the first peer; a Termination when that is already the end."""
        self._offer = await self.leg.prepare(like)
        self.leg.advance(LegEdge.DIAL)
        limit = self.leg.trunk.settings.ring_timeout
        self.leg.timers.append(
            self._context.clock.call_later(limit, lambda: self.leg.post(RingTimeout(self.leg)))
        )
        return await self._next()

    async def resolved(self, found: Resolved) -> Termination | None:
        """The lookup asked for is done."""
        if self._hunt.state is not HuntState.RESOLVING:
            return None
        self._hunt.resolved(found.targets, found.error)
        return await self._next()

    def progress(self, event: Progress) -> None:
        """An 18x: from here on nobody else is tried."""
        self._hunt.provisional(event.code)
        if self.leg.state is not LegState.UP:
            self.leg.advance(LegEdge.RANG)

    def answered(self) -> None:
        self._hunt.answered()
        if self._attempt is not None:
            self._context.prober.attempt_answered(self.leg.trunk, self._attempt.peer, 200)

    async def failed(self, event: Failed) -> Termination | None:
        """The INVITE failed: None while another peer is tried, else how the leg ended."""
        attempt = self._attempt
        if attempt is None:
            return None
        rang = self._hunt.rang
        by = ReleasedBy(self.leg.role.value)
        reasons = event.response.headers.getlist("Reason") if event.response is not None else []
        termination = from_response(event.code, event.phrase, reasons, by=by, rang=rang)
        trunk, prober = self.leg.trunk, self._context.prober
        if event.cause == "transport":
            termination = from_transport(event.phrase)
            prober.attempt_failed(trunk, attempt.peer, 0, event.phrase)
            again = self._hunt.unreachable(event.phrase)
        elif event.cause == "timeout":
            termination = from_timeout(rang=rang, text=event.phrase)
            prober.attempt_failed(trunk, attempt.peer, 0, event.phrase)
            again = self._hunt.failed(0, event.phrase)
        else:
            if event.code == 503 and event.response is not None:
                wait = event.response.headers.get("Retry-After")
                prober.attempt_failed(trunk, attempt.peer, 503, event.phrase, wait)
            else:
                prober.attempt_answered(trunk, attempt.peer, event.code)
            again = self._hunt.failed(event.code, event.phrase)
        await self._note_failure(attempt, event.code, termination.text)
        return (await self._next() or None) if again else termination

    async def gave_nothing(self, waited: AttemptTimeout) -> Termination | None:
        """An attempt's time is up: give it up and go on, unless it has got what the timer waited for."""
        attempt, session = self._attempt, self.leg.session
        if attempt is None or session is None or attempt.number != waited.number or self._hunt.rang:
            return None
        if waited.silence and session.state is not SessionState.CALLING:
            return None
        text = "no response" if waited.silence else "no 18x"
        self.leg.session = None
        session.cancel()
        self._context.prober.attempt_failed(self.leg.trunk, attempt.peer, 0, text)
        again = self._hunt.failed(0, text)
        await self._note_failure(attempt, 408, text)
        return await self._next() if again else from_timeout(rang=False, text=text)

    def moved(self, call: CallId, record: Callable[..., Awaitable[None]]) -> None:
        """The leg is another call's now; what is heard of it goes there already."""
        self._call, self._record = call, record

    def stop(self) -> None:
        """The call has no more use for an answer."""
        self._hunt.abandon()
        if self._lookup is not None:
            self._lookup.cancel()

    async def _next(self) -> Termination | None:
        while True:
            step = self._hunt.step(self._context.clock.now())
            if step is None:
                return from_transport(self._hunt.text) if self._hunt.code != 408 else self._silent()
            if isinstance(step, Resolve):
                self._lookup = asyncio.get_running_loop().create_task(
                    self._resolve(step.peer), name=f"resolve-{self.leg.id}"
                )
                return None
            self._attempt = step
            try:
                await self._invite(step)
            except SipError as error:
                self._hunt.unreachable(error.text)
                await self._note_failure(step, error.code, error.text)
                continue
            return None

    def _silent(self) -> Termination:
        return from_timeout(rang=False, text=self._hunt.text)

    async def _resolve(self, peer: str) -> None:
        endpoint = self.leg.trunk.peers[peer]
        targets: tuple[Target, ...] = ()
        error = ""
        try:
            found = await self._context.resolver.resolve(endpoint.host, endpoint.named_port, endpoint.kind)
            targets = tuple(found)
        except SipError as failure:
            error = failure.text
        self.leg.post(Resolved(self.leg, targets, error))

    async def _invite(self, attempt: Attempt[Target]) -> None:
        """Write down the attempt and its INVITE, then send it: a crash in between leaves a record too many,
        never a telephone that nobody can stop from ringing.
        """
        leg, order = self.leg, self.order
        peer = f"{attempt.target.kind}:{attempt.target.address}:{attempt.target.port}"
        identity = self._identity(attempt)
        log.info(
            "leg_dialled call=%s leg=%s trunk=%s peer=%s address=%s attempt=%d",
            self._call, leg.id, leg.trunk.name, attempt.peer, peer, attempt.number,
        )  # fmt: skip
        session = self._context.agent.invite(
            profile=leg.trunk.profile(leg.tenant),
            target=attempt.target,
            request_uri=order.target or identity.request_uri,
            from_=identity.from_,
            to=identity.to,
            offer=self._offer,
            headers=(*identity.headers, *order.headers),
            contact_user=identity.contact_user,
            max_forwards=order.max_forwards,
            handler=leg.handle,
            hold_back=True,
        )
        leg.adopt(session)
        dialled = LegDialled(
            call=self._call, at=self._now(), leg=leg.id, peer=attempt.peer, attempt=attempt.number
        )
        try:
            # in this order: a call that the journal knows must have a record that says who waits for what
            await self.remembered()
            await self._record(dialled)
        except BaseException:
            leg.session = None
            session.cancel()
            raise
        session.launch()
        # a challenge has been answered by then, with an INVITE that has another branch
        again = self._context.clock.call_later(SENT_AFTER, lambda: leg.post(Command(_nothing)))
        leg.timers.append(again)
        for seconds, silence in ((attempt.silence, True), (attempt.patience, False)):
            timeout = AttemptTimeout(leg, attempt.number, silence)
            leg.timers.append(
                self._context.clock.call_later(seconds, lambda timeout=timeout: leg.post(timeout))  # type: ignore[misc]
            )

    def _identity(self, attempt: Attempt[Target]) -> OutgoingInvite:
        order = self.order
        return self.leg.trunk.outgoing(order.number, order.caller, peer=attempt.peer, tenant=self.leg.tenant)

    async def _note_failure(self, attempt: Attempt[Target], code: int, text: str) -> None:
        event: Event = LegAttemptFailed(
            call=self._call,
            at=self._now(),
            leg=self.leg.id,
            peer=attempt.peer,
            attempt=attempt.number,
            sip_code=code,
            text=text,
        )
        log.info(
            "leg_attempt_failed call=%s leg=%s trunk=%s peer=%s attempt=%d code=%d text=%r",
            self._call, self.leg.id, self.leg.trunk.name, attempt.peer, attempt.number, code, text,
        )  # fmt: skip
        await self._record(event)

    def _now(self) -> int:
        return int(self._context.clock.wall().timestamp() * 1000)


async def _nothing() -> None:
    """Every signal that was handled has the call remembered."""
