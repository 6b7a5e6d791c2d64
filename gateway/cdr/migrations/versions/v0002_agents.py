"""Which agents had a leg in which call, so that a question for an agent finds participants too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.cdr.columns import COLUMNS

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LEGS = {
    "postgresql": (
        "SELECT c.id, leg ->> 'login', c.start_time FROM call_detail c, jsonb_array_elements("
        "CASE jsonb_typeof(c.detail -> 'legs') WHEN 'array' THEN c.detail -> 'legs' ELSE '[]' END) AS leg"
    ),
    "sqlite": (
        "SELECT c.id, json_extract(leg.value, '$.login'), c.start_time "
        "FROM call_detail c, json_each(c.detail, '$.legs') AS leg"
    ),
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.create_table(
        "call_detail_agent",
        sa.Column("id", sa.String(), primary_key=True, comment="call_detail.id"),
        sa.Column("login_id", sa.String(), primary_key=True, comment="an agent who had a leg in the call"),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False, comment="call_detail.start_time"),
    )
    op.execute(
        "INSERT INTO call_detail_agent (id, login_id, start_time) "
        "SELECT DISTINCT id, login, start_time FROM ("
        "SELECT id, caller_login_id AS login, start_time FROM call_detail UNION ALL "
        f"SELECT id, callee_login_id, start_time FROM call_detail UNION ALL {_LEGS[dialect]}"
        ") AS found WHERE login <> ''"
    )
    op.create_index("call_detail_agent_login", "call_detail_agent", ["login_id", "start_time", "id"])
    if dialect == "postgresql":
        for column in COLUMNS:
            op.alter_column("call_detail", column.name, comment=f"{column.rule} ({column.unit})")


def downgrade() -> None:
    op.drop_table("call_detail_agent")
