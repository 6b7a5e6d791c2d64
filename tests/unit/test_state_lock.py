"""The lock of the state directory, right after a gateway was killed."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from gateway.state_dir import LOCK_TRIES, StateDir, StateDirTaken


async def test_a_lock_that_a_killed_gateways_child_still_holds_is_waited_for(tmp_path: Path) -> None:
    """Killed while it started a room: between fork and exec the child has all its descriptors."""
    child = os.open(tmp_path / "gateway.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(child, fcntl.LOCK_EX)
    state = StateDir(tmp_path)
    starting = asyncio.create_task(state.start())
    await asyncio.sleep(LOCK_TRIES[0] / 2)
    assert not starting.done()
    os.close(child)
    await starting
    with pytest.raises(StateDirTaken):
        await StateDir(tmp_path).start()
    await state.stop()
