"""Alembic migrations of call detail; run by `tables.migrate` at start, never by hand."""
