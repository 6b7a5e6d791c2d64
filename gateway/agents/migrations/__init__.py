"""Alembic migrations of the agents' tables; run by `tables.migrate` at start, never by hand."""
