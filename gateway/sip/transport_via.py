"""What a server writes into the top Via, and where it sends its response (RFC 3261 18.2, RFC 3581)."""

from __future__ import annotations

import re

from gateway.sip.message import Request, split_values
from gateway.sip.tls import name_matches
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target, TransportKind, is_ip, normal_address

_RECEIVED = re.compile(r";\s*received\s*=\s*[^;\s]*", re.IGNORECASE)
_RPORT = re.compile(r";\s*rport(?:\s*=\s*[^;\s]*)?(?=\s*(?:;|$))", re.IGNORECASE)


def stamp_via(request: Request, flow: Flow) -> None:
    """Put `received`, and `rport` when asked for, on the top Via; the rest stays as it came.

    A `received` the sender wrote itself is taken out: responses go where the request came from.
    """
    lines = request.headers.getlist("Via")
    values = split_values(lines[0])
    via = request.top_via
    address, port = flow.remote
    text = _RECEIVED.sub("", values[0])
    wants_port = "rport" in via.params
    if wants_port:
        text = _RPORT.sub(f";rport={port}", text, count=1)
    if wants_port or normal_address(via.host.strip("[]").lower()) != address:
        text += f";received={address}"
    request.headers.setlist("Via", [", ".join([text, *values[1:]]), *lines[1:]])


def datagram_port(request: Request, flow: Flow) -> int:
    """The port of `flow.remote`'s address that a response by UDP goes to: rport, sent-by's, or 5060.

    `maddr` (18.2.2) is left unheeded: with a forged source it would have us send answers to anybody.
    """
    via = request.top_via
    if "rport" in via.params:
        return flow.remote[1]
    return via.port or TransportKind.UDP.default_port


def proven_name(flow: Flow) -> str:
    """A name that the certificate on `flow` was seen to cover: SNI, and what to verify, when that peer is
    dialled; "" when it has shown none.
    """
    if flow.target is not None:
        return flow.target.name
    # the shortest is the service's own; below a wildcard any label is as good
    names = sorted(flow.peer_names, key=lambda name: (name.startswith("*"), len(name), name))
    return names[0].replace("*", "sip", 1) if names else ""


def reconnect_target(request: Request, flow: Flow) -> Target:
    """Where to connect to deliver a response when the connection the request came on is gone (18.2.2).

    Teams writes an address into its Via (facts direct-routing 3.2), and no certificate has that: where the
    lost connection has proven names and the sent-by is none of them, one of those is asked for.
    """
    via = request.top_via
    name = "" if is_ip(via.host) else via.host.lower()
    if flow.peer_names and not name_matches(name, flow.peer_names):
        name = proven_name(flow)
    return Target(flow.kind, flow.remote[0], via.port or flow.kind.default_port, name)
