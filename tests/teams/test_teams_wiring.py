"""From `[graph]` to the room: what each key means, and that nothing of it is there without the section."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.api.metrics import Metrics
from gateway.config_models import Config
from gateway.teams.clouds import ADDRESSES
from gateway.teams.presence_rules import IN_A_CALL, MARKER, WIDER
from gateway.teams.users import TeamsUser
from gateway.teams.wiring import cloud_of, open_teams, settings
from tests.support.waiting import until

GRAPH = """
[graph]
tenant = "t"
client_id = "c"
client_secret = "env:TANDEM_TEST_GRAPH"
"""


def config(text: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("TANDEM_TEST_GRAPH", "a-secret")
    return Config.model_validate(tomllib.loads(text), by_name=False, by_alias=True)


def agents() -> Any:
    people = [SimpleNamespace(login="ann", teams_user="ann@x"), SimpleNamespace(login="bob", teams_user=None)]
    return SimpleNamespace(roster=SimpleNamespace(agents=people), agents=None)


def test_a_gateway_without_the_section_loads_nothing_for_it() -> None:
    """msal, requests and Alembic are a fifth of a start, and a restart is as short as its start."""
    code = "import gateway.assembly, sys; print(sorted({'msal', 'requests', 'alembic'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = config(GRAPH, monkeypatch)
    assert whole.graph is not None
    found = settings(whole, whole.graph, agents())
    assert found.mapped() == {"ann": "ann@x"}
    assert found.account is not None
    assert found.account.client_secret == "a-secret"
    assert "a-secret" not in repr(found)
    assert (found.options.enter, found.options.written) == (frozenset({IN_A_CALL}), IN_A_CALL)
    assert found.cloud.may_set_presence
    assert found.public_url == ""


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    more = """
secret_expires = 2027-01-31
public_url = "https://desk.example.com/"
attendant = "+15551230000"
attendant_digits = "{user}#"
busy = "meetings"
busy_marker = true
"""
    whole = config(GRAPH + more, monkeypatch)
    assert whole.graph is not None
    found = settings(whole, whole.graph, agents())
    assert (found.options.enter, found.options.written) == (WIDER, MARKER)
    assert found.public_url == "https://desk.example.com"
    assert found.attendant is not None
    assert found.account is not None
    assert str(found.account.secret_expires) == "2027-01-31"


async def test_the_room_is_told_when_agents_change(monkeypatch: pytest.MonkeyPatch) -> None:
    people, http = agents(), SimpleNamespace(add_routes=lambda _: None)
    people.roster.changed = []
    whole = config(GRAPH, monkeypatch)
    assert whole.graph is not None
    room = open_teams(whole, whole.graph, people, cast(Any, http), Metrics())
    ended: list[str] = []

    async def disable(login: str) -> None:
        ended.append(login)

    monkeypatch.setattr(room, "disable", disable)
    room.users.enabled["ann"] = TeamsUser("ann", "oid-1", "t", "Ann", "ann@x")
    room._up = True
    for teams_user in ("ann@x", "new@x"):
        people.roster.agents[0].teams_user = teams_user
        for told in people.roster.changed:
            told(people.roster.agents)
        await until(lambda: room.idle)
    assert ended == ["ann"]
    await room._store.close()


@pytest.mark.parametrize("name", ADDRESSES)
def test_presence_is_set_in_the_global_service_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, root = ADDRESSES[name]
    whole = config(f'{GRAPH}authority = "{authority}"\nroot = "{root}/"\n', monkeypatch)
    assert whole.graph is not None
    assert cloud_of(whole.graph).may_set_presence == (name == "global")
