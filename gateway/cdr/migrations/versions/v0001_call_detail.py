"""The table of call detail, and the view that reports and Grafana read."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from gateway.cdr.columns import COLUMNS

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TEXT_BEFORE = ("global_interaction_id", "media_type", "type")
_TIMES = {"start_time": False, "answer_time": True, "end_time": False}
_NUMBERS = (
    "duration",
    "ivr_time",
    "queue_time",
    "pending_time",
    "talk_time",
    "hold_time",
    "hold_count",
    "max_hold",
    "acw_time",
)
_TEXT = (
    "from_phone",
    "original_destination_phone",
    "connected_to_phone",
    "transferred_from_phone",
    "transferred_to_phone",
    "caller_party_type",
    "callee_party_type",
    "caller_login_id",
    "callee_login_id",
    "caller_trunk",
    "callee_trunk",
    "disposition",
    "released_by",
)
_TEXT_AFTER = ("reason", "teams_correlation_id")
_INDEXED = (
    "global_interaction_id",
    "caller_login_id",
    "callee_login_id",
    "from_phone",
    "original_destination_phone",
    "connected_to_phone",
    "transferred_from_phone",
    "transferred_to_phone",
    "caller_trunk",
    "callee_trunk",
)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def upgrade() -> None:
    rules = {column.name: f"{column.rule} ({column.unit})" for column in COLUMNS}
    columns: list[sa.Column[Any]] = [
        sa.Column("id", sa.String(), primary_key=True),
        *map(_text, _TEXT_BEFORE),
        *(sa.Column(name, sa.DateTime(timezone=True), nullable=empty) for name, empty in _TIMES.items()),
        *map(_number, _NUMBERS),
        *map(_text, _TEXT),
        _number("sip_code"),
        *map(_text, _TEXT_AFTER),
        sa.Column("mos", sa.Float(), nullable=True),
        sa.Column("detail", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
    ]
    for column in columns:
        column.comment = rules.get(column.name)
    op.create_table("call_detail", *columns)
    op.create_index("call_detail_start", "call_detail", ["start_time", "id"])
    for name in _INDEXED:
        op.create_index(f"call_detail_{name}", "call_detail", [name, "start_time", "id"])
    epoch = (
        "CAST(EXTRACT(EPOCH FROM start_time) AS BIGINT)"
        if op.get_bind().dialect.name == "postgresql"
        else "CAST(strftime('%s', start_time) AS INTEGER)"
    )
    plain = ", ".join(column.name for column in columns if column.name != "detail")
    op.execute(
        'CREATE VIEW call_detail_report AS SELECT start_time AS "time", '
        f"{epoch} AS epoch, {plain}, "
        "CASE WHEN answer_time IS NULL THEN 0 ELSE 1 END AS answered, "
        "CASE WHEN caller_party_type = 'teams_expert' OR callee_party_type = 'teams_expert' "
        "THEN 1 ELSE 0 END AS with_teams, "
        "CASE WHEN caller_login_id <> '' THEN caller_login_id ELSE callee_login_id END AS agent "
        "FROM call_detail"
    )


def downgrade() -> None:
    op.execute("DROP VIEW call_detail_report")
    op.drop_table("call_detail")
