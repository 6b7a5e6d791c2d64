"""rtpengine or its Redis died together with the gateway: the next gateway saves what can be saved."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.peers.certs import Pki
from tests.restart.plant import MUSIC_HZ, Plant, open_plant
from tests.restart.test_restart_in_place import both_hear, refreshed, talking


async def _row(plant: Plant) -> None:
    [row] = await plant.all_rows(1)
    assert (row["disposition"], row["sip_code"]) == ("caller_terminated", 200)


async def test_a_dead_rtpengine_comes_back_with_its_calls_out_of_a_living_redis(
    pki: Pki, tmp_path: Path
) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        held, holder = await talking(plant)
        assert (await holder.hold()).code == 200
        await held.rtp.hears(MUSIC_HZ)
        before = (agent.rtp.remote, expert.rtp.remote, expert.rtp.remote_key)
        await plant.kill()
        plant.kill_engine()
        await plant.start()
        await refreshed(agent, expert, held, holder)
        await both_hear(agent, expert)
        assert (agent.rtp.remote, expert.rtp.remote, expert.rtp.remote_key) == before
        assert expert.rtp.undecodable == 0
        await held.rtp.hears(MUSIC_HZ)
        assert (await holder.resume()).code == 200
        await both_hear(held, holder)
        for one, other in ((agent, expert), (held, holder)):
            await one.bye()
            await other.expect_end()
        rows = await plant.all_rows(2)
        assert {row["disposition"] for row in rows} == {"caller_terminated"}


async def test_a_hanging_rtpengine_is_replaced_and_its_calls_are_not(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        await plant.kill()
        os.kill(plant.engine()["rtpengine"]["pid"], signal.SIGSTOP)
        await plant.start()
        await refreshed(agent, expert)
        await both_hear(agent, expert)
        await agent.bye()
        await expert.expect_end()
        await _row(plant)


async def test_a_dead_redis_does_not_cost_the_calls_of_a_living_rtpengine(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        await plant.kill()
        plant.kill_engine("redis")
        await plant.start()
        await refreshed(agent, expert)
        await both_hear(agent, expert)
        await agent.bye()
        await expert.expect_end()
        await _row(plant)


async def test_with_both_dead_every_leg_is_told_and_the_row_says_why(pki: Pki, tmp_path: Path) -> None:
    """T21: Teams does not follow to other ports."""
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        await plant.kill()
        plant.kill_engine("redis", "rtpengine")
        await plant.start()
        await agent.expect_end()
        await expert.expect_end()
        [row] = await plant.all_rows(1)
        assert (row["reason"], row["sip_code"]) == ("media_lost", 200)
