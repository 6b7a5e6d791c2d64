"""Changes the peer asks for inside a session: re-INVITE, UPDATE, an offer in PRACK (RFC 3261 14.2, 3311,
3262).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.clock import TimerHandle
from gateway.errors import MessageError
from gateway.sip.dialog import Dialog
from gateway.sip.message import Request
from gateway.sip.session_acks import respond
from gateway.sip.session_events import Ended, OfferAnswered, OfferReceived
from gateway.sip.session_ports import Headers, ServerTransactionPort
from gateway.sip.session_state import OfferEdge, OfferState
from gateway.sip.session_timer import IntervalTooSmall, SessionTimer, grant
from gateway.sip.session_uac import description_or_none
from gateway.sip.session_values import SDP_TYPE, directions_agree, extra_headers, session_description

if TYPE_CHECKING:
    from gateway.sip.session import Session

log = logging.getLogger("tandem.sip")

OFFER_GUARD = 25.0
"""Seconds our side may take to answer an offer; below Timer F and B of the peer (32 s)."""


class PeerOffer:
    """One incoming re-INVITE, UPDATE or PRACK that waits for our answer; implements OfferPort."""

    def __init__(
        self,
        changes: PeerChanges,
        transaction: ServerTransactionPort,
        dialog: Dialog,
        sdp: bytes | None,
        granted: SessionTimer | None,
        timer_headers: Headers,
    ) -> None:
        self.transaction = transaction
        self.dialog = dialog
        self.sdp = sdp
        self.granted = granted
        self.timer_headers = timer_headers
        self.event = OfferReceived(sdp, transaction.request.method, transaction.request, self)
        self.guard: TimerHandle | None = None
        self._changes = changes

    def answer_offer(self, sdp: bytes, headers: Headers) -> None:
        self._changes.answer(self, sdp, headers)

    def reject_offer(self, code: int, phrase: str | None, headers: Headers) -> None:
        self._changes.reject(self, code, phrase, headers)


class PeerChanges:
    """Admits the peer's changes by the offer/answer rules, answers refreshes itself, hands up the rest."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open: PeerOffer | None = None

    @property
    def pending(self) -> bool:
        """An offer of the peer's waits for our answer."""
        return self._open is not None

    def stop(self) -> None:
        """The session is over: an open re-INVITE is answered 487, other requests too."""
        offer = self._close()
        if offer is not None:
            offer.event.withdrawn = True
            self._session.refuse(offer.transaction, 487)

    def invite(self, transaction: ServerTransactionPort) -> None:
        """A re-INVITE (RFC 3261 14.2)."""
        session = self._session
        if self._open is not None:
            if self._open.transaction.request.method == "INVITE":
                wait = str(session.agent.random.randint(0, 10))
                session.refuse(transaction, 500, headers=[("Retry-After", wait)])
            else:
                session.refuse(transaction, 491)
            return
        if session.changes.inviting or not session.offers.stable or not session.dialog.confirmed:
            session.refuse(transaction, 491)
            return
        self._consider(transaction, session.dialog)

    def update(self, transaction: ServerTransactionPort, dialog: Dialog) -> None:
        """UPDATE, with or without an offer, also in an early dialog (RFC 3311 5.2)."""
        session = self._session
        if self._open is not None:
            wait = str(session.agent.random.randint(0, 10))
            session.refuse(transaction, 500, headers=[("Retry-After", wait)])
            return
        if transaction.request.body and not session.offers.stable:
            if session.offers.state is OfferState.REMOTE:
                wait = str(session.agent.random.randint(0, 10))
                session.refuse(transaction, 500, headers=[("Retry-After", wait)])
            else:
                session.refuse(transaction, 491)
            return
        self._consider(transaction, dialog)

    def offered_in_prack(self, transaction: ServerTransactionPort, sdp: bytes) -> None:
        """A PRACK with a new offer: its 200 carries our answer (RFC 3262 5)."""
        self._hand_up(PeerOffer(self, transaction, self._session.dialog, sdp, None, ()))

    def cancelled(self, transaction: ServerTransactionPort) -> bool:
        """CANCEL of a re-INVITE: 487, the session stays as it was."""
        offer = self._open
        if offer is None or offer.transaction is not transaction:
            return False
        self._close()
        offer.event.withdrawn = True
        self._session.refuse(transaction, 487)
        self._session.changes.pump()
        return True

    def answer(self, offer: PeerOffer, sdp: bytes, headers: Headers) -> None:
        if self._open is not offer:
            log.info("answer_too_late call_id=%s", offer.dialog.call_id)
            return
        self._close(answered=True)
        self._accept(offer, sdp, headers)
        self._release()

    def reject(self, offer: PeerOffer, code: int, phrase: str | None, headers: Headers) -> None:
        if self._open is not offer:
            log.info("rejection_too_late call_id=%s", offer.dialog.call_id)
            return
        self._close()
        self._session.refuse(offer.transaction, code, phrase, extra_headers(headers))
        self._session.changes.pump()
        self._release()

    def _release(self) -> None:
        """An accept() may have waited for the offer in a PRACK to be answered."""
        if self._session.server is not None:
            self._session.server.release()

    def _consider(self, transaction: ServerTransactionPort, dialog: Dialog) -> None:
        session = self._session
        request = transaction.request
        profile = session.profile
        try:
            sdp = session_description(request)
            granted, headers = grant(
                request.headers,
                "timer" in request.tokens("Supported"),
                profile.session_expires,
                profile.min_se,
                dialog.timer,
            )
        except IntervalTooSmall as error:
            session.refuse(transaction, 422, headers=[("Min-SE", str(error.min_se))])
            return
        except MessageError as error:
            session.refuse(
                transaction, error.code, headers=[("Accept", SDP_TYPE)] if error.code == 415 else ()
            )
            return
        offer = PeerOffer(self, transaction, dialog, sdp, granted, headers)
        if sdp is None and request.method == "UPDATE":
            self._accept(offer, None, ())
        elif sdp is not None and self._is_refresh(dialog, sdp):
            session.offers.advance(OfferEdge.REMOTE_OFFER)
            session.offers.advance(OfferEdge.LOCAL_ANSWER)
            self._accept(offer, dialog.local_sdp, ())
        else:
            self._hand_up(offer)

    def _is_refresh(self, dialog: Dialog, sdp: bytes) -> bool:
        """Byte-identical to what the peer last sent: answered from our own state (T15, T16)."""
        return sdp == dialog.remote_sdp and bool(dialog.local_sdp) and directions_agree(sdp, dialog.local_sdp)

    def _hand_up(self, offer: PeerOffer) -> None:
        session = self._session
        if offer.sdp is not None:
            session.offers.advance(OfferEdge.REMOTE_OFFER)
        self._open = offer
        offer.guard = session.clock.call_later(OFFER_GUARD, lambda: self._unanswered(offer))
        session.emit(offer.event)

    def _unanswered(self, offer: PeerOffer) -> None:
        log.error("offer_unanswered call_id=%s method=%s", offer.dialog.call_id, offer.event.method)
        offer.event.withdrawn = True
        self.reject(offer, 500, None, ())

    def _close(self, *, answered: bool = False) -> PeerOffer | None:
        offer, self._open = self._open, None
        if offer is None:
            return None
        if offer.guard is not None:
            offer.guard.cancel()
        if offer.sdp is not None:
            self._session.offers.advance(OfferEdge.LOCAL_ANSWER if answered else OfferEdge.WITHDRAWN)
        return offer

    def _accept(self, offer: PeerOffer, sdp: bytes | None, headers: Headers) -> None:
        session = self._session
        dialog = offer.dialog
        request = offer.transaction.request
        if request.method != "PRACK":
            dialog.refresh_target(request)
            dialog.learn(request)
        if sdp is not None and offer.sdp is not None:
            dialog.local_sdp, dialog.remote_sdp = sdp, offer.sdp
        response = session.response(
            request,
            200,
            headers=[
                *offer.timer_headers,
                *session.profile.capabilities(response=True),
                *extra_headers(headers),
            ],
            body=sdp or b"",
            content_type=SDP_TYPE if sdp else None,
            contact=request.method != "PRACK",
        )
        if request.method != "INVITE":
            respond(offer.transaction, response)
        elif offer.sdp is None:
            session.offers.advance(OfferEdge.LOCAL_OFFER)
            session.unacked.send(offer.transaction, response, lambda ack: self._answered(sdp or b"", ack))
        else:
            session.unacked.send(offer.transaction, response, lambda _: None)
        if offer.granted is not None:
            dialog.timer = offer.granted
            session.restart_timer()
        session.changes.pump()

    def _answered(self, offered: bytes, ack: Request) -> None:
        """The ACK to the 2xx of an offerless re-INVITE must bring the answer (RFC 3261 13.2.2.4)."""
        session = self._session
        answer = description_or_none(ack)
        if session.over or session.offers.state is not OfferState.LOCAL:
            return
        if answer is None:
            session.offers.advance(OfferEdge.WITHDRAWN)
            session.bye_because(Ended("error", None, 488), "no answer in the ACK")
            return
        session.offers.advance(OfferEdge.REMOTE_ANSWER)
        session.dialog.local_sdp, session.dialog.remote_sdp = offered, answer
        session.emit(OfferAnswered(answer))
