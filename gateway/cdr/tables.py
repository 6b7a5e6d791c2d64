"""Call detail in SQL: the tables (made from `columns.COLUMNS`), the engine, the migrations.

The engine is SQLAlchemy's blocking one, used in threads: its drivers are the ones everybody runs, and a
thread can neither block nor be cancelled half-way through a commit.
"""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.types import TypeDecorator, TypeEngine

from gateway.cdr.columns import COLUMNS, Kind

VERSION_TABLE = "call_detail_schema"
_MIGRATION_LOCK = 0x7461_6E64
_TRIES, _PAUSE = 40, 0.05
_STATEMENT = 60
"""Seconds that PostgreSQL lets a statement run."""
PATIENCE = _STATEMENT + 5.0
"""Seconds after which a database that has said nothing is silent, and not only slow."""


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC on our side; timestamptz in PostgreSQL, UTC text in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

_TYPES: dict[Kind, TypeEngine[Any]] = {
    Kind.TEXT: String(),
    Kind.TIME: UtcTime(),
    Kind.INTEGER: Integer(),
    Kind.REAL: Float(),
    Kind.JSON: JSON().with_variant(JSONB(), "postgresql"),
}

call_detail = Table(
    "call_detail",
    metadata,
    *(
        Column(
            column.name,
            _TYPES[column.kind],
            primary_key=column.name == "id",
            nullable=column.nullable,
            comment=f"{column.rule} ({column.unit})",
        )
        for column in COLUMNS
    ),
)
Index("call_detail_start", call_detail.c.start_time, call_detail.c.id)
AGENTS = ("caller_login_id", "callee_login_id")
"""What an index made of these serves is Grafana; `call_detail_agent` has the participants too."""
NUMBERS = (
    "from_phone",
    "original_destination_phone",
    "connected_to_phone",
    "transferred_from_phone",
    "transferred_to_phone",
)
TRUNKS = ("caller_trunk", "callee_trunk")
for _name in ("global_interaction_id", *AGENTS, *NUMBERS, *TRUNKS):
    Index(f"call_detail_{_name}", call_detail.c[_name], call_detail.c.start_time, call_detail.c.id)

call_detail_agent = Table(
    "call_detail_agent",
    metadata,
    Column("id", String(), primary_key=True, comment="call_detail.id"),
    Column("login_id", String(), primary_key=True, comment="an agent who had a leg in the call"),
    Column("start_time", UtcTime(), nullable=False, comment="call_detail.start_time"),
)
Index(
    "call_detail_agent_login",
    call_detail_agent.c.login_id,
    call_detail_agent.c.start_time,
    call_detail_agent.c.id,
)


def make(url: str) -> Engine:
    """An engine for `sqlite:///path` or `postgresql://…`; connects when first used.

    SQLite: write-ahead log, full sync. PostgreSQL: psycopg, limits on connecting, on silence and on a
    statement, so that a dead server is an error within seconds and not a thread lost.
    """
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed,
            pool_size=2,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 5,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 20_000,
                "options": f"-c statement_timeout={_STATEMENT * 1000}",
                "application_name": "tandem",
            },
        )
    engine = create_engine(parsed)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("busy_timeout=10000", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    _write_ahead(cursor)
    cursor.close()


def _write_ahead(cursor: DBAPICursor) -> None:
    """Once for a database; SQLite does not wait for others who do so at the same moment."""
    for attempt in range(_TRIES):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE)
        else:
            return


def migrate(
    engine: Engine,
    scripts: Path = Path(__file__).parent / "migrations",
    version: str = "head",
    *,
    table: str = VERSION_TABLE,
) -> None:
    """Bring the schema up to date; two gateways that start together do it one after the other.

    scripts, table: the chain of migrations and where it is noted how far it is; each room has its own
    """
    if version == "head" and _version(engine, table) == newest(scripts):
        return
    # not at the top: a gateway whose schema is up to date does not wait for Alembic at every start
    from alembic import command
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(scripts))
    settings.set_main_option("path_separator", "os")
    with engine.connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        elif engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        settings.attributes["connection"] = connection
        command.upgrade(settings, version)


def newest(scripts: Path) -> str:
    """The revision of the last migration by its file's name (v0003_view.py is 0003)."""
    return max(file.name for file in (scripts / "versions").glob("v*.py"))[1:5]


def _version(engine: Engine, table: str) -> str | None:
    """How far the chain is; None for a database that knows nothing of it."""
    with engine.connect() as connection:
        if not inspect(connection).has_table(table):
            return None
        return connection.execute(text(f"SELECT version_num FROM {table}")).scalar()
