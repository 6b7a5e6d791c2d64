"""Busy sync between a desk and the Graph stand-in. Notifications come straight from the presence engine, late
and as often as a test says; how they travel for real is tested with the receiver."""

from __future__ import annotations

import asyncio

from gateway.teams.client import GraphClient
from gateway.teams.presence_graph import Presences, Shown
from gateway.teams.presence_rules import Memory, Options
from gateway.teams.presence_sync import BusySync
from gateway.teams.store import Store
from tests.peers.graph import CLIENT, GraphSim
from tests.support.clock import FakeClock
from tests.teams.acting import next_pause
from tests.teams.conftest import ANN
from tests.teams.desks import TableDesks

LOGIN = "ann"


class Stage:
    """Use as `async with`. One agent, Ready, whose Teams client says Available."""

    def __init__(
        self,
        sim: GraphSim,
        client: GraphClient,
        store: Store,
        clock: FakeClock,
        options: Options | None = None,
    ) -> None:
        self.sim, self.client, self.store, self.clock = sim, client, store, clock
        self.options = options or Options()
        self.desks = TableDesks(LOGIN)
        self.delay = 0.0
        self.lose = False
        self.numbered = True
        self.sync = self._make()
        engine = sim.presence
        engine._changed = self._presence_changed

    def _make(self) -> BusySync:
        return BusySync(self.desks, Presences(self.client, CLIENT), self.store, self.clock, self.options)

    async def __aenter__(self) -> Stage:
        self.sim.presence.client(ANN, "Available", "Available")
        self.desks.ready(LOGIN)
        await self.sync.start({LOGIN: ANN})
        await self.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sync.stop()

    async def restart(self, *, crash: bool = False) -> None:
        """The gateway goes and comes again; after a crash nothing was released."""
        if crash:
            self.sync._unsubscribe()
            for agent in self.sync._agents.values():
                for timer in agent.timers.values():
                    timer.cancel()
            self.sync._stopping = True
        else:
            await self.sync.stop()
        self.sync = self._make()

    async def start(self) -> None:
        await self.sync.start({LOGIN: ANN})
        await self.settle()

    def _presence_changed(self, oid: str) -> None:
        if self.lose:
            return
        sequence = self.sim.presence.sequence(oid) if self.numbered else None
        found = Shown(self.sim.presence.shown(oid), sequence)
        if self.delay:
            self.clock.call_later(self.delay, lambda: self.sync.notified(oid, found))
        else:
            self.sync.notified(oid, found)

    async def settle(self) -> None:
        """Until nothing is under way but waiting for the clock."""
        async with asyncio.timeout(10):
            quiet = 0
            while quiet < 3:
                await asyncio.sleep(0.001)
                due = next_pause(self.clock)
                if due is not None:
                    self.clock.advance(due - self.clock.now())
                quiet = quiet + 1 if self.sync.idle else 0

    async def wait(self, seconds: float) -> None:
        """Let time pass, a second at a time where something may happen."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            upcoming = [due for due, _, timer in self.clock._heap if timer.callback is not None]
            step = min([end, *(due for due in upcoming if due > self.clock.now())]) - self.clock.now()
            self.clock.advance(step)
            await self.settle()

    async def teams(self, availability: str, activity: str) -> None:
        """The user's Teams client reports something."""
        self.sim.presence.client(ANN, availability, activity)
        await self.settle()

    async def desk(self, *actions: str) -> None:
        for action in actions:
            getattr(self.desks, action)(LOGIN)
            await self.settle()

    @property
    def state(self) -> tuple[str, str]:
        state, reason = self.desks.state(LOGIN)
        return state.value, reason

    @property
    def shown(self) -> tuple[str, str]:
        return self.sim.presence.shown(ANN)

    @property
    def memory(self) -> Memory:
        return self.sync.memory(LOGIN)

    @property
    def ours(self) -> tuple[str, str] | None:
        """What our session in Teams says; None where we have none."""
        return self.sim.presence.sessions(ANN).get(CLIENT)

    def writes(self) -> int:
        return self.sim.count("POST", "setPresence")
