"""The clock that records are made with: even while a call is up, the real one otherwise."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from gateway.cdr.call_detail import call_detail
from gateway.clock import SteadyClock
from gateway.events import LegHeld, LegResumed
from gateway.model import LegId, PartyType, Role
from tests.cdr.events import HUNG_UP, START, History
from tests.support.clock import FakeClock

TEN_MINUTES = 600.0


class SteppedClock(FakeClock):
    """`step`: seconds by which the time of day was set."""

    step = 0.0

    def wall(self) -> datetime:
        return super().wall() + timedelta(seconds=self.step)


class Desk:
    """Calls that are up, and the two clocks."""

    def __init__(self) -> None:
        self.real, self.up = SteppedClock(), set[str]()
        self.steady = SteadyClock(self.real, lambda: self.up)

    @property
    def ahead(self) -> float:
        """Seconds by which records' time is ahead of the real one."""
        return (self.steady.wall() - self.real.wall()).total_seconds()


@pytest.mark.parametrize("step", [-TEN_MINUTES, TEN_MINUTES])
def test_a_clock_set_in_the_middle_of_a_hold_changes_no_number(step: float) -> None:
    desk, history = Desk(), History()

    def after(seconds: float) -> History:
        desk.real.advance(seconds)
        history.now = round(desk.steady.wall().timestamp() * 1000) - START
        return history

    desk.up = {"c"}
    after(0).started()
    history.leg("a", Role.CALLER, PartyType.AGENT, "1").leg("b", Role.CALLEE, PartyType.EXTERNAL, "2")
    after(5).dialled("b").answered("b", "a").joined("a", "b")
    held, resumed = LegHeld, LegResumed
    after(10).add(held(call=history.call, at=history.at, leg=LegId("a"), by=PartyType.AGENT))
    desk.real.advance(20)
    desk.real.step = step
    after(40).add(resumed(call=history.call, at=history.at, leg=LegId("a"), by=PartyType.AGENT))
    after(30).ended(HUNG_UP, "a", "b")
    (row,) = call_detail(history.events)
    assert row.detail["hold_ms"] == pytest.approx(60_000, abs=200)
    assert row.detail["talk_ms"] == pytest.approx(40_000, abs=200)
    assert row.duration == pytest.approx(105, abs=1)


def test_with_no_call_up_the_time_is_the_real_one_at_once() -> None:
    desk = Desk()
    assert desk.ahead == 0
    desk.up = {"a"}
    assert desk.ahead == 0
    desk.real.step = 3600.0
    desk.real.advance(1)
    assert desk.ahead == pytest.approx(-3600, abs=0.01)
    desk.up = {"a", "b"}
    desk.real.advance(1)
    assert desk.ahead == pytest.approx(-3600, abs=0.01)
    desk.up = {"b"}
    assert desk.ahead == pytest.approx(-3600, abs=0.01), "one that knows the old time is still up"
    desk.up = set()
    assert desk.ahead == 0


def test_a_step_while_nobody_looked_and_none_was_up_is_followed_by_the_next_call() -> None:
    desk = Desk()
    desk.up = {"a"}
    assert desk.ahead == 0
    desk.up = set()
    desk.real.step = -TEN_MINUTES
    desk.real.advance(3600)
    desk.up = {"b"}
    assert desk.ahead == 0


def test_a_drift_is_followed_and_a_step_made_good_without_ever_going_back() -> None:
    desk = Desk()
    desk.up = {"a"}
    before = desk.steady.wall()
    for _ in range(24 * 360):
        desk.real.advance(10)
        desk.real.step += 0.005  # as much as NTP lets a clock gain
        now = desk.steady.wall()
        assert now > before
        before = now
    assert abs(desk.ahead) < 0.001
    desk.real.step -= 60
    for _ in range(31):
        desk.real.advance(1000)
        now = desk.steady.wall()
        assert now > before
        before = now
    assert abs(desk.ahead) < 0.001
