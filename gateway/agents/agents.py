"""The agents' room: states follow commands and calls; each change is durable before anybody is told.

One inbox, one task: whatever may change a state waits its turn there, so a command and a call that come at
the same moment meet a settled state, and the journal has them in the order in which they counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from gateway.agents.call_tracker import CallTracker, Joined, Left
from gateway.agents.events import AgentCallEnded, AgentEvent, AgentStateChanged
from gateway.agents.journal import AgentEntry, AgentJournal, Listener
from gateway.agents.roster import Roster
from gateway.agents.states import (
    SETTLED,
    TABLE,
    AgentState,
    AgentStatus,
    Facts,
    Trigger,
    decide,
    lift,
    overlay,
)
from gateway.cdr.call_state import CallState
from gateway.cdr.journal import Entry
from gateway.clock import Clock, TimerHandle
from gateway.config_models import Agent, AgentRules
from gateway.errors import TandemError
from gateway.model import CallId

log = logging.getLogger("tandem.agents")

_TRIGGERS = {
    AgentState.READY: Trigger.SET_READY,
    AgentState.NOT_READY: Trigger.SET_NOT_READY,
    AgentState.LOGGED_OUT: Trigger.LOG_OUT,
}
CHOICES = tuple(_TRIGGERS)
"""The states that can be asked for."""


class UnknownAgent(TandemError):
    """Nobody has this login."""


class UnknownReason(TandemError):
    """A Not Ready reason that is none of the configured ones."""


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent as others see him; moments in milliseconds since the epoch.

    reason:     why not ready, "" otherwise
    next_state, next_reason: what follows Busy, After Call Work or Supervising; None and "" in other states
    until:      when After Call Work ends by itself, else None
    calls:      ids of the calls in which he has a leg
    """

    login: str
    name: str
    team: str
    state: AgentState
    reason: str
    since: int
    next_state: AgentState | None
    next_reason: str
    until: int | None
    calls: tuple[CallId, ...]


class Agents:
    """Everybody's state. `start` after the calls' journal was replayed, before its lost calls are ended."""

    def __init__(self, journal: AgentJournal, roster: Roster, rules: AgentRules, clock: Clock) -> None:
        self.roster, self.rules = roster, rules
        self._journal, self._clock = journal, clock
        self._tracker = CallTracker()
        self._statuses: dict[str, AgentStatus] = {}
        self._timers: dict[str, TimerHandle] = {}
        self._inbox: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    # -- life --

    def start(self, entries: Iterable[AgentEntry], running: Iterable[CallState]) -> None:
        """entries: what the agents' journal has; running: the calls that were up when we stopped."""
        for entry in entries:
            self._remember(entry)
        self._journal.subscribe(self._remember)
        joined = self._tracker.restore(running)
        self._task = asyncio.create_task(self._work(), name="agents")
        for one in joined:
            self._post(partial(self._joined, one))
        for login, status in self._statuses.items():
            self._post(partial(self._reconcile, login))
            self._wind(status)

    async def stop(self) -> None:
        """Finish what waits in the inbox."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._task is None:
            return
        await self._inbox.join()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    def observe(self, entry: Entry) -> None:
        """The calls' journal tells it what happens (`Journal.subscribe`)."""
        for change in self._tracker.observe(entry.event):
            if isinstance(change, Joined):
                self._post(partial(self._joined, change))
            else:
                self._post(partial(self._left, change))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener` gets every AgentStateChanged and AgentCallEnded, durable; returns the way to stop."""
        return self._journal.subscribe(listener)

    @property
    def fault(self) -> str:
        return self._journal.fault

    # -- asking --

    def status(self, login: str) -> AgentStatus:
        """Logged out, where nothing is known."""
        return self._statuses.get(login) or AgentStatus(login=login)

    def view(self, login: str) -> AgentView:
        """UnknownAgent."""
        return self._view(self._agent(login))

    def views(self) -> list[AgentView]:
        """All agents, by team, name and login."""
        order = sorted(self.roster.agents, key=lambda agent: (agent.team, agent.name, agent.login))
        return [self._view(agent) for agent in order]

    def calls_of(self, login: str) -> frozenset[CallId]:
        """Calls in which the agent has a leg now, ringing ones included."""
        return self._tracker.calls_of(login)

    def running(self, now: int) -> list[AgentCallEnded]:
        """Every agent's part in the calls that last, as if it ended at `now`, milliseconds."""
        return self._tracker.running(now)

    def counts(self) -> Counter[AgentState]:
        """Agents by state, every state named."""
        found = Counter(dict.fromkeys(AgentState, 0))
        found.update(self.status(agent.login).state for agent in self.roster.agents)
        return found

    def _agent(self, login: str) -> Agent:
        agent = self.roster.get(login)
        if agent is None:
            raise UnknownAgent(f"no agent has the login {login!r}")
        return agent

    def _view(self, agent: Agent) -> AgentView:
        status = self.status(agent.login)
        passing = status.state not in SETTLED
        return AgentView(
            login=agent.login,
            name=agent.name,
            team=agent.team,
            state=status.state,
            reason=status.reason,
            since=status.since,
            next_state=status.after if passing else None,
            next_reason=status.after_reason if passing else "",
            until=status.until,
            calls=tuple(sorted(self.calls_of(agent.login))),
        )

    # -- commanding --

    async def set_state(
        self, login: str, state: AgentState, reason: str = "", *, by: str, any_reason: bool = False
    ) -> AgentView:
        """What an agent chooses: ready, not ready, logged out. While Busy it takes effect afterwards.

        any_reason: a system may give reasons of its own, a person only the configured ones
        UnknownAgent, UnknownReason, JournalError (nothing has changed then).
        """
        self._agent(login)
        if reason and not any_reason and reason not in self.rules.not_ready_reasons:
            raise UnknownReason(f"{reason!r} is none of the [agent_states] not_ready_reasons")
        trigger = _TRIGGERS[state]
        return await self._ask(login, lambda now: decide(now, trigger, self._now(), Facts(reason=reason)), by)

    async def external_busy(self, login: str, reason: str, *, by: str) -> AgentView:
        """A system (the presence in Teams) finds the agent busy; his own choice comes back afterwards."""
        return await self._ask(login, lambda now: overlay(now, reason, self._now()), by)

    async def external_free(self, login: str, reason: str, *, by: str) -> AgentView:
        """That is over. Nothing changes when the agent has chosen another state meanwhile."""
        return await self._ask(login, lambda now: lift(now, reason, self._now()), by)

    async def _ask(self, login: str, decision: Callable[[AgentStatus], AgentStatus], by: str) -> AgentView:
        self._agent(login)
        done: asyncio.Future[AgentView] = asyncio.get_running_loop().create_future()

        async def act() -> None:
            try:
                await self._change(login, decision(self.status(login)), by, must=True)
            except TandemError as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(self.view(login))

        self._post(act)
        return await done

    # -- the inbox --

    def _post(self, act: Callable[[], Awaitable[None]]) -> None:
        self._inbox.put_nowait(act)

    async def _work(self) -> None:
        while True:
            act = await self._inbox.get()
            try:
                await act()
            except Exception:
                log.exception("agents_failed")
            finally:
                self._inbox.task_done()

    async def _joined(self, joined: Joined) -> None:
        trigger = Trigger.SUPERVISION_BEGAN if joined.supervision else Trigger.CALL_BEGAN
        await self._automatic(joined.login, trigger, joined.at)

    async def _left(self, left: Left) -> None:
        ended = left.ended
        if ended.supervision:
            over = None if left.supervising else Trigger.SUPERVISION_OVER
        else:
            over = None if left.calling else Trigger.CALLS_OVER
        facts = Facts(
            work_ms=round(self.work_seconds(ended.login) * 1000),
            call=ended.call,
            supervising=left.supervising,
        )
        await self._automatic(ended.login, over, ended.at, facts, ended)

    async def _reconcile(self, login: str) -> None:
        """After a restart: a call may have ended, and the work after it, while nobody looked."""
        status, now = self.status(login), self._now()
        calling, supervising = self._tracker.engaged(login)
        if status.state is AgentState.BUSY and not calling:
            await self._automatic(login, Trigger.CALLS_OVER, now, Facts(supervising=supervising))
        elif status.state is AgentState.SUPERVISING and not supervising:
            await self._automatic(login, Trigger.SUPERVISION_OVER, now)
        elif status.state is AgentState.AFTER_CALL_WORK and status.until is None:
            await self._automatic(login, Trigger.WORK_OVER, now)

    async def _automatic(
        self,
        login: str,
        trigger: Trigger | None,
        at: int,
        facts: Facts | None = None,
        ended: AgentCallEnded | None = None,
    ) -> None:
        if self.roster.get(login) is None:
            return
        status = self.status(login)
        after = status
        if trigger is not None and trigger in TABLE[status.state]:
            after = decide(status, trigger, at, facts)
        await self._change(login, after, "calls", must=False, ended=ended)

    async def _change(
        self, login: str, after: AgentStatus, by: str, *, must: bool, ended: AgentCallEnded | None = None
    ) -> None:
        before = self.status(login)
        events: list[AgentEvent] = [ended] if ended is not None else []
        if after != before:
            events.append(
                AgentStateChanged(
                    login=login,
                    at=after.since if after.state is not before.state else max(self._now(), after.since),
                    status=after,
                    before=before.state,
                    before_since=before.since,
                    before_reason=before.reason,
                    before_call=before.call,
                    by=by,
                )
            )
        if events:
            await self._journal.append(*events, must=must)

    def _remember(self, entry: AgentEntry) -> None:
        if isinstance(entry.event, AgentStateChanged):
            status = entry.event.status
            self._statuses[status.login] = status
            if self._task is not None:
                self._wind(status)

    # -- after call work --

    def work_seconds(self, login: str) -> float:
        """The agent's own, else the team's, else everybody's."""
        agent = self.roster.get(login)
        if agent is None:
            return 0.0
        if agent.after_call_work is not None:
            return agent.after_call_work
        return self.rules.team_after_call_work.get(agent.team, self.rules.after_call_work)

    def _wind(self, status: AgentStatus) -> None:
        timer = self._timers.pop(status.login, None)
        if timer is not None:
            timer.cancel()
        if status.until is None:
            return
        delay = max(0.0, (status.until - self._now()) / 1000)
        self._timers[status.login] = self._clock.call_later(delay, lambda: self._work_over(status))

    def _work_over(self, status: AgentStatus) -> None:
        async def act() -> None:
            if self.status(status.login) == status and status.until is not None:
                await self._automatic(status.login, Trigger.WORK_OVER, status.until)

        self._post(act)

    def _now(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)
