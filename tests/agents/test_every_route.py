"""Each route of the whole gateway's document, asked with every kind of session that it must refuse."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from gateway.agents import tables
from gateway.agents.audit import AuditRecord
from gateway.agents.people import UserRole
from gateway.api import sessions_access
from gateway.api.sessions_access import ACCESS, Own, Rule, rule_of
from gateway.assembly import assemble
from gateway.calls.context import Sounds
from gateway.config_models import Config
from gateway.state_dir import StateDir
from tests.agents.house import Browser, Calls, House, people, running

RANK = [UserRole.AGENT, UserRole.SUPERVISOR, UserRole.ADMINISTRATOR]
LOGINS = {UserRole.AGENT: "anna", UserRole.SUPERVISOR: "sue", UserRole.ADMINISTRATOR: "ada"}
OTHERS: dict[Own | None, dict[str, Any]] = {
    Own.QUERY: {"params": {"agent": "bert"}},
    Own.BODY: {"json": {"agent": "bert"}},
}
"""What makes a request concern somebody else, where the path does not."""


@dataclass(frozen=True)
class Route:
    name: str
    method: str
    path: str
    rule: Rule

    def asked(self, **more: Any) -> dict[str, Any]:
        return {"method": self.method, "path": re.sub(r"{\w+}", "bert", self.path), **more}

    def of_somebody_else(self) -> dict[str, Any]:
        return self.asked(**OTHERS.get(self.rule.own, {}))


@pytest.fixture
async def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """The HTTP side of a gateway that has everything a configuration can switch on."""
    monkeypatch.setenv("TANDEM_TEST_GRAPH", "secret")
    folder = tmp_path / "whole"
    config = Config.model_validate(
        {
            "gateway": {"state_dir": folder},
            "http": {"listen": "127.0.0.1:0"},
            "agent": [{"login": "anna", "numbers": ["601"]}, {"login": "bert"}],
            "limits": {"min_free_disk": 0},
            "trunk": [{"name": "cc", "peers": ["udp:127.0.0.1:5070"]}],
            "sign_in": {"public_url": "https://desk.example.test"},
            "graph": {
                "tenant": "11111111-2222-3333-4444-555555555555",
                "client_id": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
                "client_secret": "env:TANDEM_TEST_GRAPH",
                "authority": "https://localhost:9",
                "root": "https://localhost:9/v1.0",
            },
        }
    )
    gateway = assemble(config, Sounds(folder / "a", folder / "b"), StateDir(folder))
    house = House(config, gateway.agents, gateway.journal, gateway.recorder, gateway.http, None, Calls())
    async with running(house):
        await people(house)
        yield house


async def routes(house: House) -> list[Route]:
    async with house.browser() as stranger:
        document = (await stranger.ask("GET", "/openapi.json")).body
    return list(_routes(document))


def _routes(document: dict[str, Any]) -> Iterator[Route]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = operation["operationId"]
            if path.startswith("/api/"):
                yield Route(name, method.upper(), path, rule_of(name))
            else:
                assert operation.get("security") == [], f"{name}: outside of /api/ nothing is guarded"


async def refused(browser: Browser, route: Route, status: int, what: str) -> None:
    found = await browser.ask(**route.of_somebody_else())
    assert found.status == status, f"{route.name} {what}: {found.status} {found.body}"
    if status == 403:
        assert found.body["reason"] == "role", f"{route.name} {what}: {found.body}"


async def test_the_table_of_rules_and_the_routes_are_the_same(whole: House) -> None:
    tables_of_rules = [
        table
        for name, table in vars(sessions_access).items()
        if name.endswith("ACCESS") and isinstance(table, dict)
    ]
    known = {name for table in tables_of_rules for name in table}
    walked = {route.name for route in await routes(whole)}
    assert known <= walked
    assert set(ACCESS) <= walked
    for name in walked - known:
        assert rule_of(name) == Rule(UserRole.ADMINISTRATOR), name


async def test_every_route_refuses_who_has_no_session(whole: House) -> None:
    found = await routes(whole)
    assert len(found) > 50
    async with whole.browser() as stranger:
        for route in found:
            await refused(stranger, route, 401, "without a session")
            bad = await stranger.ask(**route.asked(headers={"Cookie": "tandem_session=made-up"}))
            assert bad.status == 401, route.name
            bad = await stranger.ask(**route.asked(headers={"Authorization": "Bearer made-up"}))
            assert bad.status == 401, route.name


async def test_what_a_role_does_to_others_is_audited_and_what_one_does_to_himself_is_not(
    whole: House,
) -> None:
    """Only refusals were: nobody could tell who had listened to whom."""
    async with whole.browser("sue") as sue:
        assert (await sue.ask("DELETE", "/api/v1/calls/bert")).status == 404
        assert (await sue.ask("POST", "/api/v1/calls", json={"agent": "sue", "number": "1"})).status >= 400
    found = [(record.who, record.what, record.target, record.result) for record in await latest(whole)]
    assert found == [("sue", "endCall", "/api/v1/calls/bert", "failed")]


async def latest(house: House) -> list[AuditRecord]:
    """Without the sign-ins, oldest first."""
    return [record for record in await house.part.audit.latest() if record.what != "sign_in"][::-1]


@pytest.mark.parametrize("how", ["too old", "idle too long", "signed out", "account disabled"])
async def test_every_route_refuses_a_session_that_is_over(whole: House, how: str) -> None:
    """An administrator's, who may do everything until then."""
    async with whole.browser("ada") as ada, whole.browser("sue") as sue:
        cookie = {"Cookie": "; ".join(f"{c.key}={c.value}" for c in ada.session.cookie_jar)}
        assert (await ada.ask("GET", "/api/v1/audit")).status == 200
        if how == "too old":
            await moved(whole, "created_at", whole.config.sign_in.longest)
        elif how == "idle too long":
            await moved(whole, "seen_at", whole.config.sign_in.idle_timeout)
        elif how == "signed out":
            assert (await ada.ask("DELETE", "/api/v1/me/session")).status == 204
        else:
            await whole.part.accounts.set_disabled("ada", True)
        async with whole.browser() as late:
            late.csrf = ada.csrf
            for route in await routes(whole):
                answer = await late.ask(**route.of_somebody_else(), headers=cookie)
                assert answer.status == 401, f"{route.name}, {how}: {answer.status}"
        assert (await sue.ask("GET", "/api/v1/desk")).status == 200, "other sessions go on"


async def moved(house: House, column: str, seconds: float) -> None:
    """Ada's session looks as if `column` were so much longer ago."""
    columns = tables.session.c
    by = timedelta(seconds=seconds + 1)

    def change(connection: Any) -> None:
        for row in connection.execute(tables.session.select().where(columns.login == "ada")).mappings().all():
            values = {column: row[column] - by}
            connection.execute(update(tables.session).where(columns.digest == row["digest"]).values(values))

    await house.part.database.run(change)


async def test_every_route_refuses_each_role_below_its_own(whole: House) -> None:
    """What concerns nobody or somebody else; his own is looked at in test_sign_in.py."""
    below = allowed = 0
    async with contextlib.AsyncExitStack() as stack:
        people_of = {
            role: await stack.enter_async_context(whole.browser(login)) for role, login in LOGINS.items()
        }
        for route in await routes(whole):
            if route.name == "signOut":
                continue
            for role, person in people_of.items():
                if RANK.index(role) < RANK.index(route.rule.least):
                    await refused(person, route, 403, f"as {role}")
                    below += 1
                elif route.name in ACCESS:
                    found = await person.ask(**route.of_somebody_else())
                    assert found.status not in (401, 403), f"{route.name} as {role}: {found.body}"
                    allowed += 1
    assert below > 50
    assert allowed > 50


async def test_every_change_needs_the_token_against_cross_site_requests(whole: House) -> None:
    async with whole.browser("ada") as ada:
        ada.csrf = ""
        for route in await routes(whole):
            if route.method in ("GET", "HEAD"):
                continue
            found = await ada.ask(**route.of_somebody_else())
            assert (found.status, found.body["reason"]) == (403, "csrf"), route.name
