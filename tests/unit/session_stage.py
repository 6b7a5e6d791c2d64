"""A stage for session tests: a user agent on a hand-driven clock, above a transaction layer that only
records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from gateway.errors import SipError, TransportError
from gateway.sip.message import Request, Response, make_request, make_response, new_tag
from gateway.sip.profile import Profile
from gateway.sip.session import Session
from gateway.sip.session_events import SessionEvent
from gateway.sip.session_ports import Headers, ServerTransactionPort
from gateway.sip.session_state import SessionState
from gateway.sip.transaction_timers import Timers
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target, TransportKind
from gateway.sip.useragent import UserAgent
from tests.support.clock import FakeClock

OFFER = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\na=sendrecv\r\n"
ANSWER = b"v=0\r\no=- 2 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 5000 RTP/AVP 8\r\na=sendrecv\r\n"
HOLD = OFFER.replace(b"sendrecv", b"inactive").replace(b"- 1 1", b"- 1 2")
HELD = ANSWER.replace(b"sendrecv", b"inactive").replace(b"- 2 1", b"- 2 2")

PROFILE = Profile(contact_host="gw.example.test", from_host="gw.example.test", session_expires=0)


class StageFlow(Flow):
    def __init__(
        self,
        kind: TransportKind = TransportKind.TLS,
        remote: tuple[str, int] = ("192.0.2.9", 5061),
    ) -> None:
        self.kind = kind
        self.local = ("192.0.2.1", 5061)
        self.remote = remote
        self.is_closed = False

    @property
    def closed(self) -> bool:
        return self.is_closed


class Sent:
    """A request of ours, as the client transaction would hold it."""

    def __init__(
        self,
        request: Request,
        place: Flow | Target,
        on_response: Callable[[Response], None],
        on_failure: Callable[[SipError], None],
    ) -> None:
        self.request = request
        self.place = place
        self.flow: Flow | None = place if isinstance(place, Flow) else None
        self.cancelled: Headers | None = None
        self.on_response = on_response
        self.on_failure = on_failure

    def cancel(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.cancelled = headers

    def answer(
        self,
        code: int,
        *,
        tag: str = "peer",
        sdp: bytes = b"",
        contact: str = "<sip:bob@192.0.2.9:5061;transport=tls>",
        headers: Sequence[tuple[str, str]] = (),
    ) -> Response:
        """Let the peer answer; the response goes straight to the session."""
        own = [("Contact", contact)] if contact and code < 300 else []
        response = make_response(
            self.request,
            code,
            to_tag=tag,
            headers=[*own, *headers],
            body=sdp,
            content_type="application/sdp" if sdp else None,
        )
        self.on_response(response)
        return response


class Received:
    """A request of the peer's, as the server transaction would hold it."""

    def __init__(self, request: Request, flow: Flow) -> None:
        self.request = request
        self.flow = flow
        self.responses: list[Response] = []

    def respond(self, response: Response) -> None:
        self.responses.append(response)

    def ignore(self) -> None:
        assert not self.responses

    @property
    def codes(self) -> list[int]:
        return [response.code for response in self.responses]

    @property
    def last(self) -> Response:
        return self.responses[-1]


class StageTransactions:
    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self.sent: list[Sent] = []
        self.acks: list[Request] = []

    def request(
        self,
        request: Request,
        flow_or_target: Flow | Target,
        *,
        via_host: str | None = None,
        tcp_switch: bool = False,
        branch: str = "",
        on_response: Callable[[Response], None],
        on_failure: Callable[[SipError], None],
    ) -> Sent:
        sent = Sent(request, flow_or_target, on_response, on_failure)
        self.sent.append(sent)
        return sent

    def send_ack(self, ack: Request, flow_or_target: Flow | Target, via_host: str | None = None) -> None:
        self.acks.append(ack)


class StageResolver:
    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None, TransportKind | None]] = []
        self.known: dict[str, str] = {}
        self.more: dict[str, list[str]] = {}

    async def resolve(
        self, uri_or_host: str, port: int | None = None, kind: TransportKind | None = None
    ) -> list[Target]:
        self.asked.append((uri_or_host, port, kind))
        if uri_or_host not in self.known:
            raise TransportError(f"unknown name {uri_or_host}")
        addresses = [self.known[uri_or_host], *self.more.get(uri_or_host, [])]
        kind = kind or TransportKind.UDP
        return [Target(kind, address, port or 5061, uri_or_host) for address in addresses]


class Stage:
    """The user agent, its application, and the peer's side of every message."""

    def __init__(self, profile: Profile = PROFILE) -> None:
        self.clock = FakeClock()
        self.wire = StageTransactions(Timers())
        self.resolver = StageResolver()
        self.profile: Profile | SipError | None = profile
        self.events: list[SessionEvent] = []
        self.incoming: list[Session] = []
        self.outside: list[ServerTransactionPort] = []
        self.react: Callable[[Session, SessionEvent], None] | None = None
        self.on_invite_do: Callable[[Session], None] | None = None
        self.agent = UserAgent(self.wire, self.resolver, self.clock, self, Random(7))
        self.flow = StageFlow()
        self.peer_cseq = 100

    # -- Application

    def profile_for(self, request: Request, flow: Flow) -> Profile | SipError | None:
        return self.profile

    def on_invite(self, session: Session) -> None:
        self.incoming.append(session)
        session.handler = self.handler
        if self.on_invite_do is not None:
            self.on_invite_do(session)

    def on_request(self, transaction: ServerTransactionPort, profile: Profile) -> None:
        self.outside.append(transaction)
        transaction.respond(make_response(transaction.request, 200))

    def handler(self, session: Session, event: SessionEvent) -> None:
        self.events.append(event)
        if self.react is not None:
            self.react(session, event)

    # -- what happened

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def last(self, kind: type[Any]) -> Any:
        return [event for event in self.events if isinstance(event, kind)][-1]

    def methods(self) -> list[str]:
        return [sent.request.method for sent in self.wire.sent]

    def requests(self, method: str) -> list[Sent]:
        return [sent for sent in self.wire.sent if sent.request.method == method]

    def assert_clean(self) -> None:
        """Nothing of a call is left: no session, no dialog, no timer."""
        assert self.agent.active == {"sessions": 0, "dialogs": 0, "subscriptions": 0, "tasks": 0}
        assert self.clock.pending == 0

    # -- the peer acts

    def call(self, *, profile: Profile = PROFILE, place: Flow | Target | None = None, **more: Any) -> Session:
        """We call the peer."""
        return self.agent.invite(
            profile=profile,
            target=place or self.flow,
            request_uri="sip:+4930123@sip.example.test;transport=tls",
            from_="<sip:+4940@gw.example.test>",
            to="<sip:+4930123@sip.example.test>",
            offer=OFFER,
            handler=self.handler,
            contact_user="+4940",
            **more,
        )

    def established_out(
        self,
        *,
        profile: Profile = PROFILE,
        headers: Sequence[tuple[str, str]] = (),
        place: Flow | Target | None = None,
        contact: str = "<sip:bob@192.0.2.9:5061;transport=tls>",
    ) -> Session:
        session = self.call(profile=profile, place=place)
        self.wire.sent[-1].answer(200, sdp=ANSWER, headers=headers, contact=contact)
        return session

    def invited(
        self,
        *,
        sdp: bytes = OFFER,
        headers: Sequence[tuple[str, str]] = (),
        contact: str | None = "<sip:alice@192.0.2.9:5061;transport=tls>",
        call_id: str = "call-1",
        from_tag: str = "peer",
        content_type: str | None = "application/sdp",
        max_forwards: int = 70,
    ) -> Received:
        """The peer calls us."""
        request = make_request(
            "INVITE",
            "sip:+4940@gw.example.test:5061;transport=tls",
            from_=f"<sip:alice@example.test>;tag={from_tag}",
            to="<sip:+4940@gw.example.test>",
            call_id=call_id,
            cseq=self.peer_cseq,
            contact=contact,
            headers=headers,
            body=sdp,
            content_type=content_type if sdp else None,
            max_forwards=max_forwards,
        )
        return self.receive(request)

    def established_in(
        self, *, headers: Sequence[tuple[str, str]] = (), sdp: bytes = OFFER
    ) -> tuple[Session, Received]:
        invite = self.invited(headers=headers, sdp=sdp)
        session = self.incoming[-1]
        session.accept(ANSWER)
        self.ack(session, invite, sdp=b"" if sdp else ANSWER)
        return session, invite

    def ack(self, session: Session, invite: Received, sdp: bytes = b"") -> None:
        request = self.peer_request(session, "ACK", sdp=sdp, cseq=invite.request.cseq.sequence, bump=False)
        self.agent.on_ack(request, self.flow)

    def peer_request(
        self,
        session: Session,
        method: str,
        *,
        sdp: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
        cseq: int | None = None,
        bump: bool = True,
        contact: str | None = None,
        tag: str | None = None,
        content_type: str = "application/sdp",
    ) -> Request:
        if bump and cseq is None:
            self.peer_cseq += 1
        dialog = session.dialog
        remote = dialog.remote_party
        if tag is not None:
            remote = f"<sip:bob@example.test>;tag={tag}"
        if contact is None and method in ("INVITE", "UPDATE", "REFER", "NOTIFY"):
            contact = f"<{dialog.remote_target}>"
        return make_request(
            method,
            "sip:gw.example.test:5061;transport=tls",
            from_=remote,
            to=dialog.local_party,
            call_id=dialog.call_id,
            cseq=self.peer_cseq if cseq is None else cseq,
            contact=contact,
            headers=headers,
            body=sdp,
            content_type=content_type if sdp else None,
        )

    def peer_sends(self, session: Session, method: str, **more: Any) -> Received:
        return self.receive(self.peer_request(session, method, **more))

    def receive(self, request: Request, flow: Flow | None = None) -> Received:
        received = Received(request, flow or self.flow)
        self.agent.on_request(received)
        return received

    def stranger(self, method: str, *, to_tag: str = "", headers: Sequence[tuple[str, str]] = ()) -> Received:
        """A request that belongs to no session."""
        return self.receive(
            make_request(
                method,
                "sip:gw.example.test",
                from_=f"<sip:x@example.test>;tag={new_tag()}",
                to="<sip:gw.example.test>" + (f";tag={to_tag}" if to_tag else ""),
                call_id="nobody",
                cseq=1,
                headers=headers,
            )
        )


def state_of(session: Session) -> SessionState:
    """The state now; a call, so that mypy does not think it is still what it was."""
    return session.state
