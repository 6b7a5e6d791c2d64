"""Session timers (RFC 4028) over a restart: what the last gateway agreed on with a peer binds the next one.

The peers grant seconds instead of minutes, as no real one may (90 is the least), because the gateway is a
process of its own with a real clock.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.calls.house import CUSTOMER
from tests.peers.certs import Pki
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall
from tests.restart.plant import Plant, open_plant

INTERVAL = 6
"""Seconds: refreshed by us after half of it, given up by us after two thirds."""


async def from_teams(plant: Plant, refresher: str) -> tuple[CenterCall, TeamsCall]:
    """`refresher` as in the center's answers: uac is the gateway."""
    plant.center.granted = f"{INTERVAL};refresher={refresher}"
    expert = await plant.teams.invite(CUSTOMER)
    agent = await plant.center.expect_call()
    await agent.answer()
    await expert.answered()
    await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
    return agent, expert


async def test_we_go_on_refreshing(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path, center_extra="session_expires = 90") as plant:
        agent, expert = await from_teams(plant, "uac")
        assert agent.invited is not None
        assert agent.invited.request.get("Session-Expires").startswith("90")
        await plant.restart()
        await agent.expect("INVITE")  # whether it is still there
        refreshed = []
        for _ in range(2):
            refresh = await agent.expect("UPDATE", INTERVAL)
            assert "refresher=uac" in refresh.request.get("Session-Expires")
            refreshed.append(agent.rtp.now)
        assert INTERVAL / 3 < refreshed[1] - refreshed[0] < INTERVAL * 2 / 3
        await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))
        await agent.bye()
        await expert.expect_end()
        [row] = await plant.all_rows(1)
        assert row["reason"] == "hangup"


async def test_a_peer_that_stops_refreshing_is_hung_up_with_the_other(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path, center_extra="session_expires = 90") as plant:
        agent, expert = await from_teams(plant, "uas")
        await plant.kill_and_start()
        await agent.expect("INVITE")
        asked = agent.rtp.now
        await asyncio.gather(agent.expect_end(INTERVAL * 2), expert.expect_end(INTERVAL * 2))
        assert agent.rtp.now - asked > INTERVAL / 3
        [row] = await plant.all_rows(1)
        assert row["reason"] == "no_ack_or_refresh"
