"""INVITEs that a dead gateway left unanswered, told off by the next one.

Their transactions died with it. What we called gets a CANCEL with the branch of the INVITE (RFC 3261 9.1);
who called us gets the final response, and a BYE, which ends the dialog in case that our 2xx had gone out
already (any other peer answers it with 481).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final

from gateway.errors import SipError
from gateway.sip.dialog import Dialog, from_request
from gateway.sip.message import Request, Response, make_response, new_branch, parse_message, to_bytes
from gateway.sip.session import Session
from gateway.sip.session_state import SessionState
from gateway.sip.transaction import TransactionLayer
from gateway.sip.transport import TransportLayer
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_listen import source_address
from gateway.sip.transport_types import Target, TransportKind
from gateway.sip.transport_via import proven_name, reconnect_target

log = logging.getLogger("tandem.sip")

REPEATS: Final = (0.0, 0.5, 1.0)
"""Seconds before each sending by UDP."""


def record(session: Session) -> dict[str, Any] | None:
    """What `tell` needs to know of an INVITE without a final answer; None when there is nothing to tell."""
    if session.state is SessionState.INCOMING and session.flow is not None:
        found = _record("in", session.request, session.flow, session.dialog.local_tag, session.dialog.contact)
        return {**found, "via_host": session.profile.via_host}
    client, place = session.client, session.link.place
    if client is not None and session.state in (SessionState.CALLING, SessionState.PROCEEDING):
        sent, flow = client.sent
        if sent is not None and flow is not None:
            return _record("out", sent, flow, session.dialog.local_tag, session.dialog.contact)
        if place is not None:
            draft = client.draft
            # it will have another sent-by; without any Via it could not be read
            draft.headers.setlist("Via", [f"SIP/2.0/UDP invalid;branch={client.branch}"])
            found = _record("out", draft, place, session.dialog.local_tag, session.dialog.contact)
            return {**found, "branch": client.branch, "via_host": session.profile.via_host}
    return None


def record_answer(session: Session, sdp: bytes) -> dict[str, Any] | None:
    """As `record`, of an INVITE whose 2xx with `sdp` may be on its way or not: it is to be sent again."""
    flow = session.flow
    if session.server is None or flow is None:
        return None
    found = _record("in", session.server.request, flow, session.dialog.local_tag, session.dialog.contact)
    return {**found, "answer": to_bytes(session.server.answer(sdp)).decode("latin-1")}


def _record(way: str, request: Request, place: Flow | Target, tag: str, contact: str) -> dict[str, Any]:
    if isinstance(place, Target):
        remote, name = (place.address, place.port), place.name
    else:
        remote, name = place.remote, proven_name(place)
    return {
        "way": way,
        "request": to_bytes(request).decode("latin-1"),
        "kind": place.kind.value,
        "remote": list(remote),
        "names": [name] if name else [],
        "tag": tag,
        "contact": contact,
    }


def tell(
    transports: TransportLayer,
    transactions: TransactionLayer,
    found: Mapping[str, Any],
    code: int,
    reason: str,
) -> Coroutine[Any, Any, None] | None:
    """End the INVITE of a `record` at its peer, or accept that of a `record_answer`.

    What there is to await of it is returned.

    Call it when the listeners are open and before the loop has read from them: a caller that repeats its
    INVITE by UDP is given the final response and no second call. What cannot be told is logged: the peer's
    timers see to it.

    code: of the final response; reason: a Reason header value for CANCEL, response and BYE
    """
    try:
        request = parse_message(str(found["request"]).encode("latin-1"))
        kind = TransportKind(found["kind"])
        address, port = str(found["remote"][0]), int(found["remote"][1])
        if not isinstance(request, Request):
            raise ValueError("no request")
        if found["way"] == "out":
            target = Target(kind, address, port, next(iter(found["names"]), ""))
            if "branch" in found:
                sent_by = sent_by_of(transports, kind, (address, port), found["via_host"])
                via = f"SIP/2.0/{kind.value.upper()} {sent_by};branch={found['branch']};rport"
                request.headers.setlist("Via", [via])
            transactions.know(_sent_by(request))
            return _send(transports, target, _cancel(request, reason))
        came_by = transports.flow_now(Target(kind, address, port)) if not kind.reliable else None
        flow = came_by or _Gone(kind, (address, port), names=found["names"])
        invite = transactions.revive(request, flow)
        if "answer" in found:
            answer = parse_message(str(found["answer"]).encode("latin-1"))
            if isinstance(answer, Response):
                invite.respond(answer)
            return None
        invite.respond(make_response(request, code, to_tag=found["tag"], headers=[("Reason", reason)]))
        dialog = from_request(request, found["tag"], found["contact"])
        hop = reconnect_target(request, flow) if kind.reliable else Target(kind, address, port)
        sent_by = sent_by_of(transports, kind, (address, port), found.get("via_host"))
        return _send(transports, hop, _bye(sent_by, hop, dialog, reason))
    except (SipError, ValueError, KeyError, TypeError, IndexError) as error:
        log.warning("orphan_not_told cause=%s", error)
        return None


def sent_by_of(
    transports: TransportLayer, kind: TransportKind, remote: tuple[str, int], via_host: str | None
) -> str:
    """What the Via of a request to `remote` says, whether there is a connection to it or not."""
    flow = transports.flow_now(Target(kind, *remote)) if not kind.reliable else None
    return transports.sent_by(flow or _Gone(kind, remote, (source_address(remote), 0)), via_host)


def _sent_by(request: Request) -> str:
    via = request.top_via
    return via.host if via.port is None else f"{via.host}:{via.port}"


async def _send(transports: TransportLayer, target: Target, message: bytes) -> None:
    try:
        for pause in REPEATS[:1] if target.kind.reliable else REPEATS:
            await asyncio.sleep(pause)
            (await transports.flow(target)).send(message)
    except SipError as error:
        log.warning("orphan_not_told peer=%s cause=%s", target.address, error)


def _cancel(invite: Request, reason: str) -> bytes:
    cancel = Request("CANCEL", invite.uri_text, b"")
    headers = invite.headers
    cancel.headers.setlist("Via", [headers.getlist("Via")[0]])
    for name in ("Route", "Max-Forwards", "From", "To", "Call-ID"):
        if values := headers.getlist(name):
            cancel.headers.setlist(name, list(values))
    cancel.headers.set("CSeq", f"{headers['CSeq'].split()[0]} CANCEL")
    cancel.headers.set("Reason", reason)
    return to_bytes(cancel)


def _bye(sent_by: str, target: Target, dialog: Dialog, reason: str) -> bytes:
    # above what we may have used: a dialog's first CSeq is below 2**15
    bye = dialog.request("BYE", 1 << 17, headers=[("Reason", reason)])
    via = f"SIP/2.0/{target.kind.value.upper()} {sent_by};branch={new_branch()};rport"
    bye.headers.setlist("Via", [via])
    return to_bytes(bye)


class _Gone(Flow):
    """Stands for the connection that an INVITE came or went by."""

    def __init__(
        self,
        kind: TransportKind,
        remote: tuple[str, int],
        local: tuple[str, int] = ("", 0),
        names: Iterable[str] = (),
    ) -> None:
        self.kind, self.remote, self.local = kind, remote, local
        self.peer_names = frozenset(names)

    @property
    def closed(self) -> bool:
        return True
