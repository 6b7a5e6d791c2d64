"""The agents' room in the database: its tables and their migrations.

The same database as call detail (`[gateway] database`), with a chain of migrations of its own: the two rooms
change at different times, and a table of one is never touched by the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)

from gateway.cdr import tables as house
from gateway.cdr.tables import UtcTime

VERSION_TABLE = "agents_schema"
MIGRATIONS = Path(__file__).parent / "migrations"

metadata = MetaData()


def _text(name: str, **more: Any) -> Column[str]:
    return Column(name, String(), nullable=False, **more)


agent = Table(
    "agent",
    metadata,
    _text("login", primary_key=True),
    _text("name"),
    _text("team"),
    Column("numbers", JSON(), nullable=False),
    Column("teams_user", String()),
    Column("after_call_work", Float()),
)

agent_activity = Table(
    "agent_activity",
    metadata,
    _text("id", primary_key=True),
    _text("activity_id"),
    _text("login_id"),
    _text("first_name"),
    _text("last_name"),
    _text("team_name"),
    Column("start_time", UtcTime(), nullable=False),
    _text("activity"),
    *(Column(name, Integer(), nullable=False) for name in ("duration", "talk_time", "hold_time", "acw_time")),
    _text("detail"),
    _text("media_type"),
    _text("other_party_phone"),
    _text("global_interaction_id"),
    _text("call_id"),
)
Index("agent_activity_start", agent_activity.c.start_time, agent_activity.c.id)
Index("agent_activity_login", agent_activity.c.login_id, agent_activity.c.start_time, agent_activity.c.id)

account = Table(
    "account",
    metadata,
    _text("login", primary_key=True),
    _text("name"),
    _text("role"),
    _text("password"),
    Column("disabled", Boolean(), nullable=False),
    Column("created_at", UtcTime(), nullable=False),
)

session = Table(
    "session",
    metadata,
    _text("digest", primary_key=True),
    _text("login"),
    _text("name"),
    _text("role"),
    _text("source"),
    Column("created_at", UtcTime(), nullable=False),
    Column("seen_at", UtcTime(), nullable=False),
)
Index("session_login", session.c.login)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer(), primary_key=True, autoincrement=True),
    Column("at", UtcTime(), nullable=False),
    _text("who"),
    _text("what"),
    _text("target"),
    _text("remote"),
    _text("result"),
    _text("detail"),
)


def migrate(engine: Engine) -> None:
    """Bring the schema up to date; two gateways that start together do it one after the other."""
    house.migrate(engine, MIGRATIONS, table=VERSION_TABLE)
