"""Local accounts, sessions, roles and CSRF over a real socket; the walk over every documented route."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from http.cookies import Morsel
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from yarl import URL

from gateway.agents.accounts import AccountError, Accounts
from gateway.agents.database import StoreUnavailable
from gateway.agents.people import Person, Source, UserRole
from gateway.agents.rate_limit import source
from gateway.agents.states import AgentState
from gateway.api.sessions_access import ACCESS
from gateway.assembly import assemble
from gateway.calls.context import Sounds
from gateway.config_models import Config
from gateway.state_dir import StateDir
from tests.agents.house import PASSWORD, Calls, House, open_house, people, running
from tests.support.clock import FakeClock
from tests.support.waiting import until


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        await people(house)
        yield house


async def audited(house: House) -> list[tuple[str, str, str]]:
    return [(r.who, r.what, r.result) for r in await house.part.audit.latest()][::-1]


# ------------------------------------------------------------------------------- signing in and out


async def test_signing_in_opens_a_session_with_a_careful_cookie(house: House) -> None:
    async with house.browser() as browser:
        assert (await browser.ask("GET", "/sign-in")).body == {"local": True, "entra": False}
        assert (await browser.ask("GET", "/api/v1/me")).status == 401
        found = await browser.sign_in("anna")
        assert found.body == {"login": "anna", "name": "anna", "role": "agent"}
        cookie: Morsel[str] = found.cookies["tandem_session"]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
        me = (await browser.ask("GET", "/api/v1/me")).body
        assert (me["login"], me["role"], me["source"]) == ("anna", "agent", "local")
        assert me["agent"]["team"] == "Sales"
        assert (await browser.ask("DELETE", "/api/v1/me/session")).status == 204
        assert (await browser.ask("GET", "/api/v1/me")).status == 401
    assert await audited(house) == [("anna", "sign_in", "ok"), ("anna", "sign_out", "ok")]


async def test_a_signed_out_cookie_opens_nothing_wherever_it_is_kept(house: House) -> None:
    async with house.browser("anna") as browser, aiohttp.ClientSession() as thief:
        (cookie,) = [morsel for morsel in browser.session.cookie_jar if morsel.key == "tandem_session"]
        stolen = {"Cookie": f"tandem_session={cookie.value}"}
        async with thief.get(house.base + "/api/v1/me", headers=stolen) as response:
            assert response.status == 200
        await browser.ask("DELETE", "/api/v1/me/session")
        async with thief.get(house.base + "/api/v1/me", headers=stolen) as response:
            assert response.status == 401


async def test_a_planted_cookie_is_not_the_session_that_signing_in_opens(house: House) -> None:
    planted = await house.part.sessions.begin(Person("anna", "", UserRole.AGENT))
    async with house.browser() as browser:
        browser.session.cookie_jar.update_cookies({"tandem_session": planted}, URL(house.base))
        await browser.sign_in("sue")
        assert (await browser.ask("GET", "/api/v1/me")).body["login"] == "sue"
    assert await house.part.sessions.find(planted) is None


async def test_wrong_words_are_refused_alike_and_then_have_to_wait(tmp_path: Path) -> None:
    async with open_house(tmp_path, sign_in={"failures": 3}) as house:
        await people(house)
        async with house.browser() as browser:
            unknown = await browser.sign_in("mallory")
            wrong = await browser.sign_in("anna", "wrong password")
            assert unknown.status == wrong.status == 401
            assert unknown.body == wrong.body
            for _ in range(2):
                await browser.sign_in("anna", "wrong password")
            limited = await browser.sign_in("anna")
            assert limited.status == 429, "even with the right password"
            assert 0 < int(limited.headers["Retry-After"]) <= 901
            for _ in range(3):
                assert (await browser.sign_in("anna")).status == 429
            assert (await browser.sign_in("sue")).status == 200, "others are not concerned"
        # nothing is deleted from the audit log, so a stranger's endless tries are told of once in a while
        assert (await audited(house)).count(("anna", "sign_in", "limited")) == 1


async def test_many_tries_at_once_are_not_all_let_through(tmp_path: Path) -> None:
    async with open_house(tmp_path, sign_in={"failures": 3}) as house:
        await people(house)
        async with house.browser() as browser:
            found = await asyncio.gather(*(browser.sign_in("anna", "wrong password") for _ in range(12)))
        assert sorted({answer.status for answer in found}) == [401, 429]
        assert sum(answer.status == 401 for answer in found) == 3


def test_a_host_of_ipv6_counts_as_its_network() -> None:
    assert source("2001:db8:1:2:3::4") == source("2001:db8:1:2:ffff::1") != source("2001:db8:1:3::4")
    assert source("192.0.2.7") == "192.0.2.7"
    assert source("unknown") == "unknown"


async def test_an_address_that_guesses_at_many_accounts_has_to_wait(tmp_path: Path) -> None:
    async with open_house(tmp_path, sign_in={"failures": 1}) as house:
        async with house.browser() as browser:
            found = [(await browser.sign_in(f"somebody{number}")).status for number in range(6)]
        assert found == [401] * 5 + [429]


@pytest.mark.parametrize("body", [{}, {"login": "anna"}, {"login": "", "password": "x"}, {"login": 1}])
async def test_half_a_form_is_told_what_is_missing(house: House, body: dict[str, Any]) -> None:
    async with house.browser() as browser:
        assert (await browser.ask("POST", "/sign-in", json=body)).status == 422


async def test_a_form_of_another_site_is_refused(house: House) -> None:
    async with house.browser() as browser:
        form = {"login": "anna", "password": PASSWORD}
        assert (await browser.ask("POST", "/sign-in", data=form)).status == 415
        foreign = {"Origin": "https://evil.example"}
        assert (await browser.sign_in("anna", headers=foreign)).status == 403


async def test_disabling_an_account_ends_its_sessions_at_once(house: House) -> None:
    async with house.browser("anna") as browser:
        await house.part.accounts.set_disabled("anna", True)
        assert (await browser.ask("GET", "/api/v1/me")).status == 401
        assert (await browser.sign_in("anna")).status == 401
        await house.part.accounts.set_disabled("anna", False)
        assert (await browser.sign_in("anna")).status == 200
        await house.part.accounts.set_password("anna", "another good one")
        assert (await browser.ask("GET", "/api/v1/me")).status == 401


async def test_behind_a_tls_proxy_the_cookie_is_for_tls_only(tmp_path: Path) -> None:
    async with open_house(tmp_path, sign_in={"trusted_proxies": ["127.0.0.0/8"]}) as house:
        await people(house)
        proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
        async with house.browser() as browser:
            found = await browser.ask(
                "POST", "/sign-in", json={"login": "anna", "password": PASSWORD}, headers=proxied
            )
        cookie = found.cookies["__Host-tandem_session"]
        assert cookie["secure"]
        assert [record.remote for record in await house.part.audit.latest()] == ["192.0.2.7"]


async def test_a_stranger_cannot_say_where_he_comes_from(house: House) -> None:
    async with house.browser() as browser:
        await browser.sign_in("anna", headers={"X-Forwarded-For": "192.0.2.7"})
    assert [record.remote for record in await house.part.audit.latest()] == ["127.0.0.1"]


async def test_without_local_accounts_there_is_no_form(tmp_path: Path) -> None:
    async with open_house(tmp_path, sign_in={"local": False}) as house, house.browser() as browser:
        assert (await browser.sign_in("anna")).status == 404
        assert (await browser.ask("GET", "/sign-in/entra")).status == 404


async def test_a_database_that_is_down_is_503_and_programs_go_on(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    where = {"state_dir": tmp_path / "state", "database": f"sqlite:///{tmp_path}/db"}
    async with open_house(tmp_path, gateway=where) as house:
        async with house.browser() as browser:
            assert (await browser.sign_in("anna")).status == 503
            stale = {"Cookie": "tandem_session=x"}
            assert (await browser.ask("GET", "/api/v1/me", headers=stale)).status == 503
        async with house.program() as program:
            assert (await program.ask("GET", "/api/v1/agents")).status == 200
            assert (await program.ask("GET", "/api/v1/audit")).status == 503


# ----------------------------------------------------------------------------------------- sessions


async def test_sessions_end_when_idle_and_in_any_case(tmp_path: Path) -> None:
    clock = FakeClock()
    settings = {"idle_timeout": 600.0, "longest": 3600.0}
    async with open_house(tmp_path, clock=clock, sign_in=settings) as house:
        sessions, anna = house.part.sessions, Person("anna", "", UserRole.AGENT, Source.ENTRA)
        idle, busy = await sessions.begin(anna), await sessions.begin(anna)
        for _ in range(5):
            clock.advance(599)
            found = await sessions.find(busy)
            assert found is not None
            assert found.expires_at - clock.wall() <= timedelta(seconds=3600)
        assert await sessions.find(idle) is None
        clock.advance(599)
        assert await sessions.find(busy) is not None
        clock.advance(10)
        assert await sessions.find(busy) is None, "an hour is over"
        fresh = await sessions.begin(anna)
        clock.advance(590)
        await sessions.find(fresh, touch=False)
        clock.advance(20)
        assert await sessions.find(fresh) is None, "looking without touching keeps nothing alive"
        assert await sessions.end_all("anna", Source.ENTRA) == 1


async def test_the_database_holds_nothing_that_opens_a_session(house: House) -> None:
    token = await house.part.sessions.begin(Person("anna", "", UserRole.AGENT))

    def dump(connection: Any) -> str:
        return str(connection.execute(text("SELECT * FROM session")).all()) + str(
            connection.execute(text("SELECT * FROM account")).all()
        )

    stored = await house.part.database.run(dump)
    assert token not in stored
    assert PASSWORD not in stored
    assert "$argon2id$" in stored


async def test_real_hashes_have_owasps_parameters(house: House) -> None:
    accounts = Accounts(house.part.database)
    await accounts.add("eve", UserRole.AGENT, PASSWORD)
    stored = await house.part.database.run(
        lambda c: c.execute(text("SELECT password FROM account WHERE login = 'eve'")).scalar_one()
    )
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await accounts.check("eve", PASSWORD) == Person("eve", "eve", UserRole.AGENT)


async def test_accounts_refuse_what_cannot_be(house: House) -> None:
    accounts = house.part.accounts
    for login, password in (("anna", PASSWORD), (" x", PASSWORD), ("", PASSWORD), ("zoe", "short")):
        with pytest.raises(AccountError):
            await accounts.add(login, UserRole.AGENT, password)
    with pytest.raises(AccountError, match="no account"):
        await accounts.set_disabled("nobody", True)
    assert [account.login for account in await accounts.all()] == ["ada", "anna", "sue"]


async def test_the_audit_log_only_grows(house: House) -> None:
    await house.part.audit.record("anna", "sign_in", detail="x\nforged=1" + "y" * 500)
    for statement in ("UPDATE audit SET who = 'x'", "DELETE FROM audit"):
        with pytest.raises(StoreUnavailable, match="only grows") as caught:
            await house.part.database.run(lambda c, s=statement: c.execute(text(s)))  # type: ignore[misc]
        assert isinstance(caught.value.__cause__, SQLAlchemyError)
    (record,) = await house.part.audit.latest()
    assert "\n" not in record.detail
    assert len(record.detail) <= 300


# ---------------------------------------------------------------------------------- CSRF and origin


async def test_a_change_needs_the_token_against_cross_site_requests(house: House) -> None:
    async with house.browser("anna") as browser:
        body = {"json": {"state": "ready"}}
        path = "/api/v1/agents/anna/state"
        for shown in ("", "0" * 64, "\u00e9"):
            refused = await browser.ask("PUT", path, headers={"X-CSRF-Token": shown}, **body)
            assert (refused.status, refused.body["reason"]) == (403, "csrf")
        own = {"Origin": house.base}
        assert (await browser.ask("PUT", path, headers=own, **body)).status == 200
        foreign = {"Origin": "https://evil.example"}
        assert (await browser.ask("PUT", path, headers=foreign, **body)).body["reason"] == "foreign_origin"
        assert (await browser.ask("GET", "/api/v1/me/events", headers=foreign)).status == 403


async def test_of_two_sessions_each_has_its_own_token(house: House) -> None:
    async with house.browser("anna") as one, house.browser("anna") as other:
        assert one.csrf != other.csrf
        one.csrf = other.csrf
        assert (await one.ask("DELETE", "/api/v1/me/session")).status == 403


# ------------------------------------------------------------------------------------- whose calls


async def test_an_agent_may_do_to_himself_what_only_supervisors_may_to_others(house: House) -> None:
    async with house.browser("anna") as anna, house.browser("sue") as sue:
        ready: dict[str, Any] = {"json": {"state": "ready"}}
        assert (await anna.ask("PUT", "/api/v1/agents/anna/state", **ready)).status == 200
        refused = await anna.ask("PUT", "/api/v1/agents/bert/state", **ready)
        assert (refused.status, refused.body["reason"]) == (403, "role")
        assert house.part.agents.status("bert").state is AgentState.LOGGED_OUT
        assert (await sue.ask("PUT", "/api/v1/agents/bert/state", **ready)).status == 200
        for query, status in (("", 403), ("?agent=bert", 403), ("?agent=anna&agent=bert", 403),
                              ("?agent=anna", 200)):  # fmt: skip
            assert (await anna.ask("GET", f"/api/v1/agent-activity{query}")).status == status
    log = await audited(house)
    assert ("anna", "setAgentState", "refused") in log
    assert ("sue", "set_agent_state", "ok") in log


async def test_an_agent_asks_for_a_reason_of_the_list(house: House) -> None:
    async with house.browser("anna") as anna, house.program() as program:
        path = "/api/v1/agents/anna/state"
        golf = {"json": {"state": "not_ready", "reason": "Golf"}}
        assert (await anna.ask("PUT", path, **golf)).body["reason"] == "unknown_reason"
        assert (await program.ask("PUT", path, **golf)).body["reason"] == "Golf"
        assert (await anna.ask("PUT", path, json={"state": "ready", "reason": "x"})).status == 422
        assert (await program.ask("PUT", "/api/v1/agents/nobody/state", **golf)).status == 404


async def test_a_program_keeps_the_agents_of_the_database(house: House) -> None:
    async with house.program() as program:
        put = await program.ask("PUT", "/api/v1/agents/carl", json={"team": "Night", "numbers": ["603"]})
        assert (put.status, put.body["team"], put.body["state"]) == (200, "Night", "logged_out")
        taken = await program.ask("PUT", "/api/v1/agents/dora", json={"numbers": ["603"]})
        assert (taken.status, taken.body["reason"]) == (409, "agent_conflict")
        found = (await program.ask("GET", "/api/v1/agents")).body
        assert [agent["login"] for agent in found["agents"]] == ["carl", "anna", "bert"]
        assert (await program.ask("DELETE", "/api/v1/agents/carl")).status == 204
        assert (await program.ask("DELETE", "/api/v1/agents/carl")).status == 404
        assert (await program.ask("DELETE", "/api/v1/agents/anna")).status == 409
        activity = (await program.ask("GET", "/api/v1/agent-activity?start=2026-01-01T00:00:00Z")).body
        assert activity == {"rows": [], "next": None}
        assert (await program.ask("GET", "/api/v1/agent-activity?cursor=x")).status == 422
        assert [r["what"] for r in (await program.ask("GET", "/api/v1/audit")).body["records"]] == [
            "remove_agent", "put_agent"
        ]  # fmt: skip


# ------------------------------------------------------------------------------------- the pictures


async def test_my_picture_follows_my_state_and_my_calls(house: House) -> None:
    async with (
        house.browser("anna") as anna,
        anna.session.ws_connect(house.base + "/api/v1/me/events") as socket,
    ):
        first = await socket.receive_json(timeout=10)
        assert (first["agent"]["state"], first["calls"]) == ("logged_out", [])
        await anna.ask("PUT", "/api/v1/agents/anna/state", json={"state": "ready"})
        assert (await socket.receive_json(timeout=10))["agent"]["state"] == "ready"
        call = await house.call("anna")
        picture = await socket.receive_json(timeout=10)
        while picture["agent"]["state"] != "busy":
            picture = await socket.receive_json(timeout=10)
        assert picture["agent"]["calls"] == [call]


async def test_a_stream_is_cut_off_when_its_session_ends(house: House) -> None:
    assert house.door is not None
    house.door.watch_seconds = 0.05
    async with (
        house.browser("sue") as sue,
        sue.session.ws_connect(house.base + "/api/v1/desk/events") as socket,
    ):
        assert len((await socket.receive_json(timeout=10))["agents"]) == 2
        await house.part.accounts.set_disabled("sue", True)
        message = await socket.receive(timeout=10)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)


async def test_streams_end_when_the_gateway_stops(house: House) -> None:
    async with (
        house.browser("sue") as sue,
        sue.session.ws_connect(house.base + "/api/v1/desk/events") as socket,
    ):
        await socket.receive_json(timeout=10)
        stopping = asyncio.create_task(house.http.stop())
        message = await socket.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.CLOSE
        await stopping


async def test_a_program_is_nobody_and_a_plain_get_no_stream(house: House) -> None:
    async with house.program() as program, house.browser("sue") as sue:
        assert (await program.ask("GET", "/api/v1/me")).body["reason"] == "no_person"
        assert (await sue.ask("GET", "/api/v1/desk/events")).status == 426
        assert (await program.ask("GET", "/api/v1/desk")).body["calls"] == []


# ----------------------------------------------------- every route of the whole gateway's document


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[House]:
    """The HTTP side of a whole gateway, whose agents' room runs; nothing of it takes calls."""
    folder = tmp_path / "whole"
    config = Config.model_validate(
        {
            "gateway": {"state_dir": folder},
            "http": {"listen": "127.0.0.1:0"},
            "agent": [{"login": "anna", "numbers": ["601"]}, {"login": "bert"}],
            "limits": {"min_free_disk": 0},
            "trunk": [{"name": "cc", "peers": ["udp:127.0.0.1:5070"]}],
        }
    )
    gateway = assemble(config, Sounds(folder / "a", folder / "b"), StateDir(folder))
    house = House(config, gateway.agents, gateway.journal, gateway.recorder, gateway.http, None, Calls())
    async with running(house):
        await people(house)
        yield house


async def test_every_route_refuses_a_missing_an_expired_and_a_wrong_session(whole: House) -> None:
    async with whole.browser() as stranger, whole.browser("anna") as anna:
        document = (await stranger.ask("GET", "/openapi.json")).body
        walked, open_to_agents = set[str](), set[str]()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                name, where = operation["operationId"], re.sub(r"{\w+}", "x", path)
                if not path.startswith("/api/"):
                    assert operation.get("security") == [], f"{name}: outside of /api/ nothing is guarded"
                    continue
                walked.add(name)
                asked = {"method": method.upper(), "path": where}
                missing = await stranger.ask(**asked)
                expired = await stranger.ask(**asked, headers={"Cookie": "tandem_session=expired"})
                assert (missing.status, expired.status) == (401, 401), name
                if name == "signOut":
                    continue
                body: dict[str, Any] = {"json": {"agent": "bert"}} if "requestBody" in operation else {}
                found = await anna.ask(**asked, **body)
                if found.status == 403:
                    assert found.body["reason"] == "role", name
                else:
                    open_to_agents.add(name)
    assert open_to_agents == {"me", "myEvents", "phone"}
    assert walked == set(ACCESS), "every route stands in the table, and nothing else"


async def test_supervisors_are_refused_what_is_for_administrators(whole: House) -> None:
    async with whole.browser("sue") as sue, whole.browser("ada") as ada:
        for method, path, body in (
            ("PUT", "/api/v1/agents/x", {"numbers": []}),
            ("DELETE", "/api/v1/agents/x", None),
            ("GET", "/api/v1/audit", None),
            ("GET", "/api/v1/nothing", None),
        ):
            assert (await sue.ask(method, path, json=body)).status == 403
            assert (await ada.ask(method, path, json=body)).status in (200, 204, 404)


async def test_an_agent_commands_his_own_call_and_places_his_own_only(whole: House) -> None:
    async with whole.browser("anna") as anna:
        mine, other = await whole.call("anna"), await whole.call("bert")
        await until(lambda: whole.part.agents.calls_of("anna") == {mine})

        async def status(method: str, path: str, body: object = None) -> int:
            return (await anna.ask(method, f"/api/v1/calls{path}", json=body)).status

        # The guard lets these through to the control, which knows no such call.
        assert await status("DELETE", f"/{mine}") == 404
        assert await status("PATCH", f"/{mine}/legs/x", {"muted": True}) == 404
        assert await status("DELETE", f"/{other}") == 403
        assert await status("PATCH", f"/{mine}/legs/x", {"supervision": "listen"}) == 403
        assert await status("POST", f"/{mine}/legs/x/supervisors", {"number": "1"}) == 403
        assert await status("POST", "", {"agent": "bert", "number": "1"}) == 403
        assert await status("GET", "?agent=anna") == 200
        assert await status("GET", "") == 403


async def test_an_idempotency_key_of_one_person_is_not_anothers(whole: House) -> None:
    async with whole.browser("sue") as sue, whole.browser("ada") as ada:
        key = {"Idempotency-Key": "k1"}
        body = {"agent": "nobody", "number": "1"}
        for one in (sue, ada):
            found: Any = await one.ask("POST", "/api/v1/calls", headers=key, json=body)
            assert found.status == 404
