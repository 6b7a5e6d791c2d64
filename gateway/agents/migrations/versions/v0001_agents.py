"""Agents, their activity, accounts, sessions, and an audit log that only grows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_REFUSAL = "the audit log only grows"


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def _key(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.String(), primary_key=True)


def _moment(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def upgrade() -> None:
    op.create_table(
        "agent",
        _key("login"),
        *_texts("name", "team"),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("teams_user", sa.String()),
        sa.Column("after_call_work", sa.Float()),
    )
    op.create_table(
        "agent_activity",
        _key("id"),
        *_texts("activity_id", "login_id", "first_name", "last_name", "team_name"),
        _moment("start_time"),
        *_texts("activity"),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("duration", "talk_time", "hold_time", "acw_time")
        ),
        *_texts("detail", "media_type", "other_party_phone", "global_interaction_id", "call_id"),
    )
    op.create_index("agent_activity_start", "agent_activity", ["start_time", "id"])
    op.create_index("agent_activity_login", "agent_activity", ["login_id", "start_time", "id"])
    op.create_table(
        "account",
        _key("login"),
        *_texts("name", "role", "password"),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        _moment("created_at"),
    )
    op.create_table(
        "session",
        _key("digest"),
        *_texts("login", "name", "role", "source"),
        _moment("created_at"),
        _moment("seen_at"),
    )
    op.create_index("session_login", "session", ["login"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        _moment("at"),
        *_texts("who", "what", "target", "remote", "result", "detail"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE ON audit "
            "FOR EACH ROW EXECUTE FUNCTION audit_only_grows()"
        )
    else:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )


def downgrade() -> None:
    for name in ("audit", "session", "account", "agent_activity", "agent"):
        op.drop_table(name)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_only_grows()")
