"""Legs that a command or a party asks for in a running call: which trunk, as whom, as what."""

from __future__ import annotations

from gateway.calls.call import Call
from gateway.calls.context import CallContext
from gateway.calls.dialling import Order
from gateway.calls.leg import Leg
from gateway.calls.page_leg import page_leg
from gateway.calls.routing import Origin, PartyIdentity, Routed, identify, route_call
from gateway.errors import SipError
from gateway.model import PartyType, Role, TrunkKind
from gateway.trunks.identity import Caller
from gateway.trunks.numbers import to_e164
from gateway.trunks.trunk import Trunk


def outgoing(
    context: CallContext,
    call: Call,
    number: str,
    *,
    by: Leg,
    caller: Caller,
    trunk: str = "",
    role: Role = Role.PARTICIPANT,
    headers: tuple[tuple[str, str], ...] = (),
) -> tuple[Leg, Order]:
    """A leg for `call` that calls `number`, and how to call it.

    by:     whose trunk's routes decide, unless `trunk` is named; an agent is reached where agents are
    caller: whom the called party is shown
    SipError: 404 no route or no such trunk, 482 or 483 a loop
    """
    name, dialled, tenant = _way(context, number, by, trunk)
    to = context.trunks[name]
    identity = identify(name, dialled, context.directory)
    leg = leg_to(context, call, to, identity, number=dialled, role=role, tenant=tenant)
    return leg, Order(number=dialled, caller=caller, headers=headers)


def leg_to(
    context: CallContext,
    call: Call,
    trunk: Trunk,
    identity: PartyIdentity,
    *,
    number: str,
    role: Role,
    tenant: str = "",
) -> Leg:
    """A new leg for `call`: at the open page of the agent that `identity` names, else over `trunk`."""
    agents = agent_trunk(context)
    return page_leg(context, agents, identity.login, number=number, role=role, post=call.post) or Leg(
        context.bay,
        trunk,
        tenant=tenant,
        role=role,
        identity=identity,
        number=number,
        post=call.post,
    )


def agent_trunk(context: CallContext) -> str:
    """The trunk behind which the agents sit; "" when there is none."""
    plain = [trunk for trunk in context.directory.trunks.values() if trunk.kind is TrunkKind.SIP]
    agents = [trunk for trunk in plain if trunk.party is PartyType.AGENT]
    return next((trunk.name for trunk in (*agents, *plain)), "")


def _way(context: CallContext, number: str, by: Leg, trunk: str) -> tuple[str, str, str]:
    """Trunk, number and tenant to call it by."""
    plan = context.directory.trunks[by.trunk.routed_as].plan
    if not trunk and to_e164(number, plan) in context.directory.agents:
        trunk = agent_trunk(context)
    if trunk:
        known = context.directory.trunks.get(trunk)
        if known is None:
            raise SipError(404, f"there is no trunk {trunk}")
        return trunk, context.trunks[trunk].e164(number), known.tenants[0] if known.tenants else ""
    where = route_call(Origin(by.trunk.routed_as, by.tenant, number), context.directory)
    if not isinstance(where, Routed):
        raise SipError(where.sip_code, f"no route for {number} from trunk {by.trunk.name}: {where.reason}")
    return where.trunk, where.number, where.tenant
