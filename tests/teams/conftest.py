"""The Graph stand-in, the client and what they need; one CA and one signing key a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.teams.account_model import Account
from gateway.teams.client import GraphClient
from gateway.teams.clouds import Cloud
from gateway.teams.entra import Entra
from gateway.teams.store import Store
from gateway.teams.vault import Vault
from tests.peers.certs import Identity
from tests.peers.graph import CLIENT, SECRET, TENANT, GraphSim, make_identity
from tests.support.clock import FakeClock

ANN = "aaaa0000-0000-0000-0000-000000000001"
ERIKA = "eeee0000-0000-0000-0000-000000000002"
MAX = "eeee0000-0000-0000-0000-000000000003"
REDIRECT = "https://desk.example.test/api/v1/teams/signed-in"


@pytest.fixture(scope="session")
def graph_identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Path]:
    return make_identity(tmp_path_factory.mktemp("graph-ca"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def sim(
    clock: FakeClock, tmp_path: Path, graph_identity: tuple[Identity, Path]
) -> AsyncIterator[GraphSim]:
    async with GraphSim(clock, tmp_path, identity=graph_identity) as made:
        made.registration.redirect_uris.add(REDIRECT)
        made.add_user(ANN, "Ann Agent")
        made.add_user(ERIKA, "Erika Expert", businessPhones=["+15550102"], jobTitle="Engineer")
        made.add_user(MAX, "Max Experte")
        yield made


@pytest.fixture
def cloud(sim: GraphSim) -> Cloud:
    return Cloud(sim.authority, sim.root, sim.roots)


@pytest.fixture
def account() -> Account:
    return Account(TENANT, CLIENT, SECRET)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'teams.db'}", Vault(tmp_path))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def entra(cloud: Cloud, account: Account, store: Store, clock: FakeClock) -> Iterator[Entra]:
    made = Entra(cloud, account, store, clock)
    yield made
    made.close()


@pytest.fixture
async def client(cloud: Cloud, entra: Entra, clock: FakeClock) -> AsyncIterator[GraphClient]:
    made = GraphClient(cloud, entra, clock)
    yield made
    await made.close()
