"""REFER from a party: we answer it, call the target ourselves and put it in the transferor's place.

Teams' transfers go back to Teams with Refer-To and Referred-By byte-exact (facts/direct-routing.md 6.3); a
plain trunk's REFER is routed like a call of that trunk. The REFER itself is never passed on (T18).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.calls.call_task import CallState
from gateway.calls.consultation import TRANSFERRED, note_transfer
from gateway.calls.context import CallContext
from gateway.calls.dialling import Order
from gateway.calls.handover import hand_over
from gateway.calls.leg import Leg
from gateway.calls.outgoing import outgoing
from gateway.calls.refer_to import ReferTarget, refer_target
from gateway.calls.semi_attended import pass_on, rung
from gateway.calls.signals import Command
from gateway.calls.transfer_target import TransferTarget, let_linger, transferring
from gateway.errors import SipError
from gateway.model import Role, TrunkKind
from gateway.sip.refer import Referred
from gateway.sip.replaces import match_replaces, read_replaces
from gateway.sip.session import Session
from gateway.trunks.identity import Caller

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")


class Transfers:
    """Takes every REFER of every call.

    find: the call and leg that a session belongs to
    """

    def __init__(self, context: CallContext, find: Callable[[Session], tuple[Call, Leg] | None]) -> None:
        self._context, self._find = context, find

    async def __call__(self, call: Call, leg: Leg, refer: Referred) -> None:
        """Accept it and dial, or connect two calls, or refuse it with the reason."""
        try:
            _check(call, leg)
            target = refer_target(refer.refer_to)
            replaced = self._ours(leg, target)
            if replaced is not None:
                attended = Attended(call, leg, refer, *replaced)
            else:
                new, order = self._plan(call, leg, target, refer)
        except SipError as error:
            log.warning("refer_refused call=%s leg=%s trunk=%s code=%d cause=%s",
                        call.id, leg.id, leg.trunk.name, error.code, error.text)  # fmt: skip
            refer.reject(error.code, error.text)
            return
        if replaced is not None:
            refer.accept()
            await attended.connect()
            return
        purpose = TransferTarget(leg, refer, target)
        await purpose.start(call)
        refer.accept()
        await call.dial(new, order, purpose, like=_other(call, leg))

    def _ours(self, leg: Leg, target: ReferTarget) -> tuple[Call, Leg] | None:
        """The leg of ours that the target is to replace; Teams' REFERs never name one (facts 6.3)."""
        if not target.replaces or leg.trunk.kind is TrunkKind.DIRECT_ROUTING:
            return None
        try:
            session = match_replaces(self._context.agent, read_replaces(target.replaces), unanswered=True)
        except SipError as error:
            if error.code != 481 or target.authority in self._context.directory.own_hosts:
                raise
            return None
        found = self._find(session)
        if found is None or found[1].trunk is not leg.trunk:
            raise SipError(481, "No dialog of yours matches Replaces")
        return found

    def _plan(self, call: Call, leg: Leg, target: ReferTarget, refer: Referred) -> tuple[Leg, Order]:
        other = _other(call, leg)
        caller = (other or leg).caller
        if leg.trunk.kind is TrunkKind.DIRECT_ROUTING:
            return self._to_teams(call, leg, target, refer, caller)
        headers = (("Replaces", target.replaces),) if target.replaces else ()
        new, order = outgoing(self._context, call, target.user, by=leg, caller=caller, headers=headers)
        if headers and new.trunk.kind is TrunkKind.DIRECT_ROUTING and not new.trunk.settings.send_replaces:
            # Teams refuses the header; without it the transfer would ring somebody who is talking
            raise SipError(403, "Teams takes no Replaces of a foreign dialog")
        return new, order

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


async def transfer(call: Call, leg: Leg, new: Leg, order: Order) -> None:
    """A blind transfer by command, in the call's task: `new` is called and takes the place of `leg`."""
    _check(call, leg)
    purpose = TransferTarget(leg, None, ReferTarget("", new.number, ""))
    await purpose.start(call)
    await call.dial(new, order, purpose, like=_other(call, leg))


def _check(call: Call, leg: Leg) -> None:
    """SipError when this leg cannot transfer the call now."""
    if leg.id not in call.parties:
        raise SipError(481, "Only a party of the call can transfer it")
    if leg.id in call.borrowed or leg.id in call.lent:
        raise SipError(491, "A consultation is under way")
    if transferring(call):
        raise SipError(491, "A transfer is under way")


class Attended:
    """A REFER that names another dialog of the same party with us: the two calls become one.

    The held call (or, where none is a consultation of the other, the one the REFER came in) goes on.
    """

    def __init__(self, call: Call, leg: Leg, refer: Referred, other: Call, replaced: Leg) -> None:
        """SipError when it cannot be; nothing has happened then."""
        self._call, self._leg, self._refer, self._other, self._replaced = call, leg, refer, other, replaced
        if other is call:
            raise SipError(403, "Replaces names a party of the same call")
        if replaced.id in other.borrowed or replaced.id in other.lent:
            raise SipError(491, "The dialog to be replaced cannot be left now")

    async def connect(self) -> None:
        if self._call.primary is self._other:
            await self._into_other()
        else:
            self._other.post(Command(self._from_other, too_late=self._gone))

    def _gone(self) -> None:
        self._refer.notify(481, final=True)

    async def _into_other(self) -> None:
        """The consultation's other parties go to the held call; in the consultation's task."""
        call, other, replaced = self._call, self._other, self._replaced
        here = [call.legs[leg] for leg in sorted(call.parties) if leg in call.legs]
        legs = [leg for leg in here if leg is not self._leg]

        async def then(error: str) -> None:
            if not error and replaced.id in other.legs:
                await note_transfer(other, replaced.id, legs)
                await other.leave(replaced, TRANSFERRED)

        if replaced.id not in other.parties or other.state is CallState.ENDED:
            self._gone()
            return
        self._refer.notify(200, final=True)
        await hand_over(call, other, legs, TRANSFERRED, instead_of=replaced, then=then)

    async def _from_other(self) -> None:
        """In the other call's task: its parties come to the call that the REFER came in."""
        call, other, replaced = self._call, self._other, self._replaced
        ringing = rung(other)
        if ringing is not None and ringing is not replaced and replaced.id in other.legs:
            try:
                await pass_on(other, call, ringing, self._leg, self._refer)
            except SipError as error:
                self._refer.notify(error.code, final=True)
            return
        legs = [other.legs[leg] for leg in sorted(other.parties - other.lent.keys()) if leg != replaced.id]
        if not legs or replaced.id not in other.parties:
            self._gone()
            return

        async def then(error: str) -> None:
            if error:
                self._refer.notify(503, final=True)
                return
            await note_transfer(call, self._leg.id, legs)
            self._refer.notify(200, final=True)
            let_linger(call, self._leg, self._refer)

        try:
            await hand_over(other, call, legs, TRANSFERRED, instead_of=self._leg, then=then)
        except SipError as error:
            self._refer.notify(error.code, final=True)


def _other(call: Call, leg: Leg) -> Leg | None:
    """Somebody else of the call, whose number and codecs the new leg is offered."""
    others = (call.legs.get(other) for other in sorted(call.parties) if other != leg.id)
    return next((other for other in others if other is not None), None)
