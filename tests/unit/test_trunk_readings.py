"""What `/metrics` says of a trunk's peers."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.api.readings import trunk_readings
from gateway.model import TrunkKind
from gateway.trunks.health import PeerHealth
from gateway.trunks.trunk import TrunkStatus


def test_a_hold_down_by_retry_after_is_visible_with_what_is_left_of_it() -> None:
    peer = PeerHealth("teams", "tls:sip.example.test:5061", 3)
    peer.reachable(200, 0.02, 1.0, datetime(2026, 1, 1, tzinfo=UTC))
    peer.refused(30.0, 10.0)
    status = TrunkStatus("teams", TrunkKind.DIRECT_ROUTING, (), True, (peer.status(15.0),))
    found = {
        (reading.name, reading.labels.get("state", "")): reading.value for reading in trunk_readings([status])
    }
    assert found["tandem_peer_hold_down_seconds", ""] == 25.0
    states = {state: value for (name, state), value in found.items() if name == "tandem_peer_state"}
    assert states == {"unknown": 0, "up": 0, "down": 0, "hold-down": 1}
