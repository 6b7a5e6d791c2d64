"""The gateway's life: start parts in order, watch them, drain, stop them in reverse.

    starting -> running -> draining -> stopping -> stopped
        \\___________\\______________/

SIGTERM or SIGINT drains: `/readyz` says 503, new calls are refused with 503, and when the last call is over
or `drain_timeout` has passed the parts are stopped. A second signal stops at once; what calls are up then
are ended by the parts' own `stop`.

SIGHUP restarts: the parts are detached, so that no call ends, and `run` says that the program is to be
executed anew, which then goes on with the calls.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.clock import Clock, LoopClock
from gateway.errors import IllegalTransition, TandemError

log = logging.getLogger("tandem.app")

START_LIMIT = 30.0
STOP_LIMIT = 10.0
WATCH_INTERVAL = 2.0
_DRAIN_POLL = 0.1


@dataclass(frozen=True)
class Health:
    """A part's own judgement; `text` says in a few words what is wrong, "" when nothing is."""

    ok: bool
    text: str = ""


class Part(Protocol):
    """Something the gateway is made of. `start` may raise; `stop` is called after a successful start only.

    A part may have `async def detach()`, called instead of `stop` before a restart: leave behind for the next
    gateway what has to go on.
    """

    @property
    def name(self) -> str: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def health(self) -> Health: ...


class PartFailed(TandemError):
    """A part could not be started; `cause` is what it raised. Everything started before it was stopped."""

    def __init__(self, part: str, cause: BaseException) -> None:
        self.part, self.cause = part, cause
        super().__init__(f"{part}: {cause or type(cause).__name__}")


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


_EDGES: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.RUNNING, State.STOPPING}),
    State.RUNNING: frozenset({State.DRAINING, State.STOPPING}),
    State.DRAINING: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}


class App:
    """Parts and their common life.

    calls:         how many calls are up; draining waits for 0
    on_drain:      called once when draining begins: refuse new calls
    drain_timeout: seconds that draining may take
    may_restart:   why a restart would fail, "" when it would not: then it is refused
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        calls: Callable[[], int] = lambda: 0,
        on_drain: Callable[[], None] = lambda: None,
        drain_timeout: float = 300.0,
        may_restart: Callable[[], str] = lambda: "",
        clock: Clock | None = None,
    ) -> None:
        self.parts = tuple(parts)
        self.state = State.STARTING
        self._calls, self._on_drain, self._drain_timeout = calls, on_drain, drain_timeout
        self._may_restart = may_restart
        self._clock = clock
        self._started: list[Part] = []
        self._unwell: dict[str, str] = {}
        self._drain = asyncio.Event()
        self._force = asyncio.Event()
        self._restart = asyncio.Event()

    @property
    def accepting(self) -> bool:
        """Whether new calls may be taken; False from the first signal on."""
        return self.state is State.RUNNING

    @property
    def calls(self) -> int:
        return self._calls()

    def health(self) -> dict[str, Health]:
        """What each started part says of itself; a part that cannot say is not well."""
        return {part.name: _ask(part) for part in self._started}

    @property
    def ready(self) -> bool:
        """Running, and every part well: calls may be sent here."""
        return self.state is State.RUNNING and all(health.ok for health in self.health().values())

    def _advance(self, state: State) -> None:
        if state not in _EDGES[self.state]:
            raise IllegalTransition("app", self.state, state)
        log.info("event=state from=%s to=%s calls=%d", self.state, state, self._calls())
        self.state = state

    async def start(self) -> None:
        """Start every part in order; PartFailed after the ones before it were stopped again.

        Calls that an earlier gateway left to us are not ended by that: the next try finds them.
        """
        for part in self.parts:
            try:
                async with asyncio.timeout(START_LIMIT):
                    await part.start()
            except BaseException as error:
                cause: BaseException = error
                if isinstance(error, TimeoutError) and not str(error):
                    cause = TimeoutError(f"not up after {START_LIMIT:.0f} s")
                if isinstance(error, Exception):
                    log.error(
                        "event=part_failed part=%s cause=%s", part.name, str(cause) or type(cause).__name__
                    )
                await self._stop_parts(detach=self._calls() > 0)
                if not isinstance(error, Exception):
                    raise
                raise PartFailed(part.name, cause) from error
            self._started.append(part)
            log.info("event=part_started part=%s", part.name)
        self._advance(State.RUNNING)

    def stop_soon(self) -> None:
        """What a signal does: the first drains, the second forces."""
        if self._drain.is_set():
            if not self._force.is_set():
                log.warning("event=forced calls=%d", self._calls())
            self._force.set()
        self._drain.set()

    def restart_soon(self) -> None:
        """What SIGHUP does, unless the gateway drains or could not start again."""
        refused = "draining" if self._drain.is_set() else self._may_restart()
        if refused:
            log.error("event=restart_refused cause=%s", refused)
        else:
            self._restart.set()

    async def run(self, *, signals: bool = True) -> bool:
        """Start, serve until told to stop, drain, stop. PartFailed when it could not start.

        True: the parts were detached, the program is to be executed anew.
        """
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT) if signals else ()
        for number in numbers:
            loop.add_signal_handler(number, self.stop_soon)
        if signals:
            loop.add_signal_handler(signal.SIGHUP, self.restart_soon)
        try:
            starting = asyncio.create_task(self.start(), name="app-start")
            stopped_early = asyncio.create_task(self._drain.wait(), name="app-signal")
            try:
                await asyncio.wait({starting, stopped_early}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait({starting})
                    return False
                await starting
                return await self._serve()
            finally:
                stopped_early.cancel()
                await asyncio.wait({stopped_early})
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            if signals:
                # one that comes now must not end the process: between here and the new one nobody listens
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def _serve(self) -> bool:
        watch = asyncio.create_task(self._watch(), name="app-watch")
        told = [asyncio.create_task(event.wait(), name="app-told") for event in (self._drain, self._restart)]
        restart = False
        try:
            await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
            restart = not self._drain.is_set()
            if not restart:
                self._advance(State.DRAINING)
                self._on_drain()
                await self._drained()
        finally:
            for task in (watch, *told):
                task.cancel()
            await asyncio.wait({watch, *told})
            await self._stop_parts(detach=restart)
        return restart

    async def _drained(self) -> None:
        """Until no call is up, the time is over, or a second signal came."""
        clock = self._clock or LoopClock()
        end = clock.now() + self._drain_timeout
        while self._calls() and not self._force.is_set():
            if clock.now() >= end:
                log.warning("event=drain_timeout calls=%d", self._calls())
                return
            try:
                async with asyncio.timeout(_DRAIN_POLL):
                    await self._force.wait()
            except TimeoutError:
                continue

    async def _watch(self) -> None:
        while True:
            for name, health in self.health().items():
                before = self._unwell.get(name)
                if not health.ok and health.text != before:
                    self._unwell[name] = health.text
                    log.error("event=part_unwell part=%s cause=%s", name, health.text)
                elif health.ok and before is not None:
                    del self._unwell[name]
                    log.warning("event=part_well part=%s after=%s", name, before)
            await asyncio.sleep(WATCH_INTERVAL)

    async def _stop_parts(self, *, detach: bool = False) -> None:
        """In reverse; whatever a part's stop does, the next one is stopped too."""
        self._advance(State.STOPPING)
        while self._started:
            part = self._started.pop()
            try:
                async with asyncio.timeout(STOP_LIMIT):
                    await (getattr(part, "detach", part.stop) if detach else part.stop)()
            except TimeoutError:
                log.error("event=part_stop_timeout part=%s seconds=%.0f", part.name, STOP_LIMIT)
            except Exception:
                log.exception("event=part_stop_failed part=%s", part.name)
            else:
                log.info("event=part_stopped part=%s", part.name)
        self._advance(State.STOPPED)


def _ask(part: Part) -> Health:
    try:
        return part.health()
    except Exception as error:
        return Health(False, f"{type(error).__name__}: {error}")
