"""Legs at a page: the trunk they seem to have, who gets one, and how they are called."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from gateway.calls.context import CallContext
from gateway.calls.dialling import Dialling, Order
from gateway.calls.leg import Leg, LegEdge, LegState
from gateway.calls.routing import PartyIdentity
from gateway.calls.signals import AttemptTimeout, MediaLost, Resolved, RingTimeout, Signal
from gateway.events import LegDialled
from gateway.model import CallId, PartyType, ReleasedBy, Role, Termination
from gateway.phone.session import PageSession, Ring
from gateway.sip.sdp import Codec
from gateway.sip.sdp_policy import MediaPolicy
from gateway.sip.session_events import Failed, Progress
from gateway.trunks.reasons import from_response
from gateway.trunks.trunk import SipTrunk, Trunk
from media.webrtc_leg import BrowserAnchor

log = logging.getLogger("tandem.calls")

BROWSER = "browser"
"""Name of the trunk in journal, call detail and API."""


class PageTrunk(SipTrunk):
    """The pages as a trunk: that of the agents' telephones, with another name and other media."""

    def __init__(self, agents: Trunk) -> None:
        super().__init__(
            agents.settings.model_copy(update={"name": BROWSER, "early_media": "ringback"}), agents.surface
        )
        self.routed_as = agents.name

    @property
    def media(self) -> MediaPolicy:
        return MediaPolicy(webrtc=True, codecs=(Codec.PCMA,))


def page_leg(
    context: CallContext,
    agents: str,
    login: str,
    *,
    number: str,
    role: Role,
    post: Callable[[Signal], None],
) -> Leg | None:
    """A leg at the page of the agent `login`; None when he has none open.

    agents: name of the trunk behind which the agents' telephones are, "" when there is none
    """
    if not login or not agents or not context.phones.connected(login):
        return None
    return Leg(
        context.bay,
        PageTrunk(context.trunks[agents]),
        tenant="",
        role=role,
        identity=PartyIdentity(PartyType.AGENT, login),
        number=number,
        post=post,
    )


def dialling_of(
    context: CallContext, call: CallId, leg: Leg, order: Order, record: Callable[..., Awaitable[None]]
) -> Dialling:
    """How this leg is called: through its trunk's peers, or at the page."""
    make = PageDialling if isinstance(leg.trunk, PageTrunk) else Dialling
    return make(context, call, leg, order, record)


def resume_page(context: CallContext, leg: Leg, record: Mapping[str, Any]) -> None:
    """After a restart: the leg as it was up at its page, which has a while to come back.

    A leg without media was getting a new connection; it gets another one as soon as its media is asked for.
    """
    if not leg.anchored:
        leg.resume_media(BrowserAnchor(context.bay, leg.id, leg.trunk.media))
    session = _session(context, leg, str(record["login"]), Ring(**record["ring"]))
    leg.state = LegState.UP
    leg.adopt(session)
    session.resume()


def _session(context: CallContext, leg: Leg, login: str, ring: Ring) -> PageSession:
    return PageSession(
        context.phones,
        context.clock,
        leg.id,
        login,
        ring,
        grace=context.config.agent_states.page_grace,
        on_again=lambda: leg.post(MediaLost(leg, None)),
        on_away=lambda away: _away(leg, away),
    )


class PageDialling(Dialling):
    """There is one page and nothing to hunt through."""

    _rang = False

    @property
    def rang(self) -> bool:
        return self._rang

    async def start(self, like: Leg | None) -> Termination | None:
        leg, context = self.leg, self._context
        offer = await leg.prepare(like)
        leg.advance(LegEdge.DIAL)
        limit = leg.trunk.settings.ring_timeout
        leg.timers.append(context.clock.call_later(limit, lambda: leg.post(RingTimeout(leg))))
        login = leg.identity.login
        await self._record(
            LegDialled(call=self._call, at=self._now(), leg=leg.id, peer=f"{BROWSER}:{login}", attempt=1)
        )
        log.info("leg_dialled call=%s leg=%s trunk=%s login=%s", self._call, leg.id, leg.trunk.name, login)
        own = leg.role is Role.CALLER
        caller = self.order.caller
        ring = Ring(
            call=self._call,
            caller="" if caller.withheld else caller.number,
            display="" if caller.withheld else caller.display,
            number=caller.number if own else leg.number,
            direction="out" if own else "in",
            auto_answer=own,
        )
        session = _session(context, leg, login, ring)
        leg.adopt(session)
        session.begin(offer)
        return None

    def progress(self, event: Progress) -> None:
        self._rang = True
        if self.leg.state is not LegState.UP:
            self.leg.advance(LegEdge.RANG)

    def answered(self) -> None:
        """Nobody else was asked."""

    async def failed(self, event: Failed) -> Termination | None:
        return from_response(event.code, event.phrase, by=ReleasedBy(self.leg.role.value), rang=self._rang)

    async def resolved(self, found: Resolved) -> Termination | None:
        return None

    async def gave_nothing(self, waited: AttemptTimeout) -> Termination | None:
        return None

    def moved(self, call: CallId, record: Callable[..., Awaitable[None]]) -> None:
        super().moved(call, record)
        if isinstance(self.leg.session, PageSession):
            self.leg.session.ring = replace(self.leg.session.ring, call=call)

    def stop(self) -> None:
        """Releasing the leg ends its session."""


def _away(leg: Leg, away: bool) -> None:
    if leg.anchored and isinstance(leg.anchor, BrowserAnchor):
        leg.anchor.away = away
