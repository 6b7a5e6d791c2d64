"""The peer state machine: misses, hold-down, recovery."""

from __future__ import annotations

import pytest

from gateway.trunks.health import LONGEST_HOLD_DOWN, PeerHealth, PeerState, retry_after
from tests.support.clock import EPOCH


def peer(state: PeerState = PeerState.UNKNOWN) -> PeerHealth:
    return PeerHealth("teams", "tls:sip.pstnhub.microsoft.com:5061", state=state)


@pytest.mark.parametrize("code", [200, 403, 404, 405, 481, 500])
def test_any_answer_but_503_is_reachable(code: int) -> None:
    health = peer(PeerState.DOWN)
    health.reachable(code, 0.025, 1.0, EPOCH)
    status = health.status(1.0)
    assert (status.state, status.last_code, status.rtt_ms) == (PeerState.UP, code, 25.0)


def test_three_misses_in_a_row_take_a_peer_down_and_one_answer_brings_it_back() -> None:
    health = peer(PeerState.UP)
    health.missed("timeout", 1.0)
    health.missed("timeout", 2.0)
    assert health.state is PeerState.UP
    health.reachable(200, None, 3.0, EPOCH)
    for now in (4.0, 5.0):
        health.missed("timeout", now)
    assert health.state is PeerState.UP
    health.missed("refused", 6.0)
    assert (health.state, health.last_error) == (PeerState.DOWN, "refused")
    health.reachable(200, None, 7.0, EPOCH)
    assert (health.state, health.misses) == (PeerState.UP, 0)


def test_retry_after_is_a_hold_down_that_no_other_answer_shortens() -> None:
    health = peer(PeerState.UP)
    health.refused(30.0, 10.0)
    assert health.status(11.0).state is PeerState.HOLD_DOWN
    assert health.status(11.0).hold_down == 29.0
    health.reachable(200, None, 12.0, EPOCH)
    assert health.state is PeerState.HOLD_DOWN
    assert health.status(40.0).state is PeerState.UNKNOWN
    assert health.status(40.0).hold_down == 0.0


def test_a_503_without_retry_after_counts_as_a_miss() -> None:
    health = peer(PeerState.UP)
    for now in range(3):
        health.refused(None, float(now))
    assert health.state is PeerState.DOWN


def test_a_huge_retry_after_is_cut() -> None:
    health = peer()
    health.refused(1e9, 0.0)
    assert health.status(0.0).hold_down == LONGEST_HOLD_DOWN


def test_a_peer_in_hold_down_that_dies_is_down() -> None:
    health = peer()
    health.refused(100.0, 0.0)
    for now in (1.0, 2.0, 3.0):
        health.missed("timeout", now)
    assert health.state is PeerState.DOWN


def test_a_peer_lost_in_its_hold_down_comes_up_only_when_both_are_over() -> None:
    health = peer()
    health.refused(100.0, 0.0)
    for now in (1.0, 2.0, 3.0):
        health.missed("timeout", now)
    health.reachable(200, None, 50.0, EPOCH)
    assert (health.state, health.status(50.0).hold_down) == (PeerState.HOLD_DOWN, 50.0)
    for now in (60.0, 61.0, 62.0):
        health.missed("timeout", now)
    assert health.status(101.0).state is PeerState.DOWN, "the time is over, the silence is not"
    health.reachable(200, None, 102.0, EPOCH)
    assert health.state is PeerState.UP


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1", 1.0), ("120 (back soon);duration=60", 120.0), ("5;duration=3", 5.0), ("", None), ("soon", None)],
)
def test_retry_after_is_read(value: str, seconds: float | None) -> None:
    assert retry_after(value) == seconds
    assert retry_after(None) is None
