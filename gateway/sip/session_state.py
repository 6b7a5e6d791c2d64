"""The two state machines of a session: its life, and the offer/answer exchange inside it."""

from __future__ import annotations

import logging
from enum import StrEnum

from gateway.errors import IllegalTransition

log = logging.getLogger("tandem.sip")


class SessionState(StrEnum):
    """Where an INVITE session is. CALLING: nothing was heard yet, not even 100 Trying; ENDING: over for
    everybody above, our BYE is not answered yet.
    """

    CALLING = "calling"
    PROCEEDING = "proceeding"
    CANCELLING = "cancelling"
    INCOMING = "incoming"
    ACCEPTED = "accepted"
    CONFIRMED = "confirmed"
    ENDING = "ending"
    ENDED = "ended"


class Edge(StrEnum):
    """What moves a session; `accepted` is a 2xx, sent or received."""

    PROVISIONAL = "provisional"
    ACCEPT = "accept"
    ACK = "ack"
    CANCEL = "cancel"
    FAIL = "fail"
    BYE_SENT = "bye_sent"
    BYE_RECEIVED = "bye_received"
    DONE = "done"


_S, _E = SessionState, Edge

SESSION_TABLE: dict[tuple[SessionState, Edge], SessionState] = {
    (_S.CALLING, _E.PROVISIONAL): _S.PROCEEDING,
    (_S.CALLING, _E.ACCEPT): _S.CONFIRMED,
    (_S.CALLING, _E.CANCEL): _S.CANCELLING,
    (_S.CALLING, _E.FAIL): _S.ENDED,
    (_S.PROCEEDING, _E.PROVISIONAL): _S.PROCEEDING,
    (_S.PROCEEDING, _E.ACCEPT): _S.CONFIRMED,
    (_S.PROCEEDING, _E.CANCEL): _S.CANCELLING,
    (_S.PROCEEDING, _E.FAIL): _S.ENDED,
    (_S.CANCELLING, _E.PROVISIONAL): _S.CANCELLING,
    (_S.CANCELLING, _E.ACCEPT): _S.ENDED,
    (_S.CANCELLING, _E.FAIL): _S.ENDED,
    (_S.INCOMING, _E.PROVISIONAL): _S.INCOMING,
    (_S.INCOMING, _E.ACCEPT): _S.ACCEPTED,
    (_S.INCOMING, _E.CANCEL): _S.ENDED,
    (_S.INCOMING, _E.FAIL): _S.ENDED,
    (_S.INCOMING, _E.BYE_RECEIVED): _S.ENDED,
    (_S.ACCEPTED, _E.ACK): _S.CONFIRMED,
    (_S.ACCEPTED, _E.BYE_SENT): _S.ENDING,
    (_S.ACCEPTED, _E.BYE_RECEIVED): _S.ENDED,
    (_S.ACCEPTED, _E.FAIL): _S.ENDED,
    (_S.CONFIRMED, _E.BYE_SENT): _S.ENDING,
    (_S.CONFIRMED, _E.BYE_RECEIVED): _S.ENDED,
    (_S.CONFIRMED, _E.FAIL): _S.ENDED,
    (_S.ENDING, _E.BYE_RECEIVED): _S.ENDING,
    (_S.ENDING, _E.DONE): _S.ENDED,
}

UNANSWERED = frozenset({_S.CALLING, _S.PROCEEDING, _S.CANCELLING, _S.INCOMING})
TALKING = frozenset({_S.ACCEPTED, _S.CONFIRMED})
OVER = frozenset({_S.ENDING, _S.ENDED})


def next_session_state(state: SessionState, edge: Edge, *, call: str) -> SessionState:
    """The state after `edge`; IllegalTransition when the table has no such edge."""
    try:
        after = SESSION_TABLE[state, edge]
    except KeyError:
        raise IllegalTransition("session", state, edge) from None
    log.debug("session=%s edge=%s from=%s to=%s", call, edge.value, state.value, after.value)
    return after


class OfferState(StrEnum):
    """RFC 3264: at most one offer is outstanding."""

    STABLE = "stable"
    LOCAL = "local"
    REMOTE = "remote"


class OfferEdge(StrEnum):
    LOCAL_OFFER = "local_offer"
    REMOTE_OFFER = "remote_offer"
    LOCAL_ANSWER = "local_answer"
    REMOTE_ANSWER = "remote_answer"
    WITHDRAWN = "withdrawn"


_O, _F = OfferState, OfferEdge

OFFER_TABLE: dict[tuple[OfferState, OfferEdge], OfferState] = {
    (_O.STABLE, _F.LOCAL_OFFER): _O.LOCAL,
    (_O.STABLE, _F.REMOTE_OFFER): _O.REMOTE,
    (_O.STABLE, _F.WITHDRAWN): _O.STABLE,
    (_O.LOCAL, _F.REMOTE_ANSWER): _O.STABLE,
    (_O.LOCAL, _F.WITHDRAWN): _O.STABLE,
    (_O.REMOTE, _F.LOCAL_ANSWER): _O.STABLE,
    (_O.REMOTE, _F.WITHDRAWN): _O.STABLE,
}


class OfferAnswer:
    """The offer/answer machine of one session.

    A refused or failed offer is withdrawn: the descriptions in force stay those of the last complete
    exchange.
    """

    def __init__(self) -> None:
        self.state = OfferState.STABLE

    def advance(self, edge: OfferEdge) -> None:
        try:
            after = OFFER_TABLE[self.state, edge]
        except KeyError:
            raise IllegalTransition("offer/answer", self.state, edge) from None
        log.debug("offer_answer edge=%s from=%s to=%s", edge.value, self.state.value, after.value)
        self.state = after

    @property
    def stable(self) -> bool:
        return self.state is OfferState.STABLE
