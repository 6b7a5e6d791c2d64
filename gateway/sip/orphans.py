"""INVITEs that a dead gateway left unanswered, told off by the next one.

Their transactions died with it, so this is stateless: what we called gets a CANCEL with the branch of the
INVITE (RFC 3261 9.1); who called us gets the final response, and a BYE, which ends the dialog in case that
our 2xx had gone out already (any other peer answers it with 481).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from gateway.errors import MessageError, SipError
from gateway.sip.dialog import from_request
from gateway.sip.message import Request, make_request, make_response, new_branch, parse_message, to_bytes
from gateway.sip.session import Session
from gateway.sip.session_state import SessionState
from gateway.sip.transport import TransportLayer
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target, TransportKind
from gateway.sip.transport_via import datagram_port, reconnect_target

log = logging.getLogger("tandem.sip")

REPEATS: Final = (0.0, 0.5, 1.0)
"""Seconds before each sending by UDP."""


def record(session: Session) -> dict[str, Any] | None:
    """What `tell` needs to know of an INVITE without a final answer; None when there is nothing to tell."""
    if session.state is SessionState.INCOMING and session.flow is not None:
        return _record("in", session.request, session.flow, session.dialog.local_tag, session.dialog.contact)
    if session.client is not None and session.state in (SessionState.CALLING, SessionState.PROCEEDING):
        sent, flow = session.client.sent
        if sent is not None and flow is not None:
            return _record("out", sent, flow, session.dialog.local_tag, session.dialog.contact)
    return None


def _record(way: str, request: Request, flow: Flow, tag: str, contact: str) -> dict[str, Any]:
    return {
        "way": way,
        "request": to_bytes(request).decode("latin-1"),
        "kind": flow.kind.value,
        "remote": list(flow.remote),
        "names": sorted(flow.peer_names)[:1],
        "tag": tag,
        "contact": contact,
    }


async def tell(transports: TransportLayer, found: dict[str, Any], code: int, reason: str) -> None:
    """End the INVITE of a `record` at its peer. What cannot be told is logged: the peer's timers see to it.

    code:   of the final response; reason: a Reason header value for CANCEL, response and BYE
    """
    try:
        request = parse_message(str(found["request"]).encode("latin-1"))
        if not isinstance(request, Request):
            raise ValueError("no request")
        kind = TransportKind(found["kind"])
        address, port = str(found["remote"][0]), int(found["remote"][1])
        flow = _Gone(kind, (address, port))
        if found["way"] == "out":
            target = Target(kind, address, port, next(iter(found["names"]), ""))
            messages = [_cancel(request, reason)]
        else:
            target = (
                reconnect_target(request, flow)
                if kind.reliable
                else Target(kind, address, datagram_port(request, flow))
            )
            messages = [_final(request, code, found["tag"], reason)]
        await _send(transports, target, messages)
        if found["way"] == "in":
            await _send(transports, target, [_bye(transports, target, request, found, reason)])
    except (SipError, MessageError, ValueError, KeyError, TypeError, IndexError) as error:
        log.warning("orphan_not_told kind=%s cause=%s", found.get("kind"), error)


async def _send(transports: TransportLayer, target: Target, messages: list[bytes]) -> None:
    for pause in REPEATS[:1] if target.kind.reliable else REPEATS:
        await asyncio.sleep(pause)
        flow = await transports.flow(target)
        for data in messages:
            flow.send(data)


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


def _final(invite: Request, code: int, tag: str, reason: str) -> bytes:
    return to_bytes(make_response(invite, code, to_tag=tag, headers=[("Reason", reason)]))


def _bye(
    transports: TransportLayer, target: Target, invite: Request, found: dict[str, Any], reason: str
) -> bytes:
    dialog = from_request(invite, found["tag"], found["contact"])
    uri, route = dialog.route()
    bye = make_request(
        "BYE",
        uri,
        from_=dialog.local_party,
        to=dialog.remote_party,
        call_id=dialog.call_id,
        cseq=1 << 17,  # above what we may have used: a dialog's first CSeq is below 2**15
        route=route,
        headers=[("Reason", reason)],
    )
    flow = transports.flow_now(target)
    sent_by = transports.sent_by(flow, None) if flow is not None else "localhost"
    via = f"SIP/2.0/{target.kind.value.upper()} {sent_by};branch={new_branch()};rport"
    bye.headers.setlist("Via", [via])
    return to_bytes(bye)


class _Gone(Flow):
    """Stands for the connection that the INVITE came on."""

    def __init__(self, kind: TransportKind, remote: tuple[str, int]) -> None:
        self.kind, self.remote = kind, remote

    @property
    def closed(self) -> bool:
        return True
