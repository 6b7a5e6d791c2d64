"""Where a response goes when its connection is gone, and which name is verified there (RFC 3261 18.2.2)."""

from __future__ import annotations

import pytest

from gateway.sip.transport_types import Target, TransportKind
from gateway.sip.transport_via import proven_name, reconnect_target
from tests.unit.session_stage import StageFlow
from tests.unit.transaction_support import incoming

PROXY = "sip.pstnhub.microsoft.com"
WILD = "*.pstnhub.microsoft.com"


@pytest.mark.parametrize(
    ("sent_by", "names", "port", "name"),
    [
        ("192.0.2.9:5062", {PROXY}, 5062, PROXY),
        ("192.0.2.9", {PROXY, WILD}, 5061, PROXY),
        ("192.0.2.9", {WILD}, 5061, "sip.pstnhub.microsoft.com"),
        ("192.0.2.9", set(), 5061, ""),
        ("[2001:db8::1]:5061", {PROXY}, 5061, PROXY),
        (f"SIP2.{PROXY[4:]}", {PROXY, WILD}, 5061, f"sip2.{PROXY[4:]}"),
        ("proxy17.internal", {PROXY}, 5061, PROXY),
        ("pbx.example.test", set(), 5061, "pbx.example.test"),
    ],
)
def test_the_name_verified_is_one_that_the_lost_connection_has_proven(
    sent_by: str, names: set[str], port: int, name: str
) -> None:
    """Teams writes its address into the Via, which stands in no certificate of Microsoft's."""
    flow = StageFlow(TransportKind.TLS, ("192.0.2.9", 40000))
    flow.peer_names = frozenset(names)
    request = incoming()
    request.headers.setlist("Via", [f"SIP/2.0/TLS {sent_by};branch=z9hG4bKa"])
    assert reconnect_target(request, flow) == Target(TransportKind.TLS, "192.0.2.9", port, name)


def test_a_connection_of_ours_has_proven_the_name_that_was_dialled() -> None:
    flow = StageFlow()
    flow.peer_names = frozenset({PROXY, WILD})
    flow.target = Target(TransportKind.TLS, "192.0.2.9", 5061, f"sip3.{PROXY[4:]}")
    assert proven_name(flow) == f"sip3.{PROXY[4:]}"
