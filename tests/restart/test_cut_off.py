"""Killed half-way: what the parties have seen the end of is finished, all else is as it was before.

Journal and records are put into the state of one moment by hand, while no gateway runs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.calls.matrix import AGENT
from tests.peers.certs import Pki
from tests.restart.plant import Plant, open_plant
from tests.restart.scenes import Scene, switchboard
from tests.restart.test_conferences_restarted import HEARD_WITHIN, WHISPERED, all_hear, scene


def row_of(rows: list[dict[str, Any]], one: Scene) -> dict[str, Any]:
    """That of its first call."""
    [row] = [
        row for row in rows if row["from_phone"] == one.caller and not row["detail"].get("consultation_of")
    ]
    return row


def together(row: dict[str, Any]) -> int:
    """How many were in the call at most."""
    return max(len(segment["members"]) for segment in row["detail"]["segments"])


async def concluded(plant: Plant, scenes: list[Scene], rows: int) -> list[dict[str, Any]]:
    """All hear what they should, hang up, and have their rows."""
    await all_hear(scenes)
    for one in scenes:
        await one.conclude()
    found = await plant.all_rows(rows)
    assert len(found) == rows
    assert not [row for row in found if row["reason"] in ("gateway_restart", "internal_error")]
    return found


async def test_a_hidden_supervisor_is_no_newcomer_to_the_journal(pki: Pki, tmp_path: Path) -> None:
    """He is in no entry of it, and was taken for a party who had just answered: the call for a conference,
    and he, while a transfer rang, for the one to whom it went, so that both parties were lost.
    """
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        scenes = await asyncio.gather(*(scene("supervision", i, plant, board) for i in range(2)))
        _, transferring = scenes
        leg = await transferring.leg_path(transferring.dialled(0))
        await transferring.api(
            "POST", f"{leg}/transfer", {"number": transferring.dialled(2), "trunk": "teams"}
        )
        target = await transferring.ring("third")
        await plant.kill()
        await plant.start()
        await target.expect_end(HEARD_WITHIN)
        transferring.now(WHISPERED)
        rows = await concluded(plant, scenes, len(scenes))
    assert [together(row) for row in rows] == [2, 2]
    assert {row["disposition"] for row in rows} <= {"caller_terminated", "callee_terminated"}
