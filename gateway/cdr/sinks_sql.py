"""Call detail into a SQL database: SQLite beside the gateway or a shared PostgreSQL; an upsert by row id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Engine, Insert, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from gateway.cdr import tables
from gateway.cdr.call_detail import CallDetail
from gateway.cdr.sinks import SinkRejected, SinkUnavailable
from gateway.threads import Threads


class SqlSink:
    """Writes rows in one transaction each batch; `url` as in `[gateway] database`.

    Migrations run when it opens. All use of the engine is in one thread of its own.
    """

    def __init__(self, url: str, name: str = "sql") -> None:
        self._url, self._name = url, name
        self._engine: Engine | None = None
        self._thread = Threads(f"sink-{name}")

    @property
    def name(self) -> str:
        return self._name

    async def open(self) -> None:
        await self._run(self._open)

    async def write(self, rows: Sequence[CallDetail]) -> None:
        if rows:
            await self._run(lambda: self._write(rows))

    async def close(self) -> None:
        """Waits for what the thread does; cancelled, it leaves a server that never answers to itself."""
        try:
            await self._thread.run(self._dispose)
        finally:
            self._thread.close(wait=False)

    async def _run(self, job: Callable[[], None]) -> None:
        try:
            await self._thread.run(job)
        except (DataError, IntegrityError) as error:
            raise SinkRejected(_brief(error)) from error
        except (SQLAlchemyError, OSError) as error:
            raise SinkUnavailable(_brief(error)) from error

    def _open(self) -> None:
        if self._engine is None:
            self._engine = tables.make(self._url)
        tables.migrate(self._engine)

    def _dispose(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _write(self, rows: Sequence[CallDetail]) -> None:
        assert self._engine is not None
        values = {row.id: {name: _clean(value) for name, value in row.values().items()} for row in rows}
        agents = {
            (row.id, login): {"id": row.id, "login_id": _clean(login), "start_time": row.start_time}
            for row in rows
            for login in row.agents
        }
        dialect = self._engine.dialect.name
        with self._engine.begin() as connection:
            connection.execute(upsert(dialect, tables.call_detail), list(values.values()))
            if agents:
                connection.execute(upsert(dialect, tables.call_detail_agent), list(agents.values()))


def upsert(dialect: str, table: Table) -> Insert:
    """Insert, or replace the row with the same primary key."""
    key = [column for column in table.c if column.primary_key]
    rest = [column.name for column in table.c if not column.primary_key]
    if dialect == "postgresql":
        statement = postgresql.insert(table)
        new = {name: statement.excluded[name] for name in rest}
        return statement.on_conflict_do_update(index_elements=key, set_=new)
    lite = sqlite.insert(table)
    new = {name: lite.excluded[name] for name in rest}
    return lite.on_conflict_do_update(index_elements=key, set_=new)


def _clean(value: Any) -> Any:
    """PostgreSQL keeps no NUL in text; what a peer sent must not make a row unwritable."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _brief(error: Exception) -> str:
    """The driver's words without the statement, its parameters and their personal data."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause).strip() else ''}"
