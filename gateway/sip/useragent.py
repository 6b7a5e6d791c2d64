"""The user agent: every session of the gateway, and the door for requests outside of any (RFC 3261 8.2)."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.clock import Clock
from gateway.errors import SipError
from gateway.sip.dialog import Dialog, from_request, from_stray
from gateway.sip.message import Request, Response, make_request, make_response, new_call_id, new_tag
from gateway.sip.profile import Profile
from gateway.sip.replaces import match_replaces, parse_replaces
from gateway.sip.session import Session
from gateway.sip.session_acks import respond
from gateway.sip.session_link import Exchange, Link, Place
from gateway.sip.session_ports import Headers, ResolverPort, ServerTransactionPort, TransactionsPort
from gateway.sip.session_requests import unsupported_options
from gateway.sip.session_state import SessionState
from gateway.sip.session_timer import IntervalTooSmall, SessionTimer, grant
from gateway.sip.session_uac import InviteClient, proto_dialog
from gateway.sip.session_uas import InviteServer
from gateway.sip.session_values import SDP_TYPE, positive_int, session_description, uri_user, warning
from gateway.sip.transaction_timers import Timers
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_strangers import Strangers
from gateway.sip.transport_types import Target, TransportKind

if TYPE_CHECKING:
    from gateway.sip.session import Handler

log = logging.getLogger("tandem.sip")

STRAY_REASON: Final = (("Reason", 'Q.850;cause=41;text="unknown call"'),)


class Application(Protocol):
    """Who decides about requests that belong to no session."""

    def profile_for(self, request: Request, flow: Flow) -> Profile | SipError | None:
        """How we look to this peer; None: silence, SipError: refuse with its code and text."""
        ...

    def on_invite(self, session: Session) -> None:
        """A new call; must set `session.handler` before it returns. May answer now or later."""
        ...

    def on_request(self, transaction: ServerTransactionPort, profile: Profile) -> None:
        """OPTIONS, REGISTER, MESSAGE… outside of a dialog; must respond."""
        ...


class UserAgent:
    """Implements the transaction layer's user. `transactions` may be set after construction: each needs
    the other.
    """

    def __init__(
        self,
        transactions: TransactionsPort | None,
        resolver: ResolverPort,
        clock: Clock,
        app: Application,
        random: random_module.Random | None = None,
    ) -> None:
        self.transactions = transactions
        self.clock = clock
        self.random = random or random_module.SystemRandom()
        self.sessions: dict[str, Session] = {}
        self._resolver = resolver
        self._app = app
        self._by_call: dict[str, list[Session]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._hangups = 0
        self._strangers = Strangers(clock)
        self._unwanted: dict[tuple[str, str], Dialog] = {}

    # -- counts, for leak checks and metrics

    @property
    def timers(self) -> Timers:
        return self._layer.timers

    @property
    def active(self) -> dict[str, int]:
        """Sessions not over, dialogs known (forks, leftovers of forks, dialogs kept by a subscription),
        tasks.
        """
        kept = [session for group in self._by_call.values() for session in group]
        return {
            "sessions": len(self.sessions),
            "dialogs": sum(len(session.dialogs) for session in kept) + self._hangups,
            "subscriptions": sum(len(session.refers) for session in kept),
            "tasks": len(self._tasks),
        }

    # -- calls out

    def invite(
        self,
        *,
        profile: Profile,
        target: Flow | Target,
        request_uri: str,
        from_: str,
        to: str,
        offer: bytes,
        headers: Headers = (),
        contact_user: str = "",
        handler: Handler,
        max_forwards: int = 70,
        call_id: str | None = None,
        hold_back: bool = False,
    ) -> Session:
        """Place a call. `from_` and `to` are header values without tag; `offer` is never empty (facts
        3.1). `hold_back`: the INVITE waits for `Session.launch`, the ACK for `Session.confirm`.
        """
        if not offer:
            raise ValueError("an INVITE needs an offer")
        local_tag = new_tag()
        contact = profile.contact(contact_user)
        proto = proto_dialog(
            call_id=call_id or new_call_id(profile.from_host or profile.contact_host),
            from_=from_,
            to=to,
            local_tag=local_tag,
            request_uri=request_uri,
            contact=contact,
            cseq=self.random.randint(0, 2**15),
        )
        proto.timer = SessionTimer()
        link = self._link(profile, target)
        placeholder = proto.request("INVITE", proto.local_cseq + 1)
        session = Session(self, profile, link, proto, placeholder, SessionState.CALLING, handler)
        session.client = InviteClient(session, proto, offer, headers, max_forwards)
        self._add(session)
        session.ack_later = hold_back
        if not hold_back:
            session.launch()
        return session

    def hang_up(
        self, link: Link, dialog: Dialog, headers: Headers = (), then: Callable[[], object] = lambda: None
    ) -> None:
        """BYE on a dialog nobody wants: the second fork that answered, the 2xx that crossed a CANCEL."""
        self._hangups += 1

        def done() -> None:
            self._hangups -= 1
            then()

        Exchange(
            link,
            dialog,
            "BYE",
            headers=link.profile.identity(response=False),
            extra=headers,
            on_response=lambda _, response: done() if response.code >= 200 else None,
            on_failure=lambda _: done(),
        ).send()

    # -- finding sessions

    def find(self, call_id: str, local_tag: str, remote_tag: str) -> Session | None:
        """The session that has such a dialog, early or confirmed."""
        for session in self._by_call.get(call_id, ()):
            if session.dialog.local_tag == local_tag and session.dialog_for(remote_tag) is not None:
                return session
        return None

    def forget(self, session: Session) -> None:
        """The session is over; it stays findable while a subscription of its dialog lives."""
        self.sessions.pop(session.id, None)
        self.forget_if_done(session)

    def forget_if_done(self, session: Session) -> None:
        if session.id in self.sessions or session.refers:
            return
        group = self._by_call.get(session.dialog.call_id, [])
        if session in group:
            group.remove(session)
        if not group:
            self._by_call.pop(session.dialog.call_id, None)

    # -- restart

    def restore(self, record: dict[str, Any], handler: Handler, profile: Profile | None = None) -> Session:
        """A session from its snapshot; ValueError when the record is unusable.

        `profile` of today's configuration; without it the recorded one, which has no credentials.
        """
        try:
            dialog = Dialog.from_record(record["dialog"])
            kind = TransportKind(record["kind"])
            profile = profile or Profile.from_record(record["profile"])
            remote = record["remote"]
            place = Target(kind, str(remote[0]), int(remote[1])) if remote else None
            request = make_request(
                "INVITE",
                record["request_uri"],
                from_=record["from"],
                to=record["to"],
                call_id=dialog.call_id,
                cseq=dialog.invite_cseq,
            )
            session_id = str(record["id"])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"incomplete session record: {error}") from error
        link = Link(self._layer, self._resolver, profile, place, self._tasks, kind)
        session = Session(self, profile, link, dialog, request, SessionState.CONFIRMED, handler)
        session.id = session_id
        session.unsure_of_ack = bool(record.get("unacknowledged"))
        dialog.confirmed = True
        self._add(session)
        session.resume(max(0.0, self.clock.wall().timestamp() - dialog.refreshed_at))
        return session

    async def close(self) -> None:
        """Stop without a word to anybody (calls may go on after a restart); end sessions first if they
        should not.
        """
        for session in [session for group in self._by_call.values() for session in group]:
            session.abandon()
        self.sessions.clear()
        self._by_call.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what the transaction layer hands up

    def on_request(self, transaction: ServerTransactionPort) -> None:
        """A new request; what is malformed gets its 4xx here."""
        request = transaction.request
        try:
            local_tag = request.to_tag
            if local_tag:
                self._in_dialog(transaction, local_tag)
            else:
                self._outside(transaction)
        except SipError as error:
            self._refuse(transaction, error.code, error.text)

    def on_cancel(self, invite: ServerTransactionPort, cancel: Request) -> None:
        for session in list(self._by_call.get(cancel.call_id, ())):
            session.cancelled(invite, cancel)

    def on_ack(self, ack: Request, flow: Flow) -> None:
        session = self.find(ack.call_id, ack.to_tag or "", ack.from_tag or "")
        if session is None:
            log.debug("stray_ack call_id=%s", ack.call_id)
            return
        session.acknowledge(ack, flow)

    def on_response_stray(self, response: Response, flow: Flow) -> None:
        for session in self._by_call.get(response.call_id, ()):
            if session.dialog.local_tag == (response.from_tag or "") and session.stray(response):
                return
        try:
            self._hang_up_stray(response, flow)
        except SipError as error:
            log.warning("stray_2xx call_id=%s cause=%s", response.call_id, error.text)

    # -- inside

    def _hang_up_stray(self, response: Response, flow: Flow) -> None:
        """A 2xx to an INVITE that nobody here knows of any more: an earlier process has sent it. It must be
        acknowledged like any other, and wants a BYE (RFC 3261 13.2.2.4).
        """
        via = response.top_via
        host = via.host if via.port is None else f"{via.host}:{via.port}"
        profile = Profile(via.host, via_host=host, user_agent="", follow_contact=False)
        link = Link(self._layer, self._resolver, profile, flow, self._tasks)
        key = response.call_id, response.to_tag or ""
        dialog = self._unwanted.get(key)
        fresh = dialog is None
        if dialog is None:
            dialog = self._unwanted[key] = from_stray(response)
        log.warning("stray_2xx call_id=%s code=%d", response.call_id, response.code)
        link.ack(dialog, dialog.request("ACK", dialog.invite_cseq))
        if fresh:
            self.hang_up(link, dialog, STRAY_REASON, lambda: self._unwanted.pop(key, None))

    @property
    def _layer(self) -> TransactionsPort:
        if self.transactions is None:
            raise RuntimeError("the user agent has no transaction layer yet")
        return self.transactions

    def _link(self, profile: Profile, place: Place) -> Link:
        return Link(self._layer, self._resolver, profile, place, self._tasks)

    def _add(self, session: Session) -> None:
        self.sessions[session.id] = session
        self._by_call.setdefault(session.dialog.call_id, []).append(session)

    def _in_dialog(self, transaction: ServerTransactionPort, local_tag: str) -> None:
        request = transaction.request
        remote_tag = request.from_tag or ""
        session = self.find(request.call_id, local_tag, remote_tag)
        dialog = session.dialog_for(remote_tag) if session is not None else None
        if session is None or dialog is None:
            respond(transaction, make_response(request, 481))
            return
        session.receive(transaction, dialog)

    def _outside(self, transaction: ServerTransactionPort) -> None:
        request = transaction.request
        profile = self._app.profile_for(request, transaction.flow)
        if profile is None:
            # on a connection that we dialled, or that outlived the admission of its address
            self._strangers.note(transaction.flow.remote[0], transaction.flow.kind)
            transaction.ignore()
            return
        if isinstance(profile, SipError):
            self._refuse(transaction, profile.code, profile.text)
        elif positive_int(request.headers, "Max-Forwards") == 0 and request.method != "OPTIONS":
            self._refuse(transaction, 483, None)
        elif missing := unsupported_options(request, profile.extensions):
            self._refuse(transaction, 420, None, [("Unsupported", ", ".join(missing))], profile)
        elif request.method == "INVITE":
            self._incoming(transaction, profile)
        elif request.method in ("BYE", "PRACK", "UPDATE"):
            self._refuse(transaction, 481, None, (), profile)
        else:
            self._app.on_request(transaction, profile)

    def _incoming(self, transaction: ServerTransactionPort, profile: Profile) -> None:
        request = transaction.request
        try:
            offer = session_description(request)
            supports_timer = "timer" in request.tokens("Supported")
            granted, timer_headers = grant(
                request.headers, supports_timer, profile.session_expires, profile.min_se, SessionTimer()
            )
            replaced = self._replaced(request)
            contact = profile.contact(uri_user(request.uri_text))
            dialog = from_request(request, new_tag(), contact)
        except IntervalTooSmall as error:
            self._refuse(transaction, 422, None, [("Min-SE", str(error.min_se))], profile)
            return
        except SipError as error:
            accept = [("Accept", SDP_TYPE)] if error.code == 415 else []
            self._refuse(transaction, error.code, error.text, accept, profile)
            return
        if offer is None and not profile.late_offer:
            text = "An INVITE without an offer is not accepted here"
            self._refuse(transaction, 488, None, [warning(profile.contact_host, text)], profile)
            return
        dialog.local_cseq = self.random.randint(0, 2**15)
        session = Session(
            self, profile, self._link(profile, transaction.flow), dialog, request, SessionState.INCOMING
        )
        session.remote_offer = offer
        session.replaces = replaced
        session.server = InviteServer(session, transaction, granted, timer_headers)
        self._add(session)
        self._offer_to_app(session)

    def _offer_to_app(self, session: Session) -> None:
        try:
            self._app.on_invite(session)
        except SipError as error:
            session.end(error.code)
        except Exception:
            log.exception("on_invite_failed call_id=%s", session.dialog.call_id)
            session.end(500)
        if session.handler is None and not session.over:
            log.error("invite_without_handler call_id=%s", session.dialog.call_id)
            session.end(500)

    def _replaced(self, request: Request) -> Session | None:
        replaces = parse_replaces(request)
        return match_replaces(self, replaces) if replaces is not None else None

    def _refuse(
        self,
        transaction: ServerTransactionPort,
        code: int,
        text: str | None,
        headers: Headers = (),
        profile: Profile | None = None,
    ) -> None:
        own = profile.identity(response=True) if profile is not None else []
        if text:
            host = profile.contact_host if profile is not None else ""
            own.append(warning(host, text))
        respond(transaction, make_response(transaction.request, code, headers=[*own, *headers]))
