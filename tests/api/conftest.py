"""The house of the call tests, for commands that come over HTTP."""

from __future__ import annotations

from tests.calls.conftest import engine, engine_settings, house, pki, rooms

__all__ = ["engine", "engine_settings", "house", "pki", "rooms"]
