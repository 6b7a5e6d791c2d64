"""Alembic's entry: uses the connection and the transaction that `tables.migrate` hands over."""

from __future__ import annotations

from alembic import context

from gateway.teams.store import VERSION_TABLE, metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
context.run_migrations()
