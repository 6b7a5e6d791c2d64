"""Tells the calls' journal of agents' after-call work, so that call detail knows how long it took.

The agents' journal is where that work is kept; what is told here follows from it, and is told again after a
crash. Telling twice changes nothing: a piece of work is known by its call, its agent and its beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from gateway.agents.events import AgentStateChanged
from gateway.agents.journal import AgentEntry, AgentJournal
from gateway.agents.states import AgentState, AgentStatus
from gateway.cdr.call_state import Work
from gateway.cdr.journal import Journal
from gateway.errors import JournalError
from gateway.events import Event, WorkBegan, WorkEnded
from gateway.model import CallId

log = logging.getLogger("tandem.agents")


class AfterCall:
    """One beside the agents' journal."""

    def __init__(self, agents: AgentJournal, calls: Journal) -> None:
        self._agents, self._calls = agents, calls
        self._waiting: asyncio.Queue[Sequence[Event]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(
        self,
        entries: Iterable[AgentEntry],
        status: Callable[[str], AgentStatus],
        open_work: Iterable[tuple[CallId, Work]],
    ) -> None:
        """Finish what a crash left untold, then follow.

        entries:   what the agents' journal has
        status:    an agent's, as these leave it
        open_work: what lasts as far as the calls' journal tells
        """
        changes = [entry.event for entry in entries if isinstance(entry.event, AgentStateChanged)]
        for call, work in open_work:
            self._tell(_missing(call, work, status(work.login), changes))
        for login in {change.login for change in changes}:
            self._tell(_began(status(login)))
        self._unsubscribe = self._agents.subscribe(self._observe)
        self._task = asyncio.create_task(self._work(), name="after-call")

    async def stop(self) -> None:
        """Tell what waits; harmless twice."""
        if self._task is None:
            return
        self._unsubscribe()
        await self._waiting.join()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    def _observe(self, entry: AgentEntry) -> None:
        if isinstance(entry.event, AgentStateChanged):
            self._tell([*_ended(entry.event), *_began(entry.event.status)])

    def _tell(self, events: Sequence[Event]) -> None:
        if events:
            self._waiting.put_nowait(events)

    async def _work(self) -> None:
        while True:
            events = await self._waiting.get()
            try:
                await self._calls.append(*events)
            except JournalError as error:
                log.warning("after_call_work_late cause=%s: the journal keeps it", error)
            except Exception:
                log.exception("after_call_work_not_told")
            finally:
                self._waiting.task_done()


def _began(status: AgentStatus) -> list[Event]:
    if status.state is not AgentState.AFTER_CALL_WORK or not status.call:
        return []
    return [WorkBegan(call=status.call, at=status.since, login=status.login)]


def _ended(change: AgentStateChanged) -> list[Event]:
    """A change within the work (its end put off) keeps `before` and the state the same."""
    over = change.status.state is not AgentState.AFTER_CALL_WORK
    if change.before is not AgentState.AFTER_CALL_WORK or not change.before_call or not over:
        return []
    return [WorkEnded(call=change.before_call, at=change.at, login=change.login, began=change.before_since)]


def _missing(
    call: CallId, work: Work, status: AgentStatus, changes: Iterable[AgentStateChanged]
) -> list[Event]:
    """What the calls' journal was not told of: the end of `work`, when the agent does something else now."""
    if status.state is AgentState.AFTER_CALL_WORK and (status.call, status.since) == (call, work.start):
        return []
    for change in changes:
        if (change.login, change.before_call, change.before_since) == (work.login, call, work.start):
            return _ended(change)
    return [WorkEnded(call=call, at=work.start, login=work.login, began=work.start)]
