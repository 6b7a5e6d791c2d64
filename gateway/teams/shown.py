"""Presence of the users that agents look at: read with one request for all of them while pages are open.

A presence subscription is one a user and application, and those are the agents' own (facts/graph.md 1.2), so
whoever else is on a screen is asked for: 650 users a request, four requests a minute, of 3,000 allowed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gateway.clock import Clock, TimerHandle
from gateway.teams.errors import TeamsError
from gateway.teams.presence_graph import Presences
from gateway.teams.presence_rules import Pair
from gateway.teams.tasks import Tasks

log = logging.getLogger("tandem.teams")

EVERY = 15.0
MOST = 100
"""Users one agent may have on his screen."""


class ShownPresences:
    """changed: told the login of an agent for whom a presence is another one."""

    def __init__(self, presences: Presences, clock: Clock, changed: Callable[[str], None]) -> None:
        self._presences, self._clock, self._changed = presences, clock, changed
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._pages: dict[str, int] = {}
        self._known: dict[str, Pair] = {}
        self._tasks = Tasks("shown")
        self._timer: TimerHandle | None = None

    async def show(self, login: str, oids: Sequence[str]) -> dict[str, Pair]:
        """In the place of those before; their presences now. What GraphClient raises."""
        wanted = tuple(dict.fromkeys(oids))[:MOST]
        new = [oid for oid in wanted if oid not in self._known]
        self._wanted[login] = wanted
        self._tidy()
        if new:
            for oid, found in (await self._presences.read_many(new)).items():
                self._known[oid] = found.pair
        self._plan()
        return self.of(login)

    def of(self, login: str) -> dict[str, Pair]:
        """What is known of those on this agent's screen."""
        return {oid: self._known[oid] for oid in self._wanted.get(login, ()) if oid in self._known}

    def looking(self, login: str, pages: int) -> None:
        """How many pages the agent has open; without one nothing is asked for him."""
        if pages:
            self._pages[login] = pages
        else:
            self._pages.pop(login, None)
            self._wanted.pop(login, None)
            self._tidy()
        self._plan()

    def learned(self, oid: str, pair: Pair) -> None:
        """A notification said so."""
        if self._known.get(oid, pair) != pair:
            self._take({oid: pair})

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.close()

    @property
    def idle(self) -> bool:
        return self._tasks.idle

    def _tidy(self) -> None:
        wanted = {oid for oids in self._wanted.values() for oid in oids}
        self._known = {oid: pair for oid, pair in self._known.items() if oid in wanted}

    def _asked(self) -> list[str]:
        found = {oid for login in self._pages for oid in self._wanted.get(login, ())}
        return sorted(found)

    def _plan(self) -> None:
        if self._timer is None and self._asked():
            self._timer = self._clock.call_later(EVERY, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._asked():
            self._tasks.spawn(self._read(), "presences")

    async def _read(self) -> None:
        try:
            found = await self._presences.read_many(self._asked())
            self._take({oid: one.pair for oid, one in found.items()})
        except TeamsError as error:
            log.info("event=presences_not_read cause=%s", error)
        finally:
            self._plan()

    def _take(self, found: dict[str, Pair]) -> None:
        new = {oid: pair for oid, pair in found.items() if self._known.get(oid) != pair}
        self._known |= new
        for login, oids in list(self._wanted.items()):
            if not new.keys().isdisjoint(oids):
                self._changed(login)
