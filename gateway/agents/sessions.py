"""Sessions of people who signed in, in the database: signing out or disabling an account acts at once, on
every gateway.

The browser has a random token; the database only its SHA-256, so a copy of the database opens nothing. The
token against cross-site requests follows from the session's and needs no place of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from gateway.agents import tables
from gateway.agents.database import AgentDatabase
from gateway.agents.people import Person, Source, UserRole
from gateway.clock import Clock

_TOUCH = timedelta(seconds=30)
"""`seen_at` is written no more often."""


@dataclass(frozen=True, slots=True)
class Session:
    """A person's session; `csrf` is what a state-changing request must show beside the cookie."""

    person: Person
    csrf: str
    expires_at: datetime


def csrf_of(token: str) -> str:
    """The token against cross-site requests that belongs to a session's token."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Sessions:
    """idle: seconds without a request after which a session ends; longest: and in any case."""

    def __init__(self, database: AgentDatabase, clock: Clock, *, idle: float, longest: float) -> None:
        self._database, self._clock = database, clock
        self._idle, self._longest = timedelta(seconds=idle), timedelta(seconds=longest)

    async def begin(self, person: Person, *, instead_of: str = "") -> str:
        """The token of a new session; the one of `instead_of` (a token) ends. StoreUnavailable."""
        token, now = secrets.token_urlsafe(32), self._clock.wall()
        values = {
            "digest": _digest(token),
            "login": person.login,
            "name": person.name,
            "role": str(person.role),
            "source": str(person.source),
            "created_at": now,
            "seen_at": now,
        }

        def write(connection: Connection) -> None:
            columns = tables.session.c
            old = or_(columns.created_at <= now - self._longest, columns.seen_at <= now - self._idle)
            if instead_of:
                old = or_(old, columns.digest == _digest(instead_of))
            connection.execute(delete(tables.session).where(old))
            connection.execute(insert(tables.session).values(**values))

        await self._database.run(write)
        return token

    async def find(self, token: str, *, touch: bool = True) -> Session | None:
        """The session that `token` opens, if it still does. touch: asking keeps it from going idle."""
        now, digest = self._clock.wall(), _digest(token)

        def read(connection: Connection) -> dict[str, Any] | None:
            mine, account = tables.session, tables.account
            joined = mine.outerjoin(account, account.c.login == mine.c.login)
            wanted = select(mine, account.c.disabled, account.c.role.label("role_now")).select_from(joined)
            row = connection.execute(wanted.where(mine.c.digest == digest)).mappings().first()
            if row is None:
                return None
            if touch and now - row["seen_at"] >= _TOUCH and self._open(dict(row), now):
                seen = update(mine).where(mine.c.digest == digest).values(seen_at=now)
                connection.execute(seen)
            return dict(row)

        row = await self._database.run(read)
        if row is None or not self._open(row, now):
            return None
        local = row["source"] == Source.LOCAL
        if local and (row["disabled"] is None or row["disabled"]):
            return None
        role = UserRole(row["role_now"] if local else row["role"])
        person = Person(row["login"], row["name"], role, Source(row["source"]))
        return Session(person, csrf_of(token), row["created_at"] + self._longest)

    def _open(self, row: dict[str, Any], now: datetime) -> bool:
        return bool(now - row["seen_at"] < self._idle and now - row["created_at"] < self._longest)

    async def end(self, token: str) -> None:
        """It opens nothing any more; harmless twice."""
        columns = tables.session.c
        await self._database.run(
            lambda connection: connection.execute(
                delete(tables.session).where(columns.digest == _digest(token))
            )
        )

    async def end_all(self, login: str, source: Source) -> int:
        """End a person's sessions everywhere; how many there were."""
        columns = tables.session.c
        whose = and_(columns.login == login, columns.source == str(source))
        return await self._database.run(
            lambda connection: connection.execute(delete(tables.session).where(whose)).rowcount
        )
