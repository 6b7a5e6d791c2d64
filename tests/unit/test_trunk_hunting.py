"""Hunting over sip, sip2, sip3: who is tried next, and when nobody is."""

from __future__ import annotations

import pytest

from gateway.errors import IllegalTransition
from gateway.trunks.health import PeerState
from gateway.trunks.hunting import MOST_ADDRESSES, Attempt, Hunt, HuntRule, HuntState, Resolve, order_of

PEERS = ("sip", "sip2", "sip3")


def start(
    rule: HuntRule = HuntRule.DIRECT_ROUTING, addresses: int = 1, limit: float = 60.0
) -> tuple[Hunt[str], Attempt[str]]:
    hunt: Hunt[str] = Hunt(PEERS, rule=rule, started=0.0, limit=limit)
    return hunt, dial(hunt, addresses)


def dial(hunt: Hunt[str], addresses: int = 1, now: float = 0.0) -> Attempt[str]:
    step = hunt.step(now)
    if isinstance(step, Resolve):
        hunt.resolved([f"{step.peer}/{n}" for n in range(addresses)])
        step = hunt.step(now)
    assert isinstance(step, Attempt)
    return step


@pytest.mark.parametrize("code", [0, 408, 503])
def test_next_proxy_on_503_408_and_silence(code: int) -> None:
    hunt, first = start()
    assert first.peer == "sip"
    assert hunt.failed(code) is True
    assert dial(hunt).peer == "sip2"
    assert hunt.failed(code) is True
    assert dial(hunt).peer == "sip3"
    assert hunt.failed(code) is False
    assert hunt.step(0.0) is None
    assert hunt.attempts == 3


@pytest.mark.parametrize("code", [486, 600, 603, 404, 403, 488, 400, 480, 484, 500, 504, 607, 410, 302])
def test_t23_a_definite_answer_is_never_hunted_on(code: int) -> None:
    hunt, _ = start()
    hunt.provisional(100)
    assert hunt.failed(code) is False
    assert hunt.state is HuntState.OVER
    assert hunt.step(0.0) is None
    assert (hunt.attempts, hunt.code) == (1, code)


@pytest.mark.parametrize("code", [0, 408, 503, 486])
@pytest.mark.parametrize("provisional", [180, 181, 183])
def test_t24_nothing_rings_twice(code: int, provisional: int) -> None:
    hunt, _ = start()
    hunt.provisional(100)
    hunt.provisional(provisional)
    hunt.provisional(180)
    assert hunt.failed(code) is False
    assert hunt.step(0.0) is None
    assert hunt.rang


def test_503_of_direct_routing_goes_to_the_next_data_centre_not_to_its_next_address() -> None:
    hunt, _ = start(addresses=3)
    hunt.failed(503)
    assert dial(hunt).peer == "sip2"


def test_503_of_a_plain_trunk_goes_to_the_next_address() -> None:
    hunt, first = start(HuntRule.SIP, addresses=2)
    assert first.target == "sip/0"
    hunt.failed(503)
    assert dial(hunt).target == "sip/1"


def test_a_dead_address_is_followed_by_the_next_one_of_the_same_name() -> None:
    hunt, _ = start(addresses=2)
    assert hunt.unreachable("connection refused") is True
    second = dial(hunt, 2)
    assert (second.target, second.number) == ("sip/1", 2)
    assert hunt.code == 503


@pytest.mark.parametrize("code", [502, 504])
def test_plain_trunks_hunt_on_gateway_errors(code: int) -> None:
    hunt, _ = start(HuntRule.SIP)
    assert hunt.failed(code) is True


def test_plain_trunks_do_not_hunt_on_500() -> None:
    hunt, _ = start(HuntRule.SIP)
    assert hunt.failed(500) is False


def test_a_name_without_address_is_passed_over_and_remembered() -> None:
    hunt: Hunt[str] = Hunt(("sip", "sip2"), rule=HuntRule.DIRECT_ROUTING, started=0.0, limit=60.0)
    assert hunt.step(0.0) == Resolve("sip")
    hunt.resolved([], "no such name")
    assert hunt.step(0.0) == Resolve("sip2")
    hunt.resolved([], "no such name")
    assert hunt.step(0.0) is None
    assert (hunt.code, hunt.text, hunt.attempts) == (503, "no such name", 0)


def test_a_name_with_many_addresses_does_not_use_up_the_time() -> None:
    hunt, _ = start(addresses=20)
    for _ in range(MOST_ADDRESSES - 1):
        hunt.failed(0)
        assert dial(hunt).peer == "sip"
    hunt.failed(0)
    assert dial(hunt).peer == "sip2"


def test_the_whole_hunt_is_bounded() -> None:
    hunt, first = start(limit=12.0)
    assert first.patience == 10.0
    hunt.failed(0)
    second = dial(hunt, now=9.0)
    assert (second.silence, second.patience) == (3.0, 3.0)
    hunt.failed(0)
    assert hunt.step(12.0) is None
    assert hunt.attempts == 2


def test_an_answer_ends_the_hunt() -> None:
    hunt, _ = start()
    hunt.provisional(180)
    hunt.answered()
    assert hunt.step(0.0) is None
    assert hunt.failed(503) is False


def test_an_abandoned_hunt_tries_nobody() -> None:
    hunt, _ = start()
    hunt.abandon()
    hunt.abandon()
    assert hunt.failed(503) is False
    assert hunt.step(0.0) is None


def test_a_failure_without_attempt_is_a_programming_error() -> None:
    hunt: Hunt[str] = Hunt(PEERS, rule=HuntRule.SIP, started=0.0, limit=60.0)
    with pytest.raises(IllegalTransition):
        hunt.failed(503)


def test_peers_in_hold_down_then_dead_ones_are_tried_last() -> None:
    peers = [
        ("sip", PeerState.DOWN),
        ("sip2", PeerState.HOLD_DOWN),
        ("sip3", PeerState.UNKNOWN),
        ("sip4", PeerState.UP),
    ]
    assert order_of(peers) == ["sip3", "sip4", "sip2", "sip"]
