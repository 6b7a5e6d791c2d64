"""The SIP side of the gateway as one part: sockets, transactions, sessions, trunks and calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from gateway.app import Health
from gateway.calls.context import CallContext, Sounds
from gateway.calls.registry import CallRegistry
from gateway.calls.watch import MediaWatch
from gateway.clock import LoopClock, SteadyClock
from gateway.config_models import Agent, Config
from gateway.errors import MessageError, SipError
from gateway.sip.message import Request, make_response
from gateway.sip.profile import Profile
from gateway.sip.resolver import Resolver, ResolverSettings
from gateway.sip.session import Session
from gateway.sip.session_ports import ServerTransactionPort
from gateway.sip.tls import TlsSettings
from gateway.sip.transaction import TransactionLayer
from gateway.sip.transaction_timers import Timers
from gateway.sip.transport import TransportLayer
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Endpoint, TransportLimits
from gateway.sip.useragent import UserAgent
from gateway.trunks.probe import Prober
from gateway.trunks.registry import Trunks
from gateway.trunks.trunk import Recognition
from media.patchbay import PatchBay

if TYPE_CHECKING:
    from gateway.calls.restore import Restorer
    from gateway.cdr.journal import Journal
    from media.pool import RoomPool

log = logging.getLogger("tandem.sip")

SETTLE_LIMIT = 3.0
"""Seconds a restart waits for calls that are being set up; new ones get 503 meanwhile."""

END_LIMIT = 5.0
"""Seconds that hanging up what is left at the end may take; the app gives a part ten."""


class Telephony:
    """Part `sip`. The journal, rtpengine and the rooms run already when it starts."""

    name = "sip"

    def __init__(
        self, config: Config, *, journal: Journal, bay: PatchBay, sounds: Sounds, rooms: RoomPool | None
    ) -> None:
        self._config = config
        clock = LoopClock()
        self.trunks = Trunks.from_config(config, version=metadata.version("tandem"))
        self.resolver = Resolver(
            clock, ResolverSettings(nameservers=config.resolver.nameservers, hosts=config.resolver.hosts)
        )
        self.transports = TransportLayer(
            on_message=lambda message, flow: self.transactions.receive(message, flow),
            on_malformed=self._malformed,
            admit=self.trunks.admit,
            admit_address=self.trunks.admit_address,
            clock=clock,
            tls=_tls(config),
            limits=TransportLimits(
                connect_timeout=config.sip.connect_timeout, idle_timeout=config.sip.idle_timeout
            ),
        )
        self.agent = UserAgent(None, self.resolver, clock, self)
        timers = Timers(t1=config.sip.t1, t2=config.sip.t2, t4=config.sip.t4)
        self.transactions = TransactionLayer(self.transports, clock, self.agent, timers)
        self.agent.transactions = self.transactions
        self.prober = Prober(self.trunks, self.transactions, self.resolver, clock)
        self.context = CallContext(
            clock=SteadyClock(clock, lambda: self.calls.calls),
            journal=journal,
            bay=bay,
            agent=self.agent,
            resolver=self.resolver,
            trunks=self.trunks,
            prober=self.prober,
            directory=self.trunks.directory(config),
            config=config,
            sounds=sounds,
            rooms=rooms,
        )
        self.calls = CallRegistry(self.context)
        self.trunks.ask_calls(self.calls.takes_part)
        self.watch = MediaWatch(self.calls, config.media.rtp_timeout)
        self.endpoints: list[Endpoint] = []
        self.restorer: Restorer | None = None

    # ---- part ----

    async def start(self) -> None:
        """Open the listeners; from then on calls come in. TransportError when an address is not to be had."""
        await self.prober.learn()
        self.endpoints = await self.transports.listen(
            [Endpoint.parse(text) for text in self._config.sip.listen]
        )
        self.trunks.bind(self.endpoints)
        if self.restorer is not None:
            self.restorer.absorb(self.transactions)
        self.context.directory = self.trunks.directory(self._config)
        await self.prober.start()
        if self.restorer is not None:
            self.restorer.resume()
        self.watch.start()

    def know_agents(self, agents: Sequence[Agent]) -> None:
        """These are the agents from now on; calls that are up keep who they found."""
        self._config = self.context.config = self._config.model_copy(update={"agents": tuple(agents)})
        self.context.directory = self.trunks.directory(self._config)

    def drain(self) -> None:
        """Take no new calls; those that are up go on."""
        self.calls.limits.draining = True

    async def stop(self) -> None:
        """End what is still up, with BYE, then close every socket."""
        self.calls.limits.draining = True
        await self.watch.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_LIMIT):
                await self.calls.end_all()
        await self._close()

    async def detach(self) -> None:
        """Before a restart: the calls that are up stay so, and nobody hears of it."""
        await self.watch.close()
        await self.calls.settle(SETTLE_LIMIT)
        await self.calls.freeze()
        await self._close()

    async def _close(self) -> None:
        if self.restorer is not None:
            await self.restorer.close()
        await self.prober.close()
        await self.agent.close()
        await self.transactions.close()
        await self.transports.close()
        await self.resolver.close()

    def health(self) -> Health:
        """Well while a trunk can be used: without one no call can be served."""
        status = self.trunks.status(self.context.clock.now())
        lost = [trunk.name for trunk in status if not trunk.usable]
        return Health(len(lost) < len(status), f"no peer answers: {', '.join(lost)}" if lost else "")

    # ---- the session layer's application ----

    def profile_for(self, request: Request, flow: Flow) -> Profile | SipError | None:
        return self.calls.profile_for(request, flow)

    def on_invite(self, session: Session) -> None:
        self.calls.on_invite(session)

    def on_request(self, transaction: ServerTransactionPort, profile: Profile) -> None:
        """OPTIONS is answered for the trunk; nothing else exists here outside of a dialog."""
        request = transaction.request
        origin = self.trunks.recognise(request, transaction.flow)
        if request.method == "OPTIONS" and isinstance(origin, Recognition):
            answer = self.prober.answer(request, origin, taking_calls=not self.calls.limits.draining)
        else:
            allow = [("Allow", ", ".join(profile.allow)), *profile.identity(response=True)]
            answer = make_response(request, 405, headers=allow)
        transaction.respond(answer)

    @staticmethod
    def _malformed(error: MessageError, flow: Flow) -> None:
        log.warning("message_malformed peer=%s code=%d cause=%s", flow.remote[0], error.code, error.text)


def _tls(config: Config) -> TlsSettings | None:
    sip = config.sip
    if not any(endpoint.startswith("tls:") for endpoint in (*sip.listen, *_peers(config))):
        return None
    return TlsSettings(
        certificate=sip.certificate,
        private_key=sip.private_key,
        trusted_roots=sip.roots,
        require_client_certificate=sip.require_client_certificate and sip.roots is not None,
    )


def _peers(config: Config) -> list[str]:
    return [peer for trunk in config.trunks for peer in trunk.peers]
