"""Busy sync at work: events of one agent one after the other through the table, and what it says is done.

Memory is stored before anything is written to Teams, so that after a crash we know what was ours (N12).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.clock import Clock, TimerHandle
from gateway.errors import TandemError
from gateway.teams.errors import GraphError, GraphUnavailable, StoreFault, TeamsError, Throttled
from gateway.teams.presence_desk import Desks
from gateway.teams.presence_graph import Presences, Shown
from gateway.teams.presence_rules import (
    Act,
    Decision,
    Desk,
    Event,
    Grip,
    Memory,
    Options,
    Ours,
    Situation,
    decide,
)
from gateway.teams.store import Shelf, Store

log = logging.getLogger("tandem.teams")

_RETRY, _RETRY_MOST = 30.0, 600.0
_RELEASE_LIMIT = 7.0


@dataclass(frozen=True)
class _Item:
    """Something that happened; `read`: what Graph shows is asked for when its turn has come."""

    event: Event
    found: Shown | None = None
    desk: Desk | None = None
    read: bool = False


@dataclass
class _Agent:
    login: str
    oid: str
    memory: Memory = field(default_factory=Memory)
    inbox: deque[_Item] = field(default_factory=deque)
    timers: dict[str, TimerHandle] = field(default_factory=dict)
    unsaved: bool = False
    task: asyncio.Task[None] | None = None


class BusySync:
    """All agents whose Teams user is known. `oid` is the user's object id."""

    def __init__(
        self, desks: Desks, presences: Presences, store: Store, clock: Clock, options: Options | None = None
    ) -> None:
        self._desks, self._presences, self._store, self._clock = desks, presences, store, clock
        self._options = options or Options()
        self._agents: dict[str, _Agent] = {}
        self._by_oid: dict[str, _Agent] = {}
        self._unsubscribe: Callable[[], None] = lambda: None
        self._stopping = False
        self._unread: set[str] = set()
        self._again: TimerHandle | None = None
        self._again_after = _RETRY
        self._reading: asyncio.Task[None] | None = None
        self.fault = ""
        self.counts: dict[str, int] = {}

    # -- life --

    async def start(self, users: dict[str, str]) -> None:
        """users: login -> oid. One bulk read restores everybody (N12); who is not in it is read later."""
        self._unsubscribe = self._desks.subscribe(self._changed)
        await self._take(users)

    async def stop(self) -> None:
        """Finish what is under way and take our sessions away, for some seconds; the rest expires (N9)."""
        self._unsubscribe()
        self._stopping = True
        if self._again is not None:
            self._again.cancel()
        for agent in self._agents.values():
            for timer in agent.timers.values():
                timer.cancel()
        try:
            async with asyncio.timeout(_RELEASE_LIMIT):
                await asyncio.gather(*(self._release(agent) for agent in self._agents.values()))
        except TimeoutError:
            log.warning("event=busy_sync_release_cut_off")
        working = [self._reading, *(agent.task for agent in self._agents.values())]
        tasks = [task for task in working if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def enable(self, login: str, oid: str) -> None:
        await self._take({login: oid})

    async def disable(self, login: str) -> None:
        """What was ours in Teams is taken away, and what Teams made of the desk with it."""
        agent = self._agents.pop(login, None)
        if agent is None:
            return
        self._by_oid.pop(agent.oid, None)
        for timer in agent.timers.values():
            timer.cancel()
        if agent.memory.grip is Grip.HELD:
            await self._tell(self._desks.free, login)
        await self._release(agent)
        await self._store.remove(Shelf.SYNC, login)

    async def resync(self) -> None:
        """Read everybody anew: notifications may have been missed."""
        await self._read_all(list(self._agents.values()), Event.READ)

    async def resync_one(self, login: str) -> None:
        agent = self._agents.get(login)
        if agent is not None:
            await self._read_all([agent], Event.READ)

    async def _take(self, users: dict[str, str]) -> None:
        kept = await self._store.all(Shelf.SYNC)
        new = []
        for login, oid in users.items():
            memory = Memory.of(kept[login]) if login in kept else Memory()
            agent = self._agents[login] = self._by_oid[oid] = _Agent(login, oid, memory)
            new.append(agent)
        await self._read_all(new, Event.RESUMED)

    async def _read_all(self, agents: list[_Agent], event: Event) -> None:
        if not agents:
            return
        try:
            found = await self._presences.read_many([agent.oid for agent in agents])
        except TeamsError as error:
            self._failed("bulk_read", error)
            found = {}
        for agent in agents:
            if agent.oid in found:
                self._unread.discard(agent.login)
                self._post(agent, event, found[agent.oid])
                continue
            if event is Event.RESUMED:
                self._post(agent, event, None)
            self._read_again(agent)
        if not self._unread:
            self._again_after = _RETRY

    def _read_again(self, agent: _Agent) -> None:
        """What Teams shows of him is not known: look with the next bulk read, ever more rarely."""
        self._unread.add(agent.login)
        if self._again is None and not self._stopping:
            self._again = self._clock.call_later(self._again_after, self._again_due)
            self._again_after = min(self._again_after * 2, _RETRY_MOST)

    def _again_due(self) -> None:
        self._again = None
        agents = [self._agents[login] for login in sorted(self._unread) if login in self._agents]
        self._unread.clear()
        self._reading = asyncio.create_task(self._read_all(agents, Event.READ), name="busy-sync-read-again")

    async def _release(self, agent: _Agent) -> None:
        if agent.memory.ours is Ours.NONE:
            return
        try:
            await self._presences.clear(agent.oid)
            agent.memory = Memory(in_call=agent.memory.in_call, grip=agent.memory.grip)
            await self._remember(agent)
        except TandemError as error:
            self._failed("release", error)

    # -- what happens --

    def notified(self, oid: str, found: Shown) -> None:
        """A change notification; also late, twice, or of somebody we do not know."""
        agent = self._by_oid.get(oid)
        if agent is not None:
            self._post(agent, Event.NOTIFIED, found)

    def memory(self, login: str) -> Memory:
        """KeyError for one who is not synchronised."""
        return self._agents[login].memory

    @property
    def idle(self) -> bool:
        """Nothing is being worked on."""
        reading = self._reading is not None and not self._reading.done()
        return not reading and all(agent.task is None for agent in self._agents.values())

    @property
    def size(self) -> int:
        return len(self._agents)

    def _changed(self, login: str, desk: Desk) -> None:
        agent = self._agents.get(login)
        if agent is not None:
            self._post(agent, Event.DESK, desk=desk)

    def _post(
        self, agent: _Agent, event: Event, found: Shown | None = None, desk: Desk | None = None
    ) -> None:
        self._put(agent, _Item(event, found, desk))

    def _put(self, agent: _Agent, item: _Item) -> None:
        if self._stopping:
            return
        agent.inbox.append(item)
        if agent.task is None:
            agent.task = asyncio.create_task(self._work(agent), name=f"busy-sync-{agent.login}")

    async def _work(self, agent: _Agent) -> None:
        try:
            while agent.inbox:
                item = agent.inbox.popleft()
                try:
                    if item.read:
                        await self._look(agent, item.event)
                    else:
                        await self._step(agent, item.event, item.found, item.desk)
                except Exception:
                    log.exception("event=busy_sync_failed login=%s", agent.login)
        finally:
            agent.task = None

    async def _step(self, agent: _Agent, event: Event, found: Shown | None, desk: Desk | None = None) -> None:
        """A change of the desk is judged as it was; everything else by what the desk is now."""
        decision = self._decide(agent, event, found, desk or self._desks.desk(agent.login))
        before, agent.memory = agent.memory, decision.memory
        if before.lasting != agent.memory.lasting or agent.unsaved:
            try:
                await self._remember(agent)
                agent.unsaved = False
            except StoreFault as error:
                self._failed("store", error)
                agent.unsaved = True
                self._later(agent, "remember", _RETRY, Event.DESK)
                if before.ours is not Ours.SET and agent.memory.ours is Ours.SET:
                    # What nobody would know to be ours after a crash is not written (N12).
                    agent.memory = before
                    return
        for act in decision.acts:
            await self._do(agent, act, first=event is Event.ASKED)

    def _decide(self, agent: _Agent, event: Event, found: Shown | None, desk: Desk) -> Decision:
        decision = decide(
            Situation(
                event,
                agent.memory,
                desk,
                self._clock.wall().timestamp(),
                self._options,
                found.pair if found else None,
                found.sequence if found else None,
            )
        )
        for name in decision.rules:
            self.counts[name] = self.counts.get(name, 0) + 1
        if decision.acts:
            log.info(
                "event=busy_sync login=%s on=%s rules=%s acts=%s",
                agent.login,
                event,
                ",".join(decision.rules),
                ",".join(decision.acts),
            )
        return decision

    async def _remember(self, agent: _Agent) -> None:
        if agent.memory.lasting == Memory().lasting:
            await self._store.remove(Shelf.SYNC, agent.login)
        else:
            await self._store.put(Shelf.SYNC, agent.login, agent.memory.document())

    # -- what is done --

    async def _do(self, agent: _Agent, act: Act, *, first: bool) -> None:
        options = self._options
        match act:
            case Act.DESK_BUSY:
                await self._tell(self._desks.busy, agent.login)
            case Act.DESK_FREE:
                await self._tell(self._desks.free, agent.login)
            case Act.READ:
                await self._look(agent, Event.READ)
            case Act.ASK:
                if self._presences.may_write:
                    await self._look(agent, Event.ASKED)
            case Act.WRITE_BUSY:
                await self._write_busy(agent, first=first)
            case Act.WRITE_AVAILABLE:
                await self._write(self._presences.write_available, agent)
            case Act.CLEAR:
                await self._write(self._presences.clear, agent)
            case Act.CLEAR_LATER:
                self._later(agent, "clear", options.available, Event.CLEAR_DUE)
            case Act.NO_CLEAR:
                self._never(agent, "clear")
            case Act.LEAVE_LATER:
                self._later(agent, "leave", options.leave, Event.LEAVE_DUE)
            case Act.STAY:
                self._never(agent, "leave")
            case Act.REFRESH_LATER:
                self._later(agent, "refresh", options.lifetime / 3, Event.REFRESH_DUE)
            case Act.REFRESH_SOON:
                self._later(agent, "refresh", min(_RETRY, options.lifetime / 10), Event.REFRESH_DUE)
            case Act.NO_REFRESH:
                self._never(agent, "refresh")
                self._never(agent, "look")
            case Act.READ_SOON:
                self._read_later(agent, "confirm", options.confirm, Event.READ)
            case Act.READ_AFTER_QUARANTINE:
                self._read_later(agent, "quarantine", options.quarantine + 0.001, Event.READ)
            case Act.LOOK_LATER:
                if not agent.memory.echoed:
                    self._read_later(agent, "look", options.quarantine, Event.LOOKED)
            case Act.LOG_HIDDEN:
                log.info("event=presence_hidden login=%s cause=user_preferred", agent.login)

    async def _tell(self, command: Callable[[str], Awaitable[None]], login: str) -> None:
        try:
            await command(login)
        except TandemError as error:
            self._failed("desk", error)

    async def _look(self, agent: _Agent, event: Event) -> None:
        try:
            found = await self._presences.read(agent.oid)
        except (TeamsError, ValueError) as error:
            self._failed("read", error)
            if event is Event.READ:
                self._read_again(agent)
            elif event is Event.ASKED and isinstance(error, GraphUnavailable | Throttled):
                self._read_later(agent, "ask", _RETRY, Event.ASKED)
            return
        self.fault = ""
        await self._step(agent, event, found)

    async def _write_busy(self, agent: _Agent, *, first: bool) -> None:
        try:
            if not self._presences.may_write:
                return
            await self._presences.write(agent.oid, self._options.written, self._options.lifetime)
        except GraphUnavailable as error:
            self._failed("write", error)
            refused = first and not error.sent
            await self._step(agent, Event.REFUSED if refused else Event.NOT_WRITTEN, None)
        except TeamsError as error:
            self._failed("write", error)
            certain = first and isinstance(error, GraphError)
            await self._step(agent, Event.REFUSED if certain else Event.NOT_WRITTEN, None)
        else:
            self.fault = ""
            await self._step(agent, Event.WRITTEN, None)

    async def _write(self, write: Callable[[str], Awaitable[None]], agent: _Agent) -> None:
        try:
            await write(agent.oid)
        except TeamsError as error:
            self._failed("write", error)

    def _failed(self, what: str, error: Exception) -> None:
        self.fault = f"{what}: {error}"
        log.warning("event=busy_sync_trouble what=%s cause=%s", what, error)

    def _later(self, agent: _Agent, name: str, seconds: float, event: Event) -> None:
        self._never(agent, name)
        agent.timers[name] = self._clock.call_later(seconds, lambda: self._post(agent, event))

    def _never(self, agent: _Agent, name: str) -> None:
        timer = agent.timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _read_later(self, agent: _Agent, name: str, seconds: float, event: Event) -> None:
        self._never(agent, name)
        agent.timers[name] = self._clock.call_later(
            seconds, lambda: self._put(agent, _Item(event, read=True))
        )
