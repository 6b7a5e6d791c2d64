"""The dialog of RFC 3261 12: what both sides must remember between requests, as one serialisable record."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.errors import MessageError
from gateway.sip.message import Message, Request, Response, make_request
from gateway.sip.session_timer import SessionTimer
from gateway.sip.session_values import (
    allowed_methods,
    cseq_of,
    has_loose_route,
    header_list,
    tag_of,
    tokens,
    uri_of,
)

log = logging.getLogger("tandem.sip")

RESTORE_GAP = 1000
"""Added to our CSeq when a dialog comes back from a record: requests sent after it was written are not in it,
and RFC 3261 12.2.2 allows gaps but no repeats."""

_BYTES = ("local_sdp", "remote_sdp")


@dataclass(slots=True)
class Dialog:
    """One dialog, early or confirmed, with the state of the session inside it.

    local_party, remote_party: From/To values of our requests, remote display name and parameters as received
    route_set: Route values in the order our requests carry them, each byte-exact
    remote_target: URI of the peer's Contact, byte-exact (`x-i=…;x-c=…/s/1/…`, port 443)
    remote_cseq: highest CSeq of a request of the peer's, -1 before its first
    peer_allow: None while the peer has not said what it allows
    refreshed_at: seconds since the epoch of the last session refresh
    referred: a REFER was received here, so that further NOTIFYs need an id (RFC 3515 2.4.6)
    """

    call_id: str
    local_tag: str
    remote_tag: str
    local_party: str
    remote_party: str
    local_cseq: int
    remote_cseq: int
    route_set: list[str]
    remote_target: str
    role: Literal["uac", "uas"]
    confirmed: bool = False
    contact: str = ""
    invite_cseq: int = 0
    peer_allow: list[str] | None = None
    peer_supported: list[str] = field(default_factory=list)
    local_sdp: bytes = b""
    remote_sdp: bytes = b""
    timer: SessionTimer = field(default_factory=SessionTimer)
    refreshed_at: float = 0.0
    referred: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """Call-ID, our tag, the peer's tag."""
        return self.call_id, self.local_tag, self.remote_tag

    def learn(self, message: Message) -> None:
        """Take over what the peer says it can do; silence leaves what is known."""
        methods = allowed_methods(message)
        if methods is not None:
            self.peer_allow = sorted(methods)
        supported = tokens(message.headers, "Supported")
        if supported:
            self.peer_supported = supported

    def refresh_target(self, message: Message) -> None:
        """Target refresh (RFC 3261 12.2): INVITE, UPDATE and their 2xx move the peer's Contact."""
        self.remote_target = _contact_uri(message, self.remote_target)

    def allows(self, method: str, *, strict: bool) -> bool:
        """Whether the peer may be sent `method`: known to be listed, or not known and we are not strict."""
        if self.peer_allow is None:
            return not strict
        return method in self.peer_allow

    def supports(self, option: str) -> bool:
        return option.lower() in (tag.lower() for tag in self.peer_supported)

    def next_cseq(self) -> int:
        self.local_cseq += 1
        return self.local_cseq

    def route(self) -> tuple[str, list[str]]:
        """Request-URI and Route values for a request in this dialog (RFC 3261 12.2.1.1).

        With a strict router first, its URI becomes the Request-URI and the remote target goes last.
        """
        if not self.route_set or has_loose_route(self.route_set[0]):
            return self.remote_target, list(self.route_set)
        return uri_of(self.route_set[0]), [*self.route_set[1:], f"<{self.remote_target}>"]

    def next_hop(self) -> str:
        """URI to send to: the first route, else the remote target (facts 3.2: obey Record-Route, else
        Contact).
        """
        return uri_of(self.route_set[0]) if self.route_set else self.remote_target

    def request(
        self,
        method: str,
        cseq: int,
        *,
        contact: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
        max_forwards: int = 70,
    ) -> Request:
        """A request inside this dialog, without Via."""
        uri, route = self.route()
        return make_request(
            method,
            uri,
            from_=self.local_party,
            to=self.remote_party,
            call_id=self.call_id,
            cseq=cseq,
            contact=contact,
            max_forwards=max_forwards,
            route=route,
            headers=headers,
            body=body,
            content_type=content_type,
        )

    def to_record(self) -> dict[str, Any]:
        """JSON-ready form."""
        record = dataclasses.asdict(self)
        for name in _BYTES:
            record[name] = record[name].decode("latin-1")
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Dialog:
        """Inverse of `to_record`, with our CSeq moved on by RESTORE_GAP; ValueError when it is incomplete."""
        names = {f.name for f in dataclasses.fields(cls)}
        values = {key: value for key, value in record.items() if key in names}
        try:
            for name in _BYTES:
                values[name] = values[name].encode("latin-1")
            values["timer"] = SessionTimer(**values["timer"])
            dialog = cls(**values)
            dialog.local_cseq += RESTORE_GAP
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"incomplete dialog record: {error}") from error
        return dialog


def from_response(request: Request, response: Response, contact: str) -> Dialog:
    """The dialog a 1xx (with a To tag) or 2xx to our INVITE creates (RFC 3261 12.1.2); Route is its
    Record-Route reversed.

    A peer that forgot its Contact, or garbled it, is reached at the Request-URI: its 2xx must be
    acknowledged.
    """
    cseq = cseq_of(request)
    dialog = Dialog(
        call_id=request.headers["Call-ID"],
        local_tag=tag_of(request.headers["From"]),
        remote_tag=tag_of(response.headers["To"]),
        local_party=request.headers["From"],
        remote_party=response.headers["To"],
        local_cseq=cseq,
        remote_cseq=-1,
        route_set=_readable_routes(response)[::-1],
        remote_target=_contact_uri(response, request.uri_text),
        role="uac",
        contact=contact,
        invite_cseq=cseq,
    )
    dialog.learn(response)
    return dialog


def from_stray(response: Response) -> Dialog:
    """The dialog of a 2xx to an INVITE of which we have nothing but this answer; MessageError without a
    Contact.
    """
    contacts = header_list(response.headers, "Contact")
    if not contacts:
        raise MessageError(400, "Missing Contact in a 2xx")
    cseq = cseq_of(response)
    return Dialog(
        call_id=response.headers["Call-ID"],
        local_tag=tag_of(response.headers["From"]),
        remote_tag=tag_of(response.headers["To"]),
        local_party=response.headers["From"],
        remote_party=response.headers["To"],
        local_cseq=cseq + RESTORE_GAP,
        remote_cseq=-1,
        route_set=_readable_routes(response)[::-1],
        remote_target=uri_of(contacts[0]),
        role="uac",
        contact="",
        invite_cseq=cseq,
    )


def from_request(request: Request, local_tag: str, contact: str) -> Dialog:
    """The dialog an INVITE to us creates (RFC 3261 12.1.1); Route is its Record-Route in order."""
    contacts = header_list(request.headers, "Contact")
    if not contacts:
        raise MessageError(400, "Missing Contact in INVITE")
    cseq = cseq_of(request)
    to = request.headers["To"]
    routes = header_list(request.headers, "Record-Route")
    for route in routes:
        uri_of(route)
    dialog = Dialog(
        call_id=request.headers["Call-ID"],
        local_tag=local_tag,
        remote_tag=tag_of(request.headers["From"]),
        local_party=f"{to};tag={local_tag}",
        remote_party=request.headers["From"],
        local_cseq=0,
        remote_cseq=cseq,
        route_set=routes,
        remote_target=uri_of(contacts[0]),
        role="uas",
        contact=contact,
        invite_cseq=cseq,
    )
    dialog.learn(request)
    return dialog


def _contact_uri(message: Message, otherwise: str) -> str:
    """The first Contact's URI, or `otherwise` when there is none that can be read."""
    try:
        contacts = header_list(message.headers, "Contact")
        return uri_of(contacts[0]) if contacts else otherwise
    except MessageError:
        log.warning("contact_unreadable call_id=%s", message.headers.get("Call-ID"))
        return otherwise


def _readable_routes(response: Response) -> list[str]:
    try:
        routes = header_list(response.headers, "Record-Route")
        for route in routes:
            uri_of(route)
    except MessageError:
        log.warning("record_route_unreadable call_id=%s", response.headers.get("Call-ID"))
        return []
    return routes
