"""Busy sync on the gateway's real agents and their journal, with calls as they are journaled."""

from __future__ import annotations

from pathlib import Path

from gateway.agents.states import EXTERNAL_BUSY, AgentState
from gateway.teams.client import GraphClient
from gateway.teams.presence_desk import AgentDesks
from gateway.teams.presence_graph import Presences, Shown
from gateway.teams.presence_sync import BusySync
from gateway.teams.store import Store
from tests.agents.house import open_house
from tests.peers.graph import CLIENT, GraphSim
from tests.support.clock import FakeClock
from tests.support.waiting import until
from tests.teams.conftest import ANN

IN_A_CALL, AVAILABLE = ("Busy", "InACall"), ("Available", "Available")


async def test_both_directions_through_the_agents_journal(
    tmp_path: Path, sim: GraphSim, client: GraphClient, store: Store, clock: FakeClock
) -> None:
    sim.presence.client(ANN, *AVAILABLE)
    async with open_house(tmp_path / "house") as house:
        agents = house.part.agents
        sync = BusySync(AgentDesks(agents), Presences(client, CLIENT), store, clock)
        await agents.set_state("anna", AgentState.READY, by="anna")
        await sync.start({"anna": ANN})
        sync.notified(ANN, Shown(IN_A_CALL, 100))
        await until(lambda: agents.status("anna").reason == EXTERNAL_BUSY)
        sync.notified(ANN, Shown(AVAILABLE, 101))
        await until(lambda: sync.idle)
        clock.advance(5)
        await until(lambda: agents.status("anna").state is AgentState.READY)
        call = await house.call("anna")
        await until(lambda: sim.presence.shown(ANN) == IN_A_CALL)
        await house.hang_up(call)
        await until(lambda: sim.presence.sessions(ANN).get(CLIENT) == AVAILABLE)
        assert agents.status("anna").state in (AgentState.READY, AgentState.AFTER_CALL_WORK)
        await until(lambda: sync.idle)
        await sync.stop()
    assert CLIENT not in sim.presence.sessions(ANN)
