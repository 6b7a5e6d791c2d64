"""Local accounts: for sites without Entra ID, and for the first administrator of every site.

Passwords are kept as Argon2id hashes (RFC 9106; the parameters are OWASP's recommendation: 19 MiB, two
passes). Hashing runs in a thread, two at a time at most, so that a storm of sign-ins cannot take the memory.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, delete, insert, select, update

from gateway.agents import tables
from gateway.agents.database import AgentDatabase
from gateway.agents.people import Person, UserRole
from gateway.errors import TandemError

SHORTEST = 10
"""Characters (NIST SP 800-63B asks for eight where nothing else is checked)."""
LONGEST = 200


class AccountError(TandemError):
    """What the operator asked for cannot be: a login that is taken or unknown, a password too short."""


@dataclass(frozen=True, slots=True)
class Account:
    """All but the password."""

    login: str
    name: str
    role: UserRole
    disabled: bool
    created_at: datetime


class Accounts:
    """`hasher` None = the real one; tests of other things take a cheap one."""

    def __init__(self, database: AgentDatabase, hasher: PasswordHasher | None = None) -> None:
        self._database = database
        self._hasher = hasher or PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._turns = asyncio.Semaphore(2)
        self._nobody = ""

    async def add(self, login: str, role: UserRole, password: str, *, name: str = "") -> None:
        """AccountError, StoreUnavailable."""
        if not 0 < len(login) <= 254 or login != login.strip() or not login.isprintable():
            raise AccountError("a login has 1 to 254 printable characters and no spaces around them")
        values = {
            "login": login,
            "name": name or login,
            "role": str(role),
            "password": await self._hash(password),
            "disabled": False,
            "created_at": datetime.now(UTC),
        }

        def write(connection: Connection) -> bool:
            if _exists(connection, login):
                return False
            connection.execute(insert(tables.account).values(**values))
            return True

        if not await self._database.run(write):
            raise AccountError(f"there is an account {login!r} already")

    async def set_password(self, login: str, password: str) -> None:
        """And end the account's sessions. AccountError, StoreUnavailable."""
        await self._update(login, password=await self._hash(password))

    async def set_disabled(self, login: str, disabled: bool) -> None:
        """Disabling ends the account's sessions at once. AccountError, StoreUnavailable."""
        await self._update(login, disabled=disabled)

    async def _update(self, login: str, **values: object) -> None:
        def write(connection: Connection) -> bool:
            if not _exists(connection, login):
                return False
            connection.execute(update(tables.account).where(tables.account.c.login == login).values(**values))
            local = (tables.session.c.login == login) & (tables.session.c.source == "local")
            connection.execute(delete(tables.session).where(local))
            return True

        if not await self._database.run(write):
            raise AccountError(f"there is no account {login!r}")

    async def all(self) -> list[Account]:
        """By login. StoreUnavailable."""
        columns = tables.account.c
        wanted = select(
            columns.login, columns.name, columns.role, columns.disabled, columns.created_at
        ).order_by(columns.login)

        def read(connection: Connection) -> list[Account]:
            return [
                Account(**{**row, "role": UserRole(row["role"])})
                for row in connection.execute(wanted).mappings()
            ]

        return await self._database.run(read)

    async def check(self, login: str, password: str) -> Person | None:
        """The person, when the password is right and the account enabled; else None, after as long."""
        wanted = select(tables.account).where(tables.account.c.login == login)
        row = await self._database.run(lambda connection: connection.execute(wanted).mappings().first())
        async with self._turns:
            if not self._nobody:
                self._nobody = await asyncio.to_thread(self._hasher.hash, "nobody's password")
            stored = row["password"] if row is not None else self._nobody
            right = await asyncio.to_thread(self._verify, stored, password[:LONGEST])
        if row is None or not right or row["disabled"]:
            return None
        return Person(row["login"], row["name"], UserRole(row["role"]))

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _hash(self, password: str) -> str:
        if not SHORTEST <= len(password) <= LONGEST:
            raise AccountError(f"a password has {SHORTEST} to {LONGEST} characters")
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)


def _exists(connection: Connection, login: str) -> bool:
    wanted = select(tables.account.c.login).where(tables.account.c.login == login)
    return connection.execute(wanted).first() is not None
