"""What Teams remembers: its schema and its work on SQLite and on PostgreSQL, and what is legible there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from gateway.agents.database import AgentDatabase
from gateway.cdr import tables
from gateway.teams.errors import StoreFault
from gateway.teams.store import VERSION_TABLE, Shelf, Store, metadata
from gateway.teams.vault import Vault
from tests.cdr.postgres import PostgresServer
from tests.peers.graph import GraphSim
from tests.support.clock import FakeClock
from tests.support.waiting import until
from tests.teams.conftest import ANN
from tests.teams.room_stage import LOGIN, RoomStage, good_account


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer.running() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tandem.db'}"
    found: PostgresServer = request.getfixturevalue("server")
    return found.url()


def differences(url: str) -> list[object]:
    engine = tables.make(url)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            return [
                one
                for one in compare_metadata(found, metadata)
                if not (one[0] == "remove_table" and one[1].name not in metadata.tables)
                and not (one[0] == "remove_index" and one[1].table.name not in metadata.tables)
            ]
    finally:
        engine.dispose()


async def test_documents_are_kept_sealed_and_found_again(url: str, tmp_path: Path) -> None:
    store = Store(url, Vault(tmp_path))
    await store.open()
    await store.clear(*Shelf)
    await store.put(Shelf.TOKENS, "ann", {"cache": "canary-of-ann"})
    await store.put_many(Shelf.TOKENS, {"ann": {"cache": "canary-2"}, "bob": {"cache": "canary-3"}})
    assert await store.get(Shelf.TOKENS, "ann") == {"cache": "canary-2"}
    assert await store.all(Shelf.TOKENS) == {"ann": {"cache": "canary-2"}, "bob": {"cache": "canary-3"}}
    assert await store.all(Shelf.USER) == {}
    await store.close()
    assert differences(url) == []

    def rows() -> str:
        engine = tables.make(url)
        with engine.connect() as connection:
            found = str([tuple(row) for row in connection.execute(text("SELECT * FROM teams_document"))])
        engine.dispose()
        return found

    shown = await asyncio.to_thread(rows)
    assert "ann" in shown
    assert "canary" not in shown
    again = Store(url, Vault(tmp_path))
    await again.open()
    await again.remove(Shelf.TOKENS, "bob", "nobody")
    assert list(await again.all(Shelf.TOKENS)) == ["ann"]
    await again.clear(*Shelf)
    await again.close()
    elsewhere = tmp_path / "elsewhere"
    stranger = Store(url, Vault(elsewhere))
    await stranger.open()
    await stranger.put(Shelf.USER, "ann", {"oid": "1"})
    await stranger.close()
    await (last := Store(url, Vault(tmp_path))).open()
    with pytest.raises(StoreFault, match="restore the key"):
        await last.all(Shelf.USER)
    await last.clear(*Shelf)
    await last.close()


async def test_two_gateways_may_bring_the_schema_up_at_once(server: PostgresServer, tmp_path: Path) -> None:
    Vault(tmp_path).open()
    both = [Store(server.url(), Vault(tmp_path)) for _ in range(2)]
    agents = AgentDatabase(server.url())
    await asyncio.gather(*(one.open() for one in both), agents.run(lambda _: None))
    await both[0].put(Shelf.FAVOURITE, "ann", {"keys": []})
    assert await both[1].get(Shelf.FAVOURITE, "ann") == {"keys": []}
    for one in both:
        await one.close()
    await agents.close()


async def test_one_gateway_at_a_time_has_the_claim(server: PostgresServer, tmp_path: Path) -> None:
    Vault(tmp_path).open()
    one, other = (Store(server.url(), Vault(tmp_path)) for _ in range(2))
    await one.open()
    await other.open()
    assert await one.claim()
    assert await one.claim()
    assert not await other.claim()
    await one.close()
    async with asyncio.timeout(20):
        while not await other.claim():  # noqa: ASYNC110  the server lets go some time after the end
            await asyncio.sleep(0.02)
    server.stop(signal.SIGQUIT)
    with pytest.raises(StoreFault):
        await other.claim()
    server.start()
    assert await other.claim()
    await other.close()


async def test_a_second_gateway_waits_and_takes_over(
    server: PostgresServer, sim: GraphSim, clock: FakeClock, tmp_path: Path
) -> None:
    first, second = (RoomStage(sim, clock, tmp_path, good_account()) for _ in range(2))
    first.database = second.database = server.url()
    sim.presence.client(ANN, "Available", "Available")
    async with first:
        await first.enable()
        async with second:
            assert second.room.health().ok
            assert "another gateway runs Teams" in second.room.health().text
            assert second.room.connection is None
            await first.room.stop()
            clock.advance(30)
            await until(lambda: second.room.connection is not None, 20)
            await second.quiet()
            assert list(second.room.users.enabled) == [LOGIN]
            assert second.room.health().text == ""
            await first.open()
            assert "another gateway runs Teams" in first.room.health().text
            await second.room.delete_account()


async def test_a_database_that_comes_later_is_waited_for(
    sim: GraphSim, clock: FakeClock, tmp_path: Path
) -> None:
    stage = RoomStage(sim, clock, tmp_path, good_account())
    (tmp_path / "down").write_text("in the way")
    stage.database = f"sqlite:///{tmp_path / 'down' / 'room.db'}"
    async with stage:
        assert stage.room.health().ok
        assert "the database cannot be used" in stage.room.health().text
        (tmp_path / "down").unlink()
        clock.advance(30)
        await until(lambda: stage.room.connection is not None, 20)
        assert stage.room.health().text == ""


async def test_a_database_of_before_the_migrations_is_taken_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = tables.make(url)
    metadata.create_all(engine)
    engine.dispose()
    store = Store(url, Vault(tmp_path))
    await store.open()
    await store.put(Shelf.USER, "ann", {"oid": "1"})
    await store.close()
    assert differences(url) == []


async def test_a_database_that_is_away_is_a_store_fault(tmp_path: Path) -> None:
    store = Store("postgresql://postgres@127.0.0.1:1/none", Vault(tmp_path))
    with pytest.raises(StoreFault):
        await store.open()
    await store.close()
