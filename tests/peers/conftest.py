"""What the stand-ins get here is not the gateway's word: much of it is wrong on purpose."""

from __future__ import annotations

import pytest

from tests.peers.teams import CAPTURE


@pytest.fixture(autouse=True)
def _not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/calls judges all that was captured in its process, whichever tests come after it."""
    monkeypatch.delenv(CAPTURE, raising=False)
