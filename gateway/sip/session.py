"""An INVITE session: one dialog, its offer/answer state, its timers, and what the owner may do with it.

The parts do the work: session_uac and session_uas the INVITE that starts it, session_changes and
session_peer_changes what changes it, refer what transfers it. This file holds them together and owns the
state.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gateway.clock import Clock
from gateway.errors import IllegalTransition, SessionRefused, SipError
from gateway.sip.dialog import Dialog
from gateway.sip.message import Request, Response, make_response
from gateway.sip.profile import Profile
from gateway.sip.refer import Referred
from gateway.sip.session_acks import UnackedAnswers, respond
from gateway.sip.session_changes import Change, Changes, Outcome
from gateway.sip.session_changes import Method as OfferMethod
from gateway.sip.session_events import Ended, Failed
from gateway.sip.session_link import Exchange, Link
from gateway.sip.session_peer_changes import PeerChanges
from gateway.sip.session_ports import Headers, ServerTransactionPort
from gateway.sip.session_requests import InSession
from gateway.sip.session_state import (
    OVER,
    TALKING,
    Edge,
    OfferAnswer,
    OfferEdge,
    OfferState,
    SessionState,
    next_session_state,
)
from gateway.sip.session_timer import RefreshTimer
from gateway.sip.session_uac import InviteClient
from gateway.sip.session_uas import InviteServer
from gateway.sip.session_values import SDP_TYPE, cseq_of, extra_headers
from gateway.sip.transaction_timers import Timers
from gateway.sip.transport_flow import Flow

if TYPE_CHECKING:
    from gateway.sip.session_events import SessionEvent
    from gateway.sip.useragent import UserAgent

    Handler = Callable[["Session", SessionEvent], None]

log = logging.getLogger("tandem.sip")

ALWAYS_ALLOWED = frozenset({"INVITE", "ACK", "BYE", "CANCEL"})
WITH_CONTACT = frozenset({"REFER", "NOTIFY", "SUBSCRIBE", "OPTIONS"})


class Session:
    """One INVITE session of a UserAgent.

    Events go to `handler` synchronously; commands are legal inside it. Commands to a session that is over do
    nothing, so that a race with the peer is nobody's mistake; a command that the state forbids is
    IllegalTransition.
    """

    def __init__(
        self,
        agent: UserAgent,
        profile: Profile,
        link: Link,
        dialog: Dialog,
        request: Request,
        state: SessionState,
        handler: Handler | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.agent = agent
        self.profile = profile
        self.link = link
        self.dialog = dialog
        self.request = request
        self.state = state
        self.handler = handler
        self.remote_offer: bytes | None = None
        self.replaces: Session | None = None
        self.client: InviteClient | None = None
        self.ack_later = self.unsure_of_ack = False
        self.server: InviteServer | None = None
        self.offers = OfferAnswer()
        self.unacked = UnackedAnswers(agent.clock, agent.timers, self._no_ack)
        self.changes = Changes(self)
        self.changes_in = PeerChanges(self)
        self.refresh_timer = RefreshTimer(agent.clock, self.changes.refresh, self._not_refreshed)
        self.requests = InSession(self)
        self.refers: list[Referred] = []
        self._bye: Exchange | None = None
        self._bye_headers: Headers = ()

    # -- what others may ask

    @property
    def clock(self) -> Clock:
        return self.agent.clock

    @property
    def timers(self) -> Timers:
        return self.agent.timers

    @property
    def flow(self) -> Flow | None:
        """Where the peer is reached now; None before the first answer to our INVITE and after a restart."""
        return self.link.flow

    @property
    def peer_allow(self) -> frozenset[str]:
        """Methods the peer lists in this dialog; empty while it has not said."""
        return frozenset(self.dialog.peer_allow or ())

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def dialogs(self) -> list[Dialog]:
        """The confirmed dialog, or every early one."""
        if self.dialog.confirmed or self.client is None:
            return [self.dialog]
        return [fork.dialog for fork in self.client.forks.values()]

    def may_send(self, method: str) -> bool:
        """Whether the peer may be sent `method` in this dialog (profile.strict_allow; UPDATE by RFC 3311
        5.1).
        """
        if method in ALWAYS_ALLOWED:
            return True
        if self.profile.strict_allow or method == "UPDATE":
            return self.dialog.allows(method, strict=self.profile.strict_allow)
        return True

    # -- commands as UAS

    def provisional(
        self, code: int, phrase: str | None = None, sdp: bytes | None = None, headers: Headers = ()
    ) -> None:
        """A 1xx to the peer's INVITE, reliable where RFC 3262 and the profile say so."""
        if not self.over:
            self._server("provisional").provisional(code, phrase, sdp, headers)

    def accept(self, sdp: bytes, headers: Headers = ()) -> None:
        """200 with `sdp`: the answer to `remote_offer`, or our offer when that is None."""
        if not self.over:
            self._server("accept").accept(sdp, headers)

    def reject(self, code: int, phrase: str | None = None, headers: Headers = ()) -> None:
        """A final non-2xx answer; no event follows."""
        if not self.over:
            self._server("reject").reject(code, phrase, headers)

    # -- commands as UAC

    def cancel(self, headers: Headers = ()) -> None:
        """Give up our INVITE; Failed(487) follows, or whatever final answer crossed it."""
        if self.over or self.state is SessionState.CANCELLING:
            return
        if self.client is None or self.state in TALKING:
            raise IllegalTransition("session", self.state, "cancel")
        if not self.client.started:
            self.advance(Edge.FAIL)
            self.finish(Failed(487, "Request Terminated", None, "transport"))
            return
        self.advance(Edge.CANCEL)
        self.client.cancel(headers)

    def launch(self) -> None:
        """Send the INVITE of a session that was made with `hold_back`."""
        if self.client is not None and not self.client.started and not self.over:
            self.client.start()
            self.request = self.client.request

    def confirm(self) -> None:
        """Send the ACK of the 2xx that was held back because `ack_later` is set: the owner has written down
        that the peer has answered. A peer that waits for it repeats its 2xx.
        """
        if self.client is not None:
            self.client.acknowledge()

    # -- commands as either

    def bye(self, headers: Headers = ()) -> None:
        """Hang up. Ended(local) is told at once; the BYE itself waits for an ACK or a NOTIFY under way
        (15, T18).
        """
        if self.over:
            return
        if self.state not in TALKING:
            raise IllegalTransition("session", self.state, "bye")
        self._bye_headers = headers
        self.bye_because(Ended("local", None, 200), "hung up")

    def end(self, code: int, headers: Headers = ()) -> None:
        """Do what the state needs: reject with `code`, cancel, or BYE."""
        if self.over:
            return
        if self.state is SessionState.INCOMING:
            self.reject(code, None, headers)
        elif self.state in TALKING:
            self.bye(headers)
        else:
            self.cancel(headers)

    async def offer(self, sdp: bytes, method: OfferMethod = "auto") -> bytes:
        """Offer a change and return the answer; waits for its turn, 491 is retried as RFC 3261 14.1 says.

        SessionRefused: the peer's final code, or 487 when the session ends first, 405 when UPDATE is needed
        and not allowed. TransactionTimeout: the peer is mute, the session ends as well.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        if self.over:
            raise SessionRefused(487, "the session ended")
        self.changes.add(Change(method, sdp, done))
        outcome = await future
        if isinstance(outcome, SipError):
            raise outcome
        return outcome or b""

    async def send(
        self, method: str, headers: Headers = (), body: bytes = b"", content_type: str | None = None
    ) -> Response:
        """INFO, REFER, NOTIFY, MESSAGE, OPTIONS inside the dialog; returns the final response, whatever it
        is.

        SessionRefused(405) without sending when the profile is strict and the peer does not list the method,
        SessionRefused(481) without a dialog; TransactionTimeout and TransportError as they come.
        """
        if not self.may_send(method):
            raise SessionRefused(405, f"the peer does not allow {method}")
        if self.over or not self.dialog.remote_tag:
            raise SessionRefused(481, "no dialog to send it in")
        future: asyncio.Future[Response | SipError] = asyncio.get_running_loop().create_future()

        def done(outcome: Response | SipError) -> None:
            if not future.done():
                future.set_result(outcome)

        Exchange(
            self.link,
            self.dialog,
            method,
            contact=self.dialog.contact if method in WITH_CONTACT else None,
            headers=self.profile.capabilities(response=False),
            extra=headers,
            body=body,
            content_type=content_type,
            on_response=lambda _, response: done(response) if response.code >= 200 else None,
            on_failure=done,
        ).send()
        outcome = await future
        if isinstance(outcome, SipError):
            raise outcome
        if outcome.code == 481 and method != "NOTIFY":
            self.lost(481)
        return outcome

    async def talk(self) -> int:
        """Ask a peer that rings to answer, as if its user had taken the call; the code of its response.

        NOTIFY with Event: talk inside the early dialog, BroadSoft's event package that desk phones share;
        those that take it list talk in Allow-Events of their 18x. Errors as `send`.
        """
        answer = await self.send("NOTIFY", (("Event", "talk"), ("Subscription-State", "active")))
        return answer.code

    # -- what the user agent hands in

    def dialog_for(self, remote_tag: str) -> Dialog | None:
        """The dialog of this session with that remote tag, early forks included."""
        if self.dialog.remote_tag == remote_tag and (self.dialog.confirmed or self.client is None):
            return self.dialog
        if self.client is not None and not self.dialog.confirmed:
            return self.client.dialog_of(remote_tag)
        return None

    def receive(self, transaction: ServerTransactionPort, dialog: Dialog) -> None:
        """A request in one of our dialogs (RFC 3261 12.2.2)."""
        request = transaction.request
        self.link.came_by(transaction.flow)
        cseq = cseq_of(request)
        if cseq <= dialog.remote_cseq:
            self.refuse(transaction, 500, "CSeq Out Of Order")
            return
        dialog.remote_cseq = cseq
        self.requests.dispatch(transaction, dialog)

    def acknowledge(self, ack: Request, flow: Flow) -> None:
        """An ACK to a 2xx of ours; repeated ones are nothing new."""
        self.link.came_by(flow)
        if self.unacked.ack(ack):
            self._bye_when_clear()
            self.changes.pump()

    def cancelled(self, transaction: ServerTransactionPort, cancel: Request) -> None:
        """CANCEL of the INVITE or of a re-INVITE."""
        if self.changes_in.cancelled(transaction):
            return
        if self.server is None or self.server.transaction is not transaction:
            return
        if self.state is SessionState.INCOMING:
            self.server.cancelled(cancel)

    def stray(self, response: Response) -> bool:
        """A 2xx without a transaction; True when it was one of ours and is acknowledged again."""
        if self.client is not None and self.client.resend_ack(response.to_tag or ""):
            return True
        if self.changes.resend_ack(response):
            return True
        dialog = self.dialog
        if not dialog.confirmed or dialog.remote_tag != response.to_tag:
            return False
        # the INVITE was sent before a restart, and its ACK perhaps never
        ack = dialog.request("ACK", cseq_of(response), headers=self.profile.identity(response=False))
        self.link.ack(dialog, ack)
        return True

    def hung_up(self, transaction: ServerTransactionPort, dialog: Dialog) -> None:
        """BYE: 200 whatever we were doing, then the end (RFC 3261 15.1.2)."""
        request = transaction.request
        respond(transaction, self.response(request, 200, headers=self.profile.identity(response=True)))
        if self.state is SessionState.INCOMING and self.server is not None:
            self.server.cancelled(request)
        elif self.state in TALKING:
            self.advance(Edge.BYE_RECEIVED)
            self.unacked.stop()
            self.finish(Ended("remote", request, 200))
        elif self.state is SessionState.ENDING:
            self.advance(Edge.BYE_RECEIVED)
            self.unacked.stop()
            if self._bye is None:
                self._gone()
        elif self.client is not None:
            self.client.drop_fork(dialog.remote_tag)

    # -- what the parts use

    def advance(self, edge: Edge) -> None:
        self.state = next_session_state(self.state, edge, call=self.dialog.call_id)

    def emit(self, event: SessionEvent) -> None:
        """Tell the owner. What it raises is logged, and the session ends with 500."""
        if self.handler is None:
            return
        try:
            self.handler(self, event)
        except Exception:
            log.exception("handler_failed call_id=%s event=%s", self.dialog.call_id, type(event).__name__)
            if not self.over:
                self.end(500)

    def finish(self, event: SessionEvent | None) -> None:
        """The state is ENDED: stop everything, be forgotten, tell the last event."""
        self._stop_parts()
        self.unacked.stop()
        self.agent.forget(self)
        if event is not None:
            self.emit(event)

    def bye_because(self, event: Ended, why: str) -> None:
        """End an established session from our side."""
        log.info("bye call_id=%s by=%s code=%d why=%r", self.dialog.call_id, event.by, event.code, why)
        self.confirm()
        self.advance(Edge.BYE_SENT)
        self._stop_parts()
        self.emit(event)
        self._bye_when_clear()

    def lost(self, code: int) -> None:
        """The peer does not know the session any more (481) or does not answer (408); RFC 5057 5.1."""
        if self.state not in TALKING:
            return
        if code == 481:
            self.advance(Edge.FAIL)
            self.finish(Ended("error", None, 481))
        else:
            self.bye_because(Ended("timeout", None, code), "no answer to a request")

    def select(self, dialog: Dialog, *, stable: bool) -> None:
        """The dialog that commands and requests use from now on; `stable`: its offer/answer is complete."""
        self.dialog = dialog
        if stable and self.offers.state is OfferState.LOCAL and self.state is not SessionState.CONFIRMED:
            self.offers.advance(OfferEdge.REMOTE_ANSWER)
            self.changes.pump()

    def restart_timer(self) -> None:
        """A refresh happened: count the session timer from now."""
        self.dialog.refreshed_at = self.clock.wall().timestamp()
        if not self.over and self.dialog.confirmed:
            self.refresh_timer.start(self.dialog.timer)

    def response(
        self,
        request: Request,
        code: int,
        phrase: str | None = None,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
        contact: bool = False,
    ) -> Response:
        """A response in this dialog with our tag, and our Contact where asked for."""
        own = [("Contact", self.dialog.contact)] if contact else []
        return make_response(
            request,
            code,
            phrase,
            to_tag=self.dialog.local_tag,
            headers=[*own, *headers],
            body=body,
            content_type=content_type,
        )

    def refuse(
        self,
        transaction: ServerTransactionPort,
        code: int,
        phrase: str | None = None,
        headers: Headers = (),
    ) -> None:
        """A final non-2xx answer with the header its code demands (405 Allow, 415 Accept)."""
        own = self.profile.identity(response=True)
        if code == 405:
            own.append(("Allow", ", ".join(self.profile.allow)))
        if code == 415 and not any(name.lower() == "accept" for name, _ in headers):
            own.append(("Accept", SDP_TYPE))
        respond(transaction, self.response(transaction.request, code, phrase, headers=[*own, *headers]))

    def add_refer(self, transaction: ServerTransactionPort, dialog: Dialog) -> Referred:
        """The Referred of a REFER; MessageError(400) when its Refer-To is unusable."""

        def reply(code: int, phrase: str | None, headers: Headers) -> None:
            own = [*self.profile.capabilities(response=True), *extra_headers(headers)]
            respond(
                transaction,
                self.response(transaction.request, code, phrase, headers=own, contact=code < 300),
            )

        first = not dialog.referred
        referred = Referred(
            transaction.request, self.link, dialog, self.clock, reply, self._refer_moved, with_id=not first
        )
        dialog.referred = True
        self.refers.append(referred)
        return referred

    # -- for a restart

    def snapshot(self, accepting: bytes | None = None) -> dict[str, Any]:
        """What UserAgent.restore needs, JSON-ready, without credentials; only for an established session.

        accepting: our description in the 2xx that is sent next; the session is recorded as it is afterwards
        """
        dialog = self.dialog
        if accepting is not None and self.state is SessionState.INCOMING and self.server is not None:
            dialog = dataclasses.replace(
                dialog,
                confirmed=True,
                timer=self.server.granted,
                local_sdp=accepting,
                remote_sdp=self.remote_offer or b"",
                refreshed_at=self.clock.wall().timestamp(),
            )
        elif self.state not in TALKING:
            raise IllegalTransition("session", self.state, "snapshot")
        flow = self.link.flow
        return {
            "version": 1,
            "id": self.id,
            "dialog": dialog.to_record(),
            "profile": self.profile.to_record(),
            "kind": self.link.kind.value,
            "remote": list(flow.remote) if flow is not None and not flow.reliable else None,
            "unacknowledged": self.client is not None and self.client.owes_ack,
            "request_uri": self.request.uri_text,
            "from": self.request.headers["From"],
            "to": self.request.headers["To"],
        }

    def resume(self, elapsed: float) -> None:
        """After a restore: the session timer goes on, `elapsed` seconds after the last refresh."""
        self.refresh_timer.start(self.dialog.timer, elapsed)

    def acknowledge_again(self) -> None:
        """After a restore: the ACK that may not have left (`confirm`)."""
        if self.unsure_of_ack:
            self.unsure_of_ack = False
            headers = self.profile.identity(response=False)
            self.link.ack(self.dialog, self.dialog.request("ACK", self.dialog.invite_cseq, headers=headers))

    def abandon(self) -> None:
        """The process ends, the call does not: drop timers without a word to anybody."""
        self.refresh_timer.stop()
        self.unacked.stop()
        self.handler = None
        self._stop_parts(quiet=True)
        for referred in list(self.refers):
            referred.close()

    # -- inside

    def _server(self, command: str) -> InviteServer:
        if self.server is None or self.state is not SessionState.INCOMING:
            raise IllegalTransition("session", self.state, command)
        return self.server

    def _stop_parts(self, *, quiet: bool = False) -> None:
        self.refresh_timer.stop()
        self.changes.stop()
        if not quiet:
            self.changes_in.stop()
        if self.client is not None:
            self.client.stop()
        if self.server is not None:
            self.server.stop()

    def _bye_when_clear(self) -> None:
        """Send the pending BYE once the ACK of our 2xx is there (15) and no NOTIFY is under way (T18)."""
        if self.state is not SessionState.ENDING or self._bye is not None:
            return
        if self.unacked or any(referred.busy for referred in self.refers):
            return
        self._bye = Exchange(
            self.link,
            self.dialog,
            "BYE",
            headers=self.profile.identity(response=False),
            extra=self._bye_headers,
            on_response=lambda _, response: self._gone() if response.code >= 200 else None,
            on_failure=lambda _: self._gone(),
        )
        self._bye.send()

    def _gone(self) -> None:
        if self.state is not SessionState.ENDING:
            return
        self.advance(Edge.DONE)
        for referred in list(self.refers):
            referred.close()
        self.finish(None)

    def _refer_moved(self, referred: Referred) -> None:
        if referred.finished.is_set() and referred in self.refers:
            self.refers.remove(referred)
            self.agent.forget_if_done(self)
        self._bye_when_clear()

    def _no_ack(self) -> None:
        """64*T1 without ACK (13.3.1.4): the session is useless, say so with BYE."""
        self.unacked.stop()
        if self.state in TALKING:
            self.bye_because(Ended("timeout", None, 408), "no ACK")
        else:
            self._bye_when_clear()

    def _not_refreshed(self) -> None:
        if self.state in TALKING:
            self.bye_because(Ended("timeout", None, 408), "session timer expired")
