"""Requests the peer sends inside a dialog: which part of the session each goes to, and the safe defaults."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.errors import MessageError
from gateway.sip.dialog import Dialog
from gateway.sip.message import Request
from gateway.sip.session_acks import respond
from gateway.sip.session_events import RequestReceived
from gateway.sip.session_ports import Headers, ServerTransactionPort
from gateway.sip.session_state import TALKING, SessionState
from gateway.sip.session_values import SDP_TYPE, extra_headers, tokens

if TYPE_CHECKING:
    from gateway.sip.session import Session

log = logging.getLogger("tandem.sip")

REQUEST_GUARD = 25.0
"""Seconds a deferred request may stay unanswered; below the peer's Timer F (32 s)."""
KNOWN_METHODS = frozenset(
    {
        "INVITE",
        "ACK",
        "CANCEL",
        "BYE",
        "OPTIONS",
        "REGISTER",
        "PRACK",
        "UPDATE",
        "INFO",
        "REFER",
        "NOTIFY",
        "SUBSCRIBE",
        "MESSAGE",
        "PUBLISH",
    }
)


def unsupported_options(request: Request, understood: tuple[str, ...]) -> list[str]:
    """Option tags in Require that we do not understand (RFC 3261 8.2.2.3)."""
    known = {tag.lower() for tag in understood}
    return [tag for tag in tokens(request.headers, "Require") if tag.lower() not in known]


class InSession:
    """Dispatches the requests of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def dispatch(self, transaction: ServerTransactionPort, dialog: Dialog) -> None:
        """A request that passed the CSeq check."""
        session = self._session
        request = transaction.request
        method = request.method
        missing = unsupported_options(request, session.profile.extensions)
        if missing:
            session.refuse(transaction, 420, headers=[("Unsupported", ", ".join(missing))])
        elif method == "BYE":
            session.hung_up(transaction, dialog)
        elif method in ("PRACK", "OPTIONS"):
            self._while_early(transaction, method)
        elif session.over:
            session.refuse(transaction, 481)
        elif method not in session.profile.allow and method in KNOWN_METHODS:
            session.refuse(transaction, 405)
        elif method == "INVITE":
            self._invite(transaction)
        elif method == "UPDATE":
            session.changes_in.update(transaction, dialog)
        elif method == "REFER":
            self._refer(transaction, dialog)
        else:
            self._hand_up(transaction)

    def _while_early(self, transaction: ServerTransactionPort, method: str) -> None:
        session = self._session
        if method == "OPTIONS":
            self._options(transaction)
        elif session.server is not None and not session.over:
            session.server.prack(transaction)
        else:
            session.refuse(transaction, 481)

    def _options(self, transaction: ServerTransactionPort) -> None:
        session = self._session
        headers = [("Accept", SDP_TYPE), *session.profile.capabilities(response=True)]
        respond(transaction, session.response(transaction.request, 200, headers=headers, contact=True))

    def _invite(self, transaction: ServerTransactionPort) -> None:
        session = self._session
        if transaction.request.headers.get("Replaces") is not None:
            session.refuse(transaction, 400, "Replaces inside a dialog")
        elif session.state is SessionState.INCOMING:
            wait = str(session.agent.random.randint(0, 10))
            session.refuse(transaction, 500, headers=[("Retry-After", wait)])
        elif session.state in TALKING:
            session.changes_in.invite(transaction)
        else:
            session.refuse(transaction, 491)

    def _refer(self, transaction: ServerTransactionPort, dialog: Dialog) -> None:
        session = self._session
        try:
            referred = session.add_refer(transaction, dialog)
        except MessageError as error:
            session.refuse(transaction, error.code, error.text)
            return
        session.emit(referred)

    def _hand_up(self, transaction: ServerTransactionPort) -> None:
        """INFO, MESSAGE, NOTIFY and what we do not know: the owner's, with a safe default."""
        session = self._session

        def reply(
            code: int, phrase: str | None, headers: Headers, body: bytes, content_type: str | None
        ) -> None:
            if code >= 300 and not body:
                session.refuse(transaction, code, phrase, extra_headers(headers))
                return
            response = session.response(
                transaction.request,
                code,
                phrase,
                headers=[*session.profile.identity(response=True), *extra_headers(headers)],
                body=body,
                content_type=content_type,
            )
            respond(transaction, response)

        event = RequestReceived(transaction.request, reply)
        guard = session.clock.call_later(REQUEST_GUARD, lambda: event.respond(500))
        event.when_answered = guard.cancel
        session.emit(event)
        if event.handled or event.deferred:
            return
        code, headers = default_answer(transaction.request)
        event.respond(code, headers=headers)


def default_answer(request: Request) -> tuple[int, list[tuple[str, str]]]:
    """The answer nobody gave: 481 to NOTIFY (kills the subscription, not the call), 469 and 415 to INFO,
    else 501.
    """
    if request.method == "NOTIFY":
        return 481, []
    if request.method == "INFO":
        if request.headers.get("Info-Package") is not None:
            return 469, [("Recv-Info", "")]
        return (415, [("Accept", SDP_TYPE)]) if request.body else (200, [])
    if request.method == "MESSAGE":
        return 415, [("Accept", SDP_TYPE)]
    return 501, []
