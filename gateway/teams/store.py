"""What this room remembers: sealed JSON documents by shelf and key, in the gateway's database.

Account, users, token caches, subscriptions, notifications not yet worked off, busy sync: few, small, and all
of them confidential, so they are one table of sealed documents and not a schema.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from gateway.cdr import tables
from gateway.teams.errors import StoreFault
from gateway.teams.vault import Vault

T = TypeVar("T")
Document = dict[str, Any]


class Shelf(StrEnum):
    ACCOUNT = "account"
    USER = "user"
    TOKENS = "tokens"
    CERTIFICATE = "certificate"
    SUBSCRIPTION = "subscription"
    INBOX = "inbox"
    SYNC = "sync"
    FAVOURITE = "favourite"
    SEEN = "seen"
    WEB_CHAT = "web_chat"
    WEB_CHAT_MESSAGE = "web_chat_message"
    WEB_CHAT_EVENT = "web_chat_event"


VERSION_TABLE = "teams_schema"
MIGRATIONS = Path(__file__).parent / "migrations"
_CLAIM = 0x7465_616D
metadata = MetaData()
documents = Table(
    "teams_document",
    metadata,
    Column("shelf", String(32), primary_key=True),
    Column("key", String(300), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)


class Store:
    """All use of the database is in one thread of its own. Every method may raise StoreFault."""

    def __init__(self, url: str, vault: Vault) -> None:
        self._url, self._vault = url, vault
        self._engine: Engine | None = None
        self._claim: Connection | None = None
        self._thread = ThreadPoolExecutor(1, "teams-store")

    async def open(self) -> None:
        await self._run(self._open)

    async def claim(self) -> bool:
        """Be the one gateway that runs Teams on this database, as long as it is open; True if we are.

        Two would tell each other's echoes from calls, and have each other's subscriptions refused. PostgreSQL
        keeps the claim for as long as our connection lives; an SQLite file has one gateway anyway.
        """
        return await self._run(self._claimed)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._dispose)
        self._thread.shutdown()

    async def put(self, shelf: Shelf, key: str, document: Document) -> None:
        await self.put_many(shelf, {key: document})

    async def put_many(self, shelf: Shelf, found: dict[str, Document]) -> None:
        """All of them or none, in one transaction."""
        await self.put_all([(shelf, key, document) for key, document in found.items()])

    async def put_all(self, found: Sequence[tuple[Shelf, str, Document]]) -> None:
        """Of several shelves, all of them or none."""
        await self._run(lambda: self._put(found))

    async def get(self, shelf: Shelf, key: str) -> Document | None:
        return (await self._run(lambda: self._select(shelf, key))).get(key)

    async def all(self, shelf: Shelf) -> dict[str, Document]:
        """By key, in the keys' order."""
        return await self._run(lambda: self._select(shelf, None))

    async def keys(self, shelf: Shelf) -> list[str]:
        """In their order."""
        return await self._run(lambda: self._keys(shelf))

    async def remove(self, shelf: Shelf, *keys: str) -> None:
        if keys:
            await self._run(lambda: self._delete(shelf, keys))

    async def clear(self, *shelves: Shelf) -> None:
        await self._run(lambda: self._clear(shelves))

    async def _run(self, job: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        except (SQLAlchemyError, OSError) as error:
            raise StoreFault(f"the database cannot be used: {type(error).__name__}") from None

    def _open(self) -> None:
        self._vault.open()
        self._dispose()
        engine = tables.make(self._url)
        try:
            tables.migrate(engine, MIGRATIONS, table=VERSION_TABLE)
        except BaseException:
            engine.dispose()
            raise
        self._engine = engine

    def _claimed(self) -> bool:
        if self._opened.dialect.name != "postgresql":
            return True
        if self._claim is not None:
            try:
                self._claim.execute(text("SELECT 1"))
            except SQLAlchemyError:
                self._unclaim()
            else:
                return True
        connection = self._opened.connect().execution_options(isolation_level="AUTOCOMMIT")
        if connection.execute(text(f"SELECT pg_try_advisory_lock({_CLAIM})")).scalar():
            self._claim = connection
            return True
        connection.close()
        return False

    def _unclaim(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            # Not back into the pool, where the claim would live on.
            claim.invalidate()
            claim.close()

    def _dispose(self) -> None:
        self._unclaim()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @property
    def _opened(self) -> Engine:
        if self._engine is None:
            raise StoreFault("the store is not open")
        return self._engine

    def _put(self, found: Sequence[tuple[Shelf, str, Document]]) -> None:
        rows = [
            {"shelf": shelf.value, "key": key, "sealed": self._vault.seal(json.dumps(document).encode())}
            for shelf, key, document in found
        ]
        with self._opened.begin() as connection:
            for row in rows:
                here = (documents.c.shelf == row["shelf"]) & (documents.c.key == row["key"])
                connection.execute(delete(documents).where(here))
            if rows:
                connection.execute(insert(documents), rows)

    def _select(self, shelf: Shelf, key: str | None) -> dict[str, Document]:
        wanted = select(documents.c.key, documents.c.sealed).where(documents.c.shelf == shelf.value)
        if key is not None:
            wanted = wanted.where(documents.c.key == key)
        with self._opened.connect() as connection:
            rows = connection.execute(wanted.order_by(documents.c.key)).all()
        return {row.key: json.loads(self._vault.unseal(row.sealed)) for row in rows}

    def _keys(self, shelf: Shelf) -> list[str]:
        wanted = select(documents.c.key).where(documents.c.shelf == shelf.value).order_by(documents.c.key)
        with self._opened.connect() as connection:
            return list(connection.execute(wanted).scalars())

    def _delete(self, shelf: Shelf, keys: tuple[str, ...]) -> None:
        with self._opened.begin() as connection:
            here = (documents.c.shelf == shelf.value) & documents.c.key.in_(keys)
            connection.execute(delete(documents).where(here))

    def _clear(self, shelves: tuple[Shelf, ...]) -> None:
        names = [shelf.value for shelf in shelves]
        with self._opened.begin() as connection:
            connection.execute(delete(documents).where(documents.c.shelf.in_(names)))
