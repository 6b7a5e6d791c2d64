"""The task of a call: one inbox, read by one task, so that nothing in a call happens at the same time.

What is put into the inbox of a call that has ended is answered, passed on to the call that has the leg now,
or dropped; a call that is frozen for a restart of the gateway stops without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, TypeVar

from gateway.calls.context import CallContext
from gateway.calls.endings import failure
from gateway.calls.leg import Leg
from gateway.calls.signals import Command, FromSession, HandedOver, Signal
from gateway.errors import IllegalTransition, SipError, TandemError
from gateway.model import CallId, ReleasedBy, Result, Termination
from gateway.sip.refer import Referred
from gateway.sip.session_events import OfferReceived, RequestReceived

log = logging.getLogger("tandem.calls")

T = TypeVar("T")


class CallState(StrEnum):
    """SETUP: nobody talks yet. ENDED: its row can be made."""

    SETUP = "setup"
    UP = "up"
    ENDED = "ended"


class CallEdge(StrEnum):
    TALK = "talk"
    END = "end"


_EDGES: dict[tuple[CallState, CallEdge], CallState] = {
    (CallState.SETUP, CallEdge.TALK): CallState.UP,
    (CallState.UP, CallEdge.TALK): CallState.UP,
    (CallState.SETUP, CallEdge.END): CallState.ENDED,
    (CallState.UP, CallEdge.END): CallState.ENDED,
}


class CallTask(ABC):
    """The part of a call that runs; what it does with a signal is the call's."""

    id: CallId

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self.state = CallState.SETUP
        self._inbox: asyncio.Queue[Signal] = asyncio.Queue()
        self._kept: set[asyncio.Task[None]] = set()
        self._frozen = False
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def handle(self, signal: Signal) -> None:
        """Take one signal; called in the task."""

    @abstractmethod
    async def end(self, termination: Termination) -> None:
        """End every leg and the call."""

    @abstractmethod
    def ended(self) -> None:
        """The task is over, and so is the call."""

    @abstractmethod
    def remember(self) -> None:
        """Something may have changed that the next gateway has to know."""

    @abstractmethod
    def halt(self) -> None:
        """Stop every timer of the call: it is being frozen."""

    def post(self, signal: Signal) -> None:
        """Put a signal into the inbox; after the end it is answered, passed on or dropped."""
        if self.state is CallState.ENDED:
            self._refuse(signal)
        else:
            self._inbox.put_nowait(signal)

    def start(self, first: Callable[[], Awaitable[None]]) -> None:
        """Run the call's task, beginning with `first`."""
        self._task = asyncio.get_running_loop().create_task(self._run(first), name=f"call-{self.id}")

    async def command(self, run: Callable[[], Awaitable[T]]) -> T:
        """Run something in the call's task, after what is already in its inbox, and give its result.

        Never from another call's task: two that wait for each other would wait for ever.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.post(Command(run, done))
        return await done

    def terminate(self, termination: Termination) -> None:
        """End the call as soon as its task gets to it."""

        async def over() -> None:
            await self.end(termination)

        self.post(Command(over))

    async def join(self) -> None:
        """Wait until the task has ended."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, first: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._guarded(first)
            while self.state is not CallState.ENDED and not self._frozen:
                self.remember()
                signal = await self._inbox.get()
                await self._guarded(lambda signal=signal: self.handle(signal))  # type: ignore[misc]
        finally:
            if not self._frozen:
                await self._clear()

    async def _clear(self) -> None:
        while not self._inbox.empty():
            signal = self._inbox.get_nowait()
            if isinstance(signal, HandedOver):
                await signal.refuse()
            else:
                self._refuse(signal)
        self.ended()

    async def freeze(self) -> None:
        """The gateway goes, the call does not: stop its task after the signal under way. It has ended if it
        was about to."""
        with contextlib.suppress(IllegalTransition):
            await self.command(self._freeze)
        await self.join()

    async def _freeze(self) -> None:
        self._frozen = True
        self.halt()
        for task in self._kept:
            task.cancel()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Errors end the call with what they say; nothing leaves the task."""
        try:
            await work()
        except SipError as error:
            log.warning("call_failed call=%s code=%d cause=%s", self.id, error.code, error.text)
            await self.end(failure(error))
        except (TandemError, Exception):
            log.exception("call_broken call=%s", self.id)
            await self.end(Termination(Result.FAILED, "internal_error", 500, 41, ReleasedBy.SYSTEM))

    def _refuse(self, signal: Signal) -> None:
        """A signal that this call has no use for: another call may have got the leg meanwhile."""
        leg = getattr(signal, "leg", None)
        if isinstance(leg, Leg) and leg.post != self.post:
            leg.post(signal)
        elif isinstance(signal, Command):
            if signal.done is not None and not signal.done.done():
                signal.done.set_exception(IllegalTransition("call", CallState.ENDED, "command"))
            if signal.too_late is not None:
                signal.too_late()
        elif isinstance(signal, FromSession) and isinstance(signal.event, OfferReceived | Referred):
            signal.event.reject(481)
        elif isinstance(signal, FromSession) and isinstance(signal.event, RequestReceived):
            signal.event.respond(481)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Let a task live as long as the call, no longer."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def advance(self, edge: CallEdge) -> None:
        after = _EDGES.get((self.state, edge))
        if after is None:
            raise IllegalTransition("call", self.state, edge)
        if after is not self.state:
            log.debug("call_state call=%s from=%s to=%s", self.id, self.state, after)
        self.state = after


async def run_command(run: Callable[[], Awaitable[Any]], done: asyncio.Future[Any] | None) -> None:
    """A command's failure belongs to the one who gave it and waits, not to the call."""
    if done is None:
        await run()
        return
    try:
        result = await run()
    except Exception as error:
        if done.done():
            raise
        done.set_exception(error)
    else:
        if not done.done():
            done.set_result(result)
