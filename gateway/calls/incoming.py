"""An INVITE that starts a call: anchor the caller, find the way, dial."""

from __future__ import annotations

import logging

from gateway.agents.recognition import recognise
from gateway.calls.call import Call
from gateway.calls.context import CallContext
from gateway.calls.dialling import Order
from gateway.calls.endings import failure, refusal
from gateway.calls.first_callee import FirstCallee
from gateway.calls.leg import Leg
from gateway.calls.outgoing import leg_to
from gateway.calls.routing import PartyIdentity, Routed, identify, origin_of, route_call
from gateway.calls.waiting import waited
from gateway.errors import SipError
from gateway.model import Role, Termination
from gateway.sip.session import Session
from gateway.trunks.trunk import Recognition, Trunk
from gateway.trunks.uris import HeaderSource, user_of

log = logging.getLogger("tandem.calls")


def caller_identity(context: CallContext, trunk: Trunk, number: str, headers: HeaderSource) -> PartyIdentity:
    """Who calls: by `number`, or as the trunk's trusted header says."""
    identity = identify(trunk.name, number, context.directory)
    return recognise(identity, trunk.settings.agent_header, headers, context.config.agents)


class Incoming:
    """The first work of a call that came in over `origin`'s trunk."""

    def __init__(self, context: CallContext, call: Call, session: Session, origin: Recognition) -> None:
        self._context, self._call, self._session, self._origin = context, call, session, origin
        trunk, request = origin.trunk, session.request
        self._who = trunk.caller(request.headers)
        identity = caller_identity(context, trunk, self._who.number, request.headers)
        self.leg = Leg(
            context.bay,
            trunk,
            tenant=origin.tenant,
            role=Role.CALLER,
            identity=identity,
            number=self._who.number,
            withheld=self._who.withheld,
            post=call.post,
        )

    async def __call__(self) -> None:
        call, leg, request = self._call, self.leg, self._session.request
        dialled = user_of(request.uri)
        called = leg.trunk.e164(dialled)
        leg.take_session(self._session)
        call.legs[leg.id] = leg
        call.begin(self._who.number, called)
        call.records.waited(*waited(leg.trunk.settings, request.headers))
        call.add_leg(leg)
        # he has to be told if this gateway dies before the call is in the journal
        call.remember()
        try:
            await leg.take_call()
        except SipError as error:
            log.warning("offer_refused call=%s leg=%s trunk=%s code=%d cause=%s",
                        call.id, leg.id, leg.trunk.name, error.code, error.text)  # fmt: skip
            leg.refusal = refusal(leg, error)
            await call.end(failure(error))
            return
        where = route_call(
            origin_of(leg.trunk.name, leg.tenant, dialled, request.max_forwards, request.headers),
            self._context.directory,
        )
        if isinstance(where, Termination):
            await call.end(where)
            return
        await self._dial(where)

    async def _dial(self, where: Routed) -> None:
        call, caller = self._call, self.leg
        trunk = self._context.trunks[where.trunk]
        callee = leg_to(
            self._context,
            call,
            trunk,
            identify(trunk.name, where.number, self._context.directory),
            number=where.number,
            role=Role.CALLEE,
            tenant=where.tenant,
        )
        order = Order(
            number=where.number,
            caller=self._who,
            headers=trunk.relayed(self._session.request.headers, caller.trunk, where.tenant),
            max_forwards=where.max_forwards,
        )
        purpose = FirstCallee(caller)
        purpose.watch(call, callee)
        await call.dial(callee, order, purpose, like=caller)
