"""What busy sync asks of the agents, and `gateway.agents` as that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.agents.agents import Agents
from gateway.agents.events import AgentStateChanged
from gateway.agents.journal import AgentEntry
from gateway.agents.states import EXTERNAL_BUSY
from gateway.teams.presence_rules import Desk

BY = "teams"
"""Who changed an agent's state, in the agents' journal."""
Listener = Callable[[str, Desk], None]


class Desks(Protocol):
    """Agents by login. Keeping the state before, and forgetting it (N12), is theirs."""

    def desk(self, login: str) -> Desk: ...

    async def busy(self, login: str) -> None:
        """Not Ready, busy in an external system; the state before is kept."""
        ...

    async def free(self, login: str) -> None:
        """Back to the state before, only if the agent is still so."""
        ...

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener(login, desk)` after each change; returns the way to stop."""
        ...


class AgentDesks:
    """The gateway's agents."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    def desk(self, login: str) -> Desk:
        status = self._agents.status(login)
        return Desk(status.state, status.reason)

    async def busy(self, login: str) -> None:
        await self._agents.external_busy(login, EXTERNAL_BUSY, by=BY)

    async def free(self, login: str) -> None:
        await self._agents.external_free(login, EXTERNAL_BUSY, by=BY)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        def heard(entry: AgentEntry) -> None:
            event = entry.event
            if isinstance(event, AgentStateChanged):
                listener(event.login, Desk(event.status.state, event.status.reason, event.before))

        return self._agents.subscribe(heard)
