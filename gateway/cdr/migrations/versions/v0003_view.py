"""The reports' view looks at every leg: one who was added or merged later was no Teams user, and no agent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_EPOCH = {
    "postgresql": "CAST(EXTRACT(EPOCH FROM start_time) AS BIGINT)",
    "sqlite": "CAST(strftime('%s', start_time) AS INTEGER)",
}
_FIRST_TWO = "caller_party_type = 'teams_expert' OR callee_party_type = 'teams_expert'"
_TEAMS_LEG = {
    "postgresql": """detail -> 'legs' @> '[{"party": "teams_expert"}]'""",
    "sqlite": (
        "EXISTS (SELECT 1 FROM json_each(detail, '$.legs') AS leg "
        "WHERE json_extract(leg.value, '$.party') = 'teams_expert')"
    ),
}
_AGENT = (
    "CASE WHEN caller_login_id <> '' THEN caller_login_id WHEN callee_login_id <> '' THEN callee_login_id "
    "ELSE {} END"
)
_FIRST_AGENT = {
    "postgresql": (
        "CAST(coalesce((SELECT leg ->> 'login' FROM jsonb_array_elements("
        "CASE jsonb_typeof(detail -> 'legs') WHEN 'array' THEN detail -> 'legs' ELSE '[]' END) "
        "WITH ORDINALITY AS legs (leg, place) WHERE leg ->> 'login' <> '' "
        "ORDER BY place LIMIT 1), '') AS VARCHAR)"
    ),
    "sqlite": (
        "coalesce((SELECT json_extract(leg.value, '$.login') FROM json_each(detail, '$.legs') AS leg "
        "WHERE json_extract(leg.value, '$.login') <> '' ORDER BY leg.key LIMIT 1), '')"
    ),
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    _view(f"{_FIRST_TWO} OR {_TEAMS_LEG[dialect]}", _AGENT.format(_FIRST_AGENT[dialect]))


def downgrade() -> None:
    _view(_FIRST_TWO, _AGENT.format("callee_login_id"))


def _view(teams: str, agent: str) -> None:
    bind = op.get_bind()
    columns = [column["name"] for column in sa.inspect(bind).get_columns("call_detail")]
    plain = ", ".join(name for name in columns if name != "detail")
    if bind.dialect.name == "postgresql":
        # what was granted on the view stays
        begin = "CREATE OR REPLACE VIEW"
    else:
        op.execute("DROP VIEW call_detail_report")
        begin = "CREATE VIEW"
    statement = (
        f'{begin} call_detail_report AS SELECT start_time AS "time", '
        f"{_EPOCH[bind.dialect.name]} AS epoch, {plain}, "
        "CASE WHEN answer_time IS NULL THEN 0 ELSE 1 END AS answered, "
        f"CASE WHEN {teams} THEN 1 ELSE 0 END AS with_teams, {agent} AS agent FROM call_detail"
    )
    bind.exec_driver_sql(statement)
