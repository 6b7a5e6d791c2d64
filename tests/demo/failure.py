"""Why a demo ends early."""

from __future__ import annotations


class DemoFailed(Exception):
    """Something did not come up or did not happen in time; the text says what and where to look."""
