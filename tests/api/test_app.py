"""The gateway's life with simple real parts: order, failure, drain, force."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from gateway import app as app_module
from gateway.app import App, Health, PartFailed, State
from tests.support.waiting import until


class Recorder:
    """A part that writes down what happens to it."""

    def __init__(
        self,
        name: str,
        diary: list[str],
        *,
        start: Callable[[], None] | None = None,
        stop: Callable[[], None] | None = None,
        hang_at_start: bool = False,
        hang_at_stop: bool = False,
    ) -> None:
        self.name, self.diary = name, diary
        self._start, self._stop = start, stop
        self._hang_at_start, self._hang_at_stop = hang_at_start, hang_at_stop
        self.state = Health(True)
        self.broken = False

    async def start(self) -> None:
        if self._start:
            self._start()
        if self._hang_at_start:
            await asyncio.Event().wait()
        self.diary.append(f"+{self.name}")

    async def stop(self) -> None:
        self.diary.append(f"-{self.name}")
        if self._stop:
            self._stop()
        if self._hang_at_stop:
            await asyncio.Event().wait()

    def health(self) -> Health:
        if self.broken:
            raise RuntimeError("cannot say")
        return self.state


def fail() -> None:
    raise OSError("port taken")


async def test_parts_start_in_order_and_stop_in_reverse() -> None:
    diary: list[str] = []
    app = App([Recorder(name, diary) for name in "abc"])
    running = asyncio.create_task(app.run(signals=False))
    await until(lambda: app.ready)
    assert app.accepting
    app.stop_soon()
    await running
    assert diary == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert app.state is State.STOPPED
    assert not app.ready


async def test_a_part_that_does_not_start_is_named_and_what_ran_is_stopped() -> None:
    diary: list[str] = []
    app = App([Recorder("a", diary), Recorder("b", diary), Recorder("c", diary, start=fail)])
    with pytest.raises(PartFailed, match="c: port taken") as caught:
        await app.run(signals=False)
    assert isinstance(caught.value.cause, OSError)
    assert diary == ["+a", "+b", "-b", "-a"]


async def test_a_part_that_hangs_at_start_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "START_LIMIT", 0.05)
    diary: list[str] = []
    app = App([Recorder("a", diary), Recorder("b", diary, hang_at_start=True)])
    with pytest.raises(PartFailed, match="b: not up after"):
        await app.run(signals=False)
    assert diary == ["+a", "-a"]


@pytest.mark.allow_tracebacks
async def test_a_part_that_cannot_stop_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "STOP_LIMIT", 0.05)
    diary: list[str] = []
    app = App(
        [Recorder("a", diary), Recorder("b", diary, stop=fail), Recorder("c", diary, hang_at_stop=True)]
    )
    running = asyncio.create_task(app.run(signals=False))
    await until(lambda: app.ready)
    app.stop_soon()
    await running
    assert diary[3:] == ["-c", "-b", "-a"]
    assert app.state is State.STOPPED


async def test_sigterm_drains_until_the_last_call_is_over() -> None:
    calls = 2
    diary: list[str] = []
    app = App([Recorder("a", diary)], calls=lambda: calls)
    running = asyncio.create_task(app.run())
    await until(lambda: app.ready)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: app.state is State.DRAINING)
    assert not app.accepting
    assert not app.ready
    assert diary == ["+a"], "parts run on while calls are up"
    calls = 0
    await running
    assert diary == ["+a", "-a"]


async def test_a_second_signal_stops_at_once() -> None:
    app = App([], calls=lambda: 1)
    running = asyncio.create_task(app.run())
    await until(lambda: app.ready)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: app.state is State.DRAINING)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(5):
        await running


async def test_draining_has_a_limit() -> None:
    app = App([], calls=lambda: 1, drain_timeout=0.2)
    running = asyncio.create_task(app.run(signals=False))
    await until(lambda: app.ready)
    app.stop_soon()
    async with asyncio.timeout(5):
        await running


async def test_a_signal_while_starting_stops_what_has_started() -> None:
    diary: list[str] = []
    app = App([Recorder("a", diary), Recorder("b", diary, hang_at_start=True)])
    running = asyncio.create_task(app.run())
    await until(lambda: diary == ["+a"])
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await running
    assert diary == ["+a", "-a"]


async def test_cancelling_the_run_stops_the_parts() -> None:
    diary: list[str] = []
    app = App([Recorder("a", diary)])
    running = asyncio.create_task(app.run(signals=False))
    await until(lambda: app.ready)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert diary == ["+a", "-a"]


async def test_an_unwell_part_makes_the_gateway_not_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app_module, "WATCH_INTERVAL", 0.01)
    part = Recorder("a", [])
    app = App([part])
    running = asyncio.create_task(app.run(signals=False))
    await until(lambda: app.ready)
    part.state = Health(False, "no answer")
    assert not app.ready
    await until(lambda: "event=part_unwell part=a cause=no answer" in caplog.text)
    part.state = Health(True)
    await until(lambda: "event=part_well part=a" in caplog.text)
    assert app.ready
    part.broken = True
    assert app.health() == {"a": Health(False, "RuntimeError: cannot say")}
    app.stop_soon()
    await running
