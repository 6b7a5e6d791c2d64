"""Who is an agent: those of the configuration, and those of the database beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from gateway.agents import tables
from gateway.agents.database import AgentDatabase, StoreUnavailable
from gateway.config_models import Agent
from gateway.errors import TandemError

log = logging.getLogger("tandem.agents")

Listener = Callable[[Sequence[Agent]], None]


class RosterConflict(TandemError):
    """A login or number that is somebody else's already."""


class Roster:
    """Agents by login; the configuration's cannot be changed from here.

    changed: told all agents whenever they are others than before
    """

    def __init__(self, configured: Sequence[Agent], database: AgentDatabase) -> None:
        self._configured = {agent.login: agent for agent in configured}
        self._database = database
        self._agents = dict(self._configured)
        self.changed: list[Listener] = []

    @property
    def agents(self) -> Sequence[Agent]:
        return tuple(self._agents.values())

    def get(self, login: str) -> Agent | None:
        return self._agents.get(login)

    def by_teams_user(self, *names: str) -> Agent | None:
        """Whose `teams_user` is one of `names` (object id, user principal name), in any case of letters."""
        wanted = {name.casefold() for name in names if name}
        return next((a for a in self.agents if (a.teams_user or "").casefold() in wanted), None)

    async def load(self, patience: float = 30.0) -> None:
        """Read the database again; what it cannot tell within `patience` seconds stays as it was."""
        try:
            self._take(await self._database.run(_read, patience))
        except StoreUnavailable as error:
            log.warning("roster_not_read cause=%s", error)

    async def put(self, agent: Agent) -> None:
        """Add or change an agent of the database. RosterConflict, StoreUnavailable."""
        if agent.login in self._configured:
            raise RosterConflict(f"{agent.login!r} is an agent of the configuration file: change him there")
        taken = _taken(other for other in self.agents if other.login != agent.login)
        for number in agent.numbers:
            if number in taken:
                raise RosterConflict(f"{number} is {taken[number]!r}'s number already")

        def write(connection: Connection) -> list[Agent]:
            connection.execute(delete(tables.agent).where(tables.agent.c.login == agent.login))
            connection.execute(insert(tables.agent).values(**_values(agent)))
            return _read(connection)

        self._take(await self._database.run(write))

    async def remove(self, login: str) -> bool:
        """False when the database has no such agent. RosterConflict for one of the configuration."""
        if login in self._configured:
            raise RosterConflict(f"{login!r} is an agent of the configuration file: remove him there")

        def write(connection: Connection) -> tuple[bool, list[Agent]]:
            gone = connection.execute(delete(tables.agent).where(tables.agent.c.login == login)).rowcount
            return gone > 0, _read(connection)

        found, rest = await self._database.run(write)
        self._take(rest)
        return found

    def _take(self, stored: Iterable[Agent]) -> None:
        agents = dict(self._configured)
        for agent in stored:
            taken = _taken(agents.values())
            clash = [number for number in agent.numbers if number in taken]
            if agent.login in agents or clash:
                log.warning("agent_left_out login=%s cause=login_or_number_taken", agent.login)
                continue
            agents[agent.login] = agent
        if agents != self._agents:
            self._agents = agents
            for listener in self.changed:
                listener(self.agents)


def _taken(agents: Iterable[Agent]) -> dict[str, str]:
    return {number: agent.login for agent in agents for number in agent.numbers}


def _values(agent: Agent) -> dict[str, Any]:
    return {
        "login": agent.login,
        "name": agent.name,
        "team": agent.team,
        "numbers": list(agent.numbers),
        "teams_user": agent.teams_user,
        "after_call_work": agent.after_call_work,
    }


def _read(connection: Connection) -> list[Agent]:
    found = []
    for row in connection.execute(select(tables.agent).order_by(tables.agent.c.login)).mappings():
        values = dict(row)
        found.append(Agent(**{**values, "numbers": tuple(values["numbers"])}))
    return found
