"""REFER from a party: we answer it, call the target ourselves and put it in the transferor's place.

Teams' transfers go back to Teams with Refer-To and Referred-By byte-exact (facts/direct-routing.md 6.3); a
plain trunk's REFER is routed like a call of that trunk. The REFER itself is never passed on (T18).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.calls.context import CallContext
from gateway.calls.dialling import Order
from gateway.calls.leg import Leg
from gateway.calls.refer_to import ReferTarget, refer_target
from gateway.calls.routing import Origin, Routed, identify, route_call
from gateway.errors import SipError
from gateway.events import LegRinging, LegTransferred
from gateway.model import LegId, ReleasedBy, Result, Role, Termination, TrunkKind
from gateway.sip.refer import Referred
from gateway.sip.session_events import Progress
from gateway.trunks.identity import Caller

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")

TRANSFEROR_LINGERS = 32.0
"""Seconds the transferor has for its own BYE after our final NOTIFY (Teams sends it); then ours goes out."""


class Transfers:
    """Takes every REFER of every call."""

    def __init__(self, context: CallContext) -> None:
        self._context = context

    async def __call__(self, call: Call, leg: Leg, refer: Referred) -> None:
        """Accept it and dial, or refuse it with the reason."""
        try:
            if leg.id not in call.joined:
                raise SipError(481, "Only a party of the call can transfer it")
            if any(isinstance(purpose, TransferTarget) for _, purpose in call.dialling.values()):
                raise SipError(491, "A transfer is under way")
            target = refer_target(refer.refer_to)
            new, order = self._plan(call, leg, target, refer)
        except SipError as error:
            log.warning("refer_refused call=%s leg=%s trunk=%s code=%d cause=%s",
                        call.id, leg.id, leg.trunk.name, error.code, error.text)  # fmt: skip
            refer.reject(error.code, error.text)
            return
        purpose = TransferTarget(leg, refer, target)
        await purpose.start(call)
        refer.accept()
        await call.dial(new, order, purpose, like=_other(call, leg))

    def _plan(self, call: Call, leg: Leg, target: ReferTarget, refer: Referred) -> tuple[Leg, Order]:
        other = _other(call, leg)
        caller = Caller(other.number if other is not None else leg.number)
        if leg.trunk.kind is TrunkKind.DIRECT_ROUTING:
            return self._to_teams(call, leg, target, refer, caller)
        origin = Origin(leg.trunk.name, leg.tenant, target.user)
        where = route_call(origin, self._context.directory)
        if not isinstance(where, Routed):
            raise SipError(where.sip_code, where.reason)
        trunk = self._context.trunks[where.trunk]
        new = Leg(
            self._context.bay,
            trunk,
            tenant=where.tenant,
            role=Role.PARTICIPANT,
            identity=identify(trunk.name, where.number, self._context.directory),
            number=where.number,
            post=call.post,
        )
        return new, Order(number=where.number, caller=caller)

    def _to_teams(
        self, call: Call, leg: Leg, target: ReferTarget, refer: Referred, caller: Caller
    ) -> tuple[Leg, Order]:
        """A new call to the proxy and nobody else; a REFER that points elsewhere is not followed (T22)."""
        trunk = leg.trunk
        proxies = {peer.host.lower() for peer in trunk.peers.values()} | set(trunk.settings.tls_names)
        if target.host not in proxies:
            raise SipError(403, "Refer-To names no proxy of this trunk")
        headers: list[tuple[str, str]] = []
        if refer.referred_by:
            headers.append(("Referred-By", refer.referred_by))
        if target.replaces and trunk.settings.send_replaces:
            headers.append(("Replaces", target.replaces))
        new = Leg(
            self._context.bay,
            trunk,
            tenant=leg.tenant,
            role=Role.PARTICIPANT,
            identity=leg.identity,
            number=trunk.e164(target.user) if target.user else "",
            post=call.post,
        )
        order = Order(number=new.number, caller=caller, headers=tuple(headers), target=target.uri)
        return new, order


class TransferTarget:
    """Purpose of the leg a transfer goes to."""

    vital = True

    def __init__(self, transferor: Leg, refer: Referred, target: ReferTarget) -> None:
        self._transferor, self._refer, self._target = transferor, refer, target
        self._waits: LegId | None = None
        self._rang = False
        self._release: asyncio.Task[None] | None = None

    @property
    def _mode(self) -> str:
        return "attended" if "x-tt=" in self._refer.referred_by or self._target.replaces else "blind"

    async def start(self, call: Call) -> None:
        """The transferor steps aside; the one who waits hears ringing, the members of a conference go on."""
        others = [leg for leg in call.joined if leg != self._transferor.id]
        await self._note(call, "started")
        call.away.add(self._transferor.id)
        if len(others) == 1:
            self._waits = others[0]
            call.ringback.add(self._waits)
        await call.rewire()

    async def progress(self, call: Call, leg: Leg, event: Progress) -> None:
        self._refer.notify(event.code, event.phrase)
        if self._rang:
            return
        self._rang = True
        await call.record(LegRinging(call=call.id, at=call.now(), leg=leg.id, sip_code=event.code))

    async def answered(self, call: Call, leg: Leg) -> None:
        """Re-bridge to the new leg first, tell the transferor then (facts 6.3.4)."""
        call.ringback.discard(self._waits or leg.id)
        await self._note(call, "completed", leg)
        await call.step_down(self._transferor)
        await call.admit(leg)
        self._refer.notify(200, final=True)
        if self._transferor.id in call.legs:
            self._release = asyncio.get_running_loop().create_task(
                self._linger(call), name=f"transferor-{self._transferor.id}"
            )
            call.keep(self._release)

    async def failed(self, call: Call, leg: Leg, termination: Termination) -> None:
        """The original parties get each other back; with nobody to go back to it is the end."""
        self._refer.notify(termination.sip_code, final=True)
        await self._note(call, "failed", code=termination.sip_code)
        call.ringback.discard(self._waits or leg.id)
        call.away.discard(self._transferor.id)
        if len(call.joined) >= 2:
            await call.rewire()
        else:
            await call.end(termination)

    async def stranded(self, call: Call, leg: Leg, termination: Termination) -> None:
        """The one who was to be transferred hung up: nobody is left to talk to the target."""
        self._refer.notify(487, final=True)
        await call.end(termination)

    async def _linger(self, call: Call) -> None:
        """Teams hangs up itself; if it does not, our BYE goes out after the final NOTIFY's answer (T18)."""
        await self._refer.finished.wait()
        await asyncio.sleep(TRANSFEROR_LINGERS)

        async def over() -> None:
            if self._transferor.id in call.legs:
                done = Termination(Result.COMPLETED, "transferred", 200, 16, ReleasedBy.SYSTEM)
                await call.drop(self._transferor, done)

        await call.command(over)

    async def _note(self, call: Call, outcome: str, leg: Leg | None = None, code: int = 0) -> None:
        log.info("transfer call=%s leg=%s mode=%s outcome=%s code=%d",
                 call.id, self._transferor.id, self._mode, outcome, code)  # fmt: skip
        await call.record(
            LegTransferred(
                call=call.id,
                at=call.now(),
                leg=self._transferor.id,
                mode=self._mode,
                target=self._target.user or self._target.host,
                outcome=outcome,
                new_leg=leg.id if leg is not None else None,
                sip_code=code,
            )
        )


def _other(call: Call, leg: Leg) -> Leg | None:
    """Somebody else of the call, whose number and codecs the new leg is offered."""
    return next((call.legs[other] for other in sorted(call.joined) if other != leg.id), None)
