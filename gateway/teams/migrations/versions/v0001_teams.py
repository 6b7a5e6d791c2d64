"""Sealed documents by shelf and key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("teams_document"):
        # Made by a gateway from before there were migrations; it has the same columns.
        return
    op.create_table(
        "teams_document",
        sa.Column("shelf", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(300), primary_key=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("teams_document")
