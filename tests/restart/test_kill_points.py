"""kill -9 of the gateway at 50 random points of a busy minute: set-ups, holds, conferences, consultations,
transfers, supervision and hang-ups are under way, and sometimes the restart before.

The moments are other ones in every run. `TANDEM_KILL_SEED`, which a failure names, repeats the choices of a
run, though not its every millisecond; `TANDEM_KILL_POINTS` kills more often.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.calls.matrix import AGENT
from tests.peers.certs import Pki
from tests.restart.nursery import Nursery
from tests.restart.plant import Plant, open_plant
from tests.restart.scenes import Scene, Switchboard, switchboard
from tests.support.waiting import until

POINTS = int(os.environ.get("TANDEM_KILL_POINTS", "50"))
SEED = int(os.environ.get("TANDEM_KILL_SEED", random.randrange(1_000_000)))
CALLS = 5
"""Calls that begin between two kills; those of the time before are being judged and hung up meanwhile."""
BUSY = 1.2
SETTLED = 0.4
"""Seconds that the parties act on with the new gateway before they are judged."""
LOST = {
    "gateway_restart",
    "dialog_lost",
    "media_lost",
    "no_ack_or_refresh",
    "session_failed",
    "internal_error",
}
log = logging.getLogger("tests.restart")


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    """End them, also one that takes its cancellation for a time-out that came just then."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1.0)
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            log.info("scene_broken cause=%r", task.exception())


async def judge(scenes: list[Scene]) -> list[str]:
    """What is wrong with them."""
    ends = await asyncio.gather(*(scene.conclude() for scene in scenes), return_exceptions=True)
    wrong = []
    for scene, end in zip(scenes, ends, strict=True):
        if end is not None:
            wrong.append(f"{scene!r}: {end!r}")
        for party in [*scene.parties.values(), *scene.others]:
            await party.close()
    return wrong


async def kill(plant: Plant, scenes: list[Scene], dice: random.Random, points: Iterator[int]) -> None:
    """kill -9 and start again; now and then the next gateway dies before or while it restores the calls."""
    await plant.kill()
    for scene in scenes:
        scene.gateway_killed()
    while dice.random() < 0.15 and next(points, None) is not None:
        await plant.launch()
        await asyncio.sleep(dice.uniform(0.0, 1.5))
        await plant.kill()
        for scene in scenes:
            scene.gateway_killed()
    await plant.start()


async def busy(plant: Plant, board: Switchboard, dice: random.Random) -> list[Scene]:
    """Kill it POINTS times; every scene has been judged when this returns."""
    plots: Iterator[str] = itertools.chain.from_iterable(
        dice.sample(sorted(Scene.plots), len(Scene.plots)) for _ in itertools.count()
    )
    numbers, points = itertools.count(), iter(range(POINTS))
    played: list[Scene] = []
    judging: asyncio.Task[list[str]] | None = None
    for point in points:
        scenes = [Scene(next(plots), next(numbers), plant, board, dice) for _ in range(CALLS)]
        played += scenes
        acting = [asyncio.create_task(scene.act()) for scene in scenes]
        try:
            await asyncio.sleep(dice.uniform(0.1, BUSY))
            if judging is not None:
                wrong = await judging
                assert not wrong, f"seed {SEED}, point {point}: {wrong}"
            await kill(plant, scenes, dice, points)
            await asyncio.wait(acting, timeout=SETTLED)
        finally:
            await stop(acting)
        judging = asyncio.create_task(judge(scenes))
    if judging is not None:
        wrong = await judging
        assert not wrong, f"seed {SEED}: {wrong}"
    return played


def stored(plant: Plant) -> list[str]:
    """Ids of the rows in the database."""
    with sqlite3.connect(plant.state / "tandem.db") as database:
        return sorted(row for (row,) in database.execute("SELECT id FROM call_detail"))


def check(scene: Scene, rows: list[dict[str, Any]]) -> None:
    """One row each for the call and its consultation, and they say how these ended."""
    mine = [row for row in rows if row["from_phone"] == scene.caller]
    main = [row for row in mine if not row["detail"].get("consultation_of")]
    asides = [row for row in mine if row not in main]
    invited = bool(scene.called or scene.others)
    # a call that had not got as far as an INVITE of ours leaves no row (facts/call-detail.md 5, rule 10)
    assert len(main) == 1 if invited else len(main) <= 1, (scene, mine)
    assert len(asides) <= int(scene.aside), (scene, mine)
    if scene.aside and "third" in scene.called:
        assert len(asides) == 1, (scene, mine)
    for row in mine:
        assert row["start_time"] <= row["end_time"], (scene, row)
        ends = [leg["termination"] for leg in row["detail"]["legs"] if leg.get("termination")]
        assert "internal_error" not in [row["reason"], *(end["reason"] for end in ends)], (scene, row)
    for row in asides:
        assert row["global_interaction_id"] == main[0]["global_interaction_id"], (scene, mine)
        assert row["detail"]["consultation_of"] == main[0]["id"], (scene, mine)
    for row in main:
        if scene.established:
            assert row["answer_time"] is not None, (scene, row)
            told = row["detail"]
            lasted = told["end_ms"] - told["answer_ms"]
            assert told["talk_ms"] + told["hold_ms"] == lasted, (scene, row)
        if "supervis" in scene.plot:
            assert max((len(one["members"]) for one in row["detail"]["segments"]), default=0) <= 2, row
        if scene.must:
            assert row["reason"] not in LOST, (scene, row)
            assert row["sip_code"] == 200, (scene, row)


@pytest.mark.load
@pytest.mark.longest
async def test_every_call_goes_on_or_ends_with_one_row(pki: Pki, tmp_path: Path) -> None:
    print(f"TANDEM_KILL_SEED={SEED}")
    dice = random.Random(SEED)
    async with (
        open_plant(pki, tmp_path, center_extra=AGENT, seats=4 * 5 * CALLS) as plant,
        switchboard(plant) as board,
    ):
        plant.teams.rules.dies = True
        async with Nursery() as plant.nursery:
            played = await busy(plant, board, dice)
        plant.nursery = None
        await plant.kill_and_start()
        await plant.quiet()
        await until(lambda: stored(plant) == sorted(row["id"] for row in plant.rows()), 20)
        rows = plant.rows()
    for scene in played:
        check(scene, rows)
