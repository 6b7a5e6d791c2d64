"""The agents' room as a part of the gateway's life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from gateway.agents.accounts import Accounts
from gateway.agents.activity import Who
from gateway.agents.activity_writer import ActivityWriter
from gateway.agents.after_call import AfterCall
from gateway.agents.agents import Agents
from gateway.agents.audit import AuditLog
from gateway.agents.database import AgentDatabase
from gateway.agents.journal import AgentJournal
from gateway.agents.roster import Roster
from gateway.agents.sessions import Sessions
from gateway.app import Health
from gateway.cdr.call_state import CallState, Work
from gateway.cdr.journal import Journal
from gateway.clock import Clock, LoopClock
from gateway.config_models import Config
from gateway.model import CallId

log = logging.getLogger("tandem.agents")

_RETRY = 1.0
_AT_START = 8.0
"""Seconds for the roster: a database that hangs must not keep calls waiting for the gateway."""
_RELOAD = 60
"""Seconds between two looks at what another gateway changed in the roster."""


class AgentsPart:
    """After the recorder, whose running calls it takes over, and before what ends the calls that are lost.

    running:   the calls that were up when the gateway stopped
    worked_on: after-call work that lasts as far as the calls' journal tells
    records_clock: that of the calls' records, with which those of agents have to agree
    """

    name = "agents"

    def __init__(
        self,
        config: Config,
        journal: Journal,
        running: Callable[[], Iterable[CallState]],
        clock: Clock | None = None,
        *,
        worked_on: Callable[[], Iterable[tuple[CallId, Work]]] = tuple,
        records_clock: Clock | None = None,
    ) -> None:
        clock = clock or LoopClock()
        records_clock = records_clock or clock
        self._directory = config.gateway.state_dir / "agents"
        self._calls, self._running, self._worked_on = journal, running, worked_on
        self.database = AgentDatabase(config.database_url)
        self.roster = Roster(config.agents, self.database)
        self.journal = AgentJournal()
        self.agents = Agents(self.journal, self.roster, config.agent_states, records_clock)
        self.writer = ActivityWriter(
            self.journal, self.database, self._who, records_clock, running=self.agents.running
        )
        self.after_call = AfterCall(self.journal, journal)
        self.accounts = Accounts(self.database)
        self.sessions = Sessions(
            self.database, clock, idle=config.sign_in.idle_timeout, longest=config.sign_in.longest
        )
        self.audit = AuditLog(self.database, clock)
        self._unsubscribe: Callable[[], None] = lambda: None
        self._caring: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """JournalError when another gateway has the directory. A database that is down is no error here."""
        entries = await self.journal.open(self._directory)
        await self.roster.load(_AT_START)
        self.agents.start(entries, self._running())
        self.after_call.start(entries, self.agents.status, self._worked_on())
        self._unsubscribe = self._calls.subscribe(self.agents.observe)
        self.writer.start(entries)
        self._caring = asyncio.create_task(self._care(), name="agents-care")

    async def stop(self) -> None:
        """Harmless twice."""
        caring, self._caring = self._caring, None
        if caring is None:
            return
        caring.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await caring
        self._unsubscribe()
        await self.agents.stop()
        await self.after_call.stop()
        await self.writer.stop()
        await self.journal.close()
        await self.database.close()

    def health(self) -> Health:
        """A disk that does not take agents' states makes the gateway unwell; a database that is down not."""
        if self.journal.fault:
            return Health(False, f"agents' states cannot be kept: {self.journal.fault}")
        return Health(True, self.writer.fault)

    async def _care(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(_RETRY)
            turn += 1
            try:
                await self.journal.retry()
                if turn % _RELOAD == 0:
                    await self.roster.load()
            except Exception:
                log.exception("agents_care_failed")

    def _who(self, login: str) -> Who:
        agent = self.roster.get(login)
        return Who.of(agent.name, agent.team) if agent is not None else Who()
