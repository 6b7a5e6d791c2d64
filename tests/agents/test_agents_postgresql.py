"""The agents' tables on a real PostgreSQL: what SQLite's dialect would hide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from argon2 import PasswordHasher
from sqlalchemy import Connection, text

from gateway.agents import tables
from gateway.agents.accounts import Accounts
from gateway.agents.activity import ActivityName, ActivityRow
from gateway.agents.activity_writer import write
from gateway.agents.audit import AuditLog
from gateway.agents.database import AgentDatabase, StoreUnavailable
from gateway.agents.people import UserRole
from gateway.agents.report import ActivityQuery, activity_page
from gateway.agents.roster import Roster
from gateway.agents.sessions import Sessions
from gateway.clock import LoopClock
from gateway.config_models import Agent
from tests.cdr.postgres import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer.running() as found:
        yield found


@pytest.fixture
async def database(server: PostgresServer) -> AsyncIterator[AgentDatabase]:
    found = AgentDatabase(server.url())
    yield found
    await found.close()


async def test_two_gateways_may_bring_the_schema_up_at_once(server: PostgresServer) -> None:
    both = [AgentDatabase(server.url()) for _ in range(2)]

    def differences(connection: Connection) -> list[object]:
        found = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        ours = set(tables.metadata.tables)
        return [
            one
            for one in compare_metadata(found, tables.metadata)
            if not (one[0] == "remove_table" and one[1].name not in ours)
        ]

    assert await asyncio.gather(*(one.run(differences) for one in both)) == [[], []]
    for one in both:
        await one.close()


async def test_people_and_sessions(database: AgentDatabase) -> None:
    accounts = Accounts(database, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    await accounts.add("anna", UserRole.AGENT, "correct horse")
    person = await accounts.check("anna", "correct horse")
    assert person is not None
    sessions = Sessions(database, LoopClock(), idle=60, longest=3600)
    token = await sessions.begin(person)
    found = await sessions.find(token)
    assert found is not None
    assert found.person == person
    await accounts.set_disabled("anna", True)
    assert await sessions.find(token) is None


async def test_the_audit_log_only_grows(database: AgentDatabase) -> None:
    audit = AuditLog(database)
    await audit.record("anna", "sign_in")
    for statement in ("UPDATE audit SET who = 'x'", "DELETE FROM audit"):
        with pytest.raises(StoreUnavailable, match="only grows"):
            await database.run(lambda c, s=statement: c.execute(text(s)))  # type: ignore[misc]
    assert [record.who for record in await audit.latest()] == ["anna"]


async def test_rows_are_written_again_in_place(database: AgentDatabase) -> None:
    row = ActivityRow(
        id="a-0", activity_id="a", login_id="anna", start_time=datetime(2026, 1, 31, 12, tzinfo=UTC),
        activity=ActivityName.INBOUND_CALL, duration=60, talk_time=60, other_party_phone="1\x002",
    )  # fmt: skip
    await database.run(partial(write, found=[row]))
    await database.run(partial(write, found=[replace(row, duration=90, acw_time=30)]))
    page = await activity_page(database, ActivityQuery(agent="anna", activity="INBOUND_CALL"))
    assert page.rows == (replace(row, duration=90, acw_time=30, other_party_phone="1\ufffd2"),)


async def test_agents_of_a_shared_database(database: AgentDatabase) -> None:
    one, other = Roster([], database), Roster([], database)
    agent = Agent(login="carl", numbers=("603",), after_call_work=5.0)
    await one.put(agent)
    await other.load()
    assert other.agents == (agent,)
