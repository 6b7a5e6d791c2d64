"""Alembic migrations of what Teams remembers; run by `store.Store` when it opens, never by hand."""
