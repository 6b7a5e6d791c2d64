"""Transports, transactions and a user agent on real sockets of 127.0.0.1, as the gateway joins them."""

from __future__ import annotations

import asyncio
from types import TracebackType

from gateway.clock import LoopClock
from gateway.errors import SipError
from gateway.sip.message import Request, make_response
from gateway.sip.profile import Profile
from gateway.sip.session import Session
from gateway.sip.session_events import SessionEvent
from gateway.sip.session_ports import ServerTransactionPort
from gateway.sip.transaction import TransactionLayer
from gateway.sip.transaction_timers import Timers
from gateway.sip.transport import TransportLayer
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Endpoint, Target, TransportKind
from gateway.sip.useragent import UserAgent
from tests.support.trunk_stack import TableResolver
from tests.support.waiting import until

OFFER = (
    b"v=0\r\no=gw 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 41000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n"
)
HOLD = OFFER.replace(b"sendrecv", b"inactive").replace(b"gw 1 1", b"gw 1 2")


class SessionStack:
    """Use as `async with`. Events are recorded by name; `react` may act on them."""

    def __init__(self, kind: TransportKind, *, timers: Timers | None = None, **profile: object) -> None:
        self.kind = kind
        self.clock = LoopClock()
        self.transports = TransportLayer(
            on_message=lambda message, flow: self.transactions.receive(message, flow),
            on_malformed=lambda error, flow: None,
            admit=lambda flow: True,
            clock=self.clock,
        )
        self.agent = UserAgent(None, TableResolver({}), self.clock, self)
        self.transactions = TransactionLayer(self.transports, self.clock, self.agent, timers)
        self.agent.transactions = self.transactions
        self.events: list[SessionEvent] = []
        self.sessions: list[Session] = []
        self._settings = profile

    async def __aenter__(self) -> SessionStack:
        self.endpoint = (await self.transports.listen([Endpoint(self.kind, "127.0.0.1", 0)]))[0]
        self.profile = Profile(
            contact_host="127.0.0.1",
            contact_port=self.endpoint.port,
            contact_params=f";transport={self.kind}",
            from_host="127.0.0.1",
            **self._settings,  # type: ignore[arg-type]  # a test's own words
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.agent.close()
        await self.transactions.close()
        await self.transports.close()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.endpoint.port

    # -- Application

    def profile_for(self, request: Request, flow: Flow) -> Profile | SipError | None:
        return self.profile

    def on_invite(self, session: Session) -> None:
        self.sessions.append(session)
        session.handler = self.handler
        self.answer(session)

    def answer(self, session: Session) -> None:
        session.provisional(180)
        session.accept(OFFER)

    def on_request(self, transaction: ServerTransactionPort, profile: Profile) -> None:
        transaction.respond(make_response(transaction.request, 200))

    def handler(self, session: Session, event: SessionEvent) -> None:
        self.events.append(event)
        self.react(session, event)

    def react(self, session: Session, event: SessionEvent) -> None:
        """Tests overwrite it in a subclass."""

    # -- calls

    def call(self, port: int) -> Session:
        session = self.agent.invite(
            profile=self.profile,
            target=Target(self.kind, "127.0.0.1", port),
            request_uri=f"sip:sipp@127.0.0.1:{port};transport={self.kind}",
            from_="<sip:gw@127.0.0.1>",
            to=f"<sip:sipp@127.0.0.1:{port}>",
            offer=OFFER,
            handler=self.handler,
            contact_user="gw",
        )
        self.sessions.append(session)
        return session

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    async def seen(self, name: str, count: int = 1, limit: float = 15.0) -> None:
        await until(lambda: self.names().count(name) >= count, limit)

    async def clean(self, limit: float = 10.0) -> None:
        """Nothing of any call is left in the user agent."""
        empty = {"sessions": 0, "dialogs": 0, "subscriptions": 0, "tasks": 0}
        try:
            await until(lambda: self.agent.active == empty, limit)
        except TimeoutError:
            raise AssertionError(f"left over: {self.agent.active}") from None


async def pause(seconds: float) -> None:
    """Let real time pass where the test is about a moment on the wire (a race)."""
    await asyncio.sleep(seconds)
