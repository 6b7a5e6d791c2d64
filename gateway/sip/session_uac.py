"""The INVITE that starts a session, as client (RFC 3261 13.2): forks, early dialogs, 2xx and their ACKs,
CANCEL.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.clock import TimerHandle
from gateway.errors import MessageError, SipError, TransportError
from gateway.sip.dialog import Dialog, from_response
from gateway.sip.message import Request, Response, new_branch
from gateway.sip.session_events import Answered, Failed, FailureCause, Progress
from gateway.sip.session_link import Exchange, Link
from gateway.sip.session_ports import Headers
from gateway.sip.session_state import Edge, OfferEdge, OfferState, SessionState
from gateway.sip.session_timer import granted_by_peer, parse_min_se, request_headers
from gateway.sip.session_values import SDP_TYPE, positive_int, session_description
from gateway.sip.transport_flow import Flow

if TYPE_CHECKING:
    from gateway.sip.session import Session

log = logging.getLogger("tandem.sip")

MAX_FORKS = 32
"""Early dialogs kept for one INVITE; more branches than that are an attack or a loop."""
MAX_TIMER_RETRIES = 2


def description_or_none(message: Response | Request) -> bytes | None:
    """The SDP of a message whose refusal has no answer (a response, an ACK): an unusable body counts as
    none.
    """
    try:
        return session_description(message)
    except MessageError as error:
        log.warning("body_ignored call_id=%s error=%s", message.headers.get("Call-ID"), error)
        return None


class ReliableReceiver:
    """RFC 3262 4: acknowledges reliable provisional responses of one early dialog in order, each once."""

    def __init__(self, link: Link, dialog: Dialog, invite_cseq: int, identity: Headers) -> None:
        self._link = link
        self._dialog = dialog
        self.invite_cseq = invite_cseq
        self._identity = identity
        self._last: int | None = None

    def take(self, response: Response) -> tuple[bool, bool]:
        """(whether to process it, whether it was reliable and has been acknowledged with PRACK)."""
        rseq = positive_int(response.headers, "RSeq")
        if "100rel" not in response.tokens("Require") or rseq is None:
            return True, False
        if not self._may_acknowledge():
            return True, False
        if self._last is not None and rseq != self._last + 1:
            return False, False
        self._last = rseq
        Exchange(
            self._link,
            self._dialog,
            "PRACK",
            headers=[("RAck", f"{rseq} {self.invite_cseq} INVITE"), *self._identity],
            on_response=lambda _, answer: self._answered(answer),
            on_failure=self._failed,
        ).send()
        return True, True

    def _may_acknowledge(self) -> bool:
        return not self._link.profile.strict_allow or self._dialog.allows("PRACK", strict=True)

    def _answered(self, answer: Response) -> None:
        if answer.code >= 300:
            log.warning("prack_refused call_id=%s code=%d", self._dialog.call_id, answer.code)

    def _failed(self, error: SipError) -> None:
        log.warning("prack_failed call_id=%s error=%s", self._dialog.call_id, error)


class Fork:
    """One branch that answered: its early dialog, and the answer it gave so far."""

    def __init__(self, dialog: Dialog, receiver: ReliableReceiver) -> None:
        self.dialog = dialog
        self.receiver = receiver
        self.answer: bytes | None = None
        self.answered_reliably = False
        self.ack: Request | None = None


class InviteClient:
    """Our INVITE and everything that comes back on it, to the last retransmitted 2xx."""

    def __init__(
        self, session: Session, proto: Dialog, offer: bytes, headers: Headers, max_forwards: int
    ) -> None:
        self._session = session
        self._proto = proto
        self._offer = offer
        self._guard: TimerHandle | None = None
        self._timer_retries = 0
        self._starting = False
        self._cancel_headers: Headers = ()
        self._owed: Fork | None = None
        self.branch = new_branch()
        self.forks: dict[str, Fork] = {}
        profile = session.profile
        self._exchange = Exchange(
            session.link,
            proto,
            "INVITE",
            contact=proto.contact,
            headers=self._own_headers(),
            extra=headers,
            body=offer,
            content_type=SDP_TYPE,
            max_forwards=max_forwards,
            branch=self.branch,
            on_response=self._response,
            on_failure=self._failure,
        )
        self._identity = profile.identity(response=False)

    @property
    def request(self) -> Request:
        if self._exchange.request is None:
            raise RuntimeError("the INVITE has not been sent")
        return self._exchange.request

    @property
    def started(self) -> bool:
        return self._exchange.request is not None

    @property
    def owes_ack(self) -> bool:
        return self._owed is not None

    @property
    def draft(self) -> Request:
        """The INVITE that is about to be sent, or waits for its connection, without body and Via."""
        cseq = self._exchange.cseq if self.started else self._proto.local_cseq + 1
        return self._proto.request("INVITE", cseq)

    @property
    def sent(self) -> tuple[Request | None, Flow | None]:
        """The INVITE as it went out, with its Via, and the flow it took; None while it has not gone."""
        transaction = self._exchange.transaction
        return (transaction.request, transaction.flow) if transaction is not None else (None, None)

    def start(self) -> None:
        """Send it. A failure known at once is told a moment later, when the caller holds the session."""
        self._session.offers.advance(OfferEdge.LOCAL_OFFER)
        self._starting = True
        self._exchange.send()
        self._starting = False

    def dialog_of(self, remote_tag: str) -> Dialog | None:
        fork = self.forks.get(remote_tag)
        return fork.dialog if fork is not None else None

    def cancel(self, headers: Headers) -> None:
        """CANCEL; when no final response follows within 64*T1 the INVITE counts as cancelled (RFC 3261
        9.1).
        """
        self._cancel_headers = headers
        self._exchange.cancel(headers)
        self._guard = self._session.clock.call_later(64 * self._session.timers.t1, self._cancel_expired)

    def stop(self) -> None:
        if self._guard is not None:
            self._guard.cancel()

    def drop_fork(self, remote_tag: str) -> None:
        """The branch said BYE on its early dialog; the INVITE goes on."""
        self.forks.pop(remote_tag, None)

    def resend_ack(self, remote_tag: str) -> bool:
        """A 2xx came again after its transaction had ended: acknowledge it again (RFC 3261 13.2.2.4)."""
        fork = self.forks.get(remote_tag)
        if fork is None or fork.ack is None:
            return False
        self._session.link.ack(fork.dialog, fork.ack)
        return True

    def acknowledge(self) -> None:
        """Send the ACK that `ack_later` has held back."""
        fork, self._owed = self._owed, None
        if fork is not None and fork.ack is not None:
            self._session.link.ack(fork.dialog, fork.ack)

    def _own_headers(self) -> list[tuple[str, str]]:
        profile = self._session.profile
        timer = request_headers(profile.session_expires, profile.min_se, self._proto.timer)
        return [*timer, *profile.capabilities(response=False)]

    def _response(self, exchange: Exchange, response: Response) -> None:
        if response.code < 200:
            self._provisional(response)
        elif response.code < 300:
            self._accepted(response)
        elif response.code == 422 and self._retry_interval(response):
            return
        else:
            self._over(response.code, response.phrase, response, "response")

    def _failure(self, error: SipError) -> None:
        if self._starting:
            self._session.clock.call_later(0.0, lambda: self._failure(error))
            return
        cause: FailureCause = "transport" if isinstance(error, TransportError) else "timeout"
        self._over(error.code, error.text, None, cause)

    def _retry_interval(self, response: Response) -> bool:
        """422 (T25): ask again with the interval the peer wants at least."""
        session = self._session
        try:
            wanted = parse_min_se(response.headers)
        except MessageError:
            return False
        timer = self._proto.timer
        if wanted <= timer.min_se or self._timer_retries >= MAX_TIMER_RETRIES:
            return False
        if session.state not in (SessionState.CALLING, SessionState.PROCEEDING):
            return False
        self._timer_retries += 1
        timer.min_se = wanted
        self._exchange.headers = self._own_headers()
        self._exchange.send()
        return True

    def _provisional(self, response: Response) -> None:
        session = self._session
        if session.over or session.state is SessionState.CONFIRMED:
            return
        if response.code == 100:
            session.advance(Edge.PROVISIONAL)
            return
        tag = response.to_tag or ""
        sdp = description_or_none(response)
        if tag:
            fork = self._fork(tag, response)
            if fork is None:
                return
            fork.dialog.learn(response)
            process, reliable = fork.receiver.take(response)
            if not process:
                return
            if sdp is not None:
                fork.answer = sdp
                fork.dialog.local_sdp, fork.dialog.remote_sdp = self._offer, sdp
                fork.answered_reliably |= reliable
            if session.state is not SessionState.CANCELLING:
                session.select(fork.dialog, stable=fork.answered_reliably)
        session.advance(Edge.PROVISIONAL)
        if session.state is not SessionState.CANCELLING:
            session.emit(Progress(response.code, response.phrase, tag, sdp, response))

    def _fork(self, tag: str, response: Response) -> Fork | None:
        fork = self.forks.get(tag)
        if fork is None:
            if len(self.forks) >= MAX_FORKS:
                log.warning("fork_refused call_id=%s forks=%d", self._proto.call_id, len(self.forks))
                return None
            fork = self.forks[tag] = self._new_fork(response)
        elif response.headers.get("Contact") is not None:
            fork.dialog.refresh_target(response)
        return fork

    def _new_fork(self, response: Response) -> Fork:
        dialog = from_response(self.request, response, self._proto.contact)
        dialog.timer.min_se = self._proto.timer.min_se
        receiver = ReliableReceiver(self._session.link, dialog, dialog.invite_cseq, self._identity)
        return Fork(dialog, receiver)

    def _accepted(self, response: Response) -> None:
        """Each 2xx is acknowledged; only the first becomes the session, other forks' get ACK and BYE
        (13.2.2.4).
        """
        session = self._session
        tag = response.to_tag or ""
        if self.resend_ack(tag):
            return
        fork = self.forks.get(tag)
        if fork is None:
            fork = self.forks[tag] = self._new_fork(response)
        fork.dialog = self._confirmed(fork.dialog, response)
        fork.ack = self._make_ack(fork.dialog)
        winner = session.state in (SessionState.CALLING, SessionState.PROCEEDING)
        if winner and session.ack_later:
            self._owed = fork
        else:
            session.link.ack(fork.dialog, fork.ack)
        sdp = description_or_none(response)
        if sdp is None or fork.answered_reliably:
            sdp = fork.answer
        if winner:
            self._won(fork, response, sdp)
            return
        log.info("late_2xx call_id=%s tag=%s state=%s", fork.dialog.call_id, tag, session.state.value)
        session.agent.hang_up(session.link, fork.dialog, self._cancel_headers)
        if session.state is SessionState.CANCELLING:
            self.stop()
            session.advance(Edge.ACCEPT)
            session.finish(Failed(487, "Request Terminated", response, "response"))

    def _confirmed(self, early: Dialog, response: Response) -> Dialog:
        """The confirmed dialog: route set and target anew from the 2xx, counters and knowledge from the
        early one.
        """
        dialog = from_response(self.request, response, early.contact)
        dialog.local_cseq = max(early.local_cseq, dialog.local_cseq)
        dialog.remote_cseq = early.remote_cseq
        if dialog.peer_allow is None:
            dialog.peer_allow = early.peer_allow
        dialog.peer_supported = dialog.peer_supported or early.peer_supported
        dialog.local_sdp, dialog.remote_sdp = early.local_sdp, early.remote_sdp
        dialog.timer.min_se = early.timer.min_se
        dialog.confirmed = True
        return dialog

    def _won(self, fork: Fork, response: Response, sdp: bytes | None) -> None:
        session = self._session
        dialog = fork.dialog
        for tag in [other for other, entry in self.forks.items() if entry is not fork and entry.ack is None]:
            self.drop_fork(tag)
        session.select(dialog, stable=fork.answered_reliably)
        if not dialog.local_sdp:
            dialog.local_sdp = self._offer
        if sdp is not None:
            dialog.remote_sdp = sdp
        if session.offers.state is OfferState.LOCAL:
            session.offers.advance(OfferEdge.REMOTE_ANSWER)
        try:
            dialog.timer = granted_by_peer(response.headers, dialog.timer)
        except MessageError:
            log.warning("session_expires_ignored call_id=%s", dialog.call_id)
        session.advance(Edge.ACCEPT)
        session.restart_timer()
        session.emit(Answered(sdp, response))

    def _make_ack(self, dialog: Dialog) -> Request:
        return dialog.request(
            "ACK", dialog.invite_cseq, headers=[*self._exchange.acknowledgement(), *self._identity]
        )

    def _cancel_expired(self) -> None:
        self._over(487, "Request Terminated", None, "timeout")

    def _over(self, code: int, phrase: str, response: Response | None, cause: FailureCause) -> None:
        session = self._session
        self.stop()
        if session.state not in (SessionState.CALLING, SessionState.PROCEEDING, SessionState.CANCELLING):
            return
        # who asks for a password has not refused the call
        if session.state is SessionState.CANCELLING and (response is None or code in (401, 407)):
            code, phrase = 487, "Request Terminated"
        session.advance(Edge.FAIL)
        session.finish(Failed(code, phrase, response, cause))


def proto_dialog(
    *, call_id: str, from_: str, to: str, local_tag: str, request_uri: str, contact: str, cseq: int
) -> Dialog:
    """What an INVITE is built from before any dialog exists: no remote tag, the Request-URI as target."""
    return Dialog(
        call_id=call_id,
        local_tag=local_tag,
        remote_tag="",
        local_party=f"{from_};tag={local_tag}",
        remote_party=to,
        local_cseq=cseq,
        remote_cseq=-1,
        route_set=[],
        remote_target=request_uri,
        role="uac",
        contact=contact,
    )
