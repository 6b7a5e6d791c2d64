"""A PostgreSQL that takes connections and answers nothing: it holds up neither records nor a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import text

from gateway.cdr import tables
from gateway.state_dir import read_note
from tests.cdr.postgres import PostgresServer
from tests.peers.certs import Pki
from tests.restart.plant import Plant, open_plant
from tests.restart.test_restart_in_place import both_hear, refreshed, talking
from tests.support.waiting import until

MANY = 40
"""More than all threads the gateway might have for reports, whatever the machine."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer.running() as found:
        yield found


def stored(server: PostgresServer) -> int:
    engine = tables.make(server.url())
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM call_detail")).scalar_one()
    engine.dispose()
    return int(found)


async def ask_in_vain(plant: Plant) -> None:
    """Many reports are asked for, none is answered, and nobody waits any longer."""
    note = read_note(plant.state)
    assert note is not None
    headers = {"Authorization": f"Bearer {note.token}"}
    url = f"http://{note.host}:{note.port}/api/v1/call-detail"
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        asked = [asyncio.create_task(session.get(url)) for _ in range(MANY)]
        done, _ = await asyncio.wait(asked, timeout=0.5)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    assert not done


async def a_call(plant: Plant, rows: int) -> None:
    agent, expert = await talking(plant)
    await agent.bye()
    await expert.expect_end()
    await plant.all_rows(rows)


async def test_a_postgresql_that_hangs_keeps_neither_rows_from_others_nor_a_restart(
    pki: Pki, tmp_path: Path, server: PostgresServer
) -> None:
    async with open_plant(pki, tmp_path, database=server.url()) as plant:
        await a_call(plant, 1)
        await until(lambda: stored(server) == 1, 10)
        with server.frozen():
            await ask_in_vain(plant)
            await a_call(plant, 2)
            agent, expert = await talking(plant)
            await plant.restart()
            await refreshed(agent, expert)
            await both_hear(agent, expert)
            await agent.bye()
            await expert.expect_end()
            await plant.all_rows(3)
        await until(lambda: stored(server) == 3, 30)
