"""Sign-in with Entra ID: unmodified msal over TLS against the stand-in, through our own routes."""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from gateway.agents.people import UserRole
from gateway.api import sign_in
from gateway.clock import LoopClock
from gateway.config_models import Graph
from gateway.teams.sign_in import EntraSignIn, identity_of
from gateway.teams.sign_in_model import EntraIdentity, EntraRefused, EntraUnavailable
from tests.agents.house import Answered, Browser, House, open_house
from tests.peers.graph import CLIENT, SECRET, TENANT, GraphSim, make_identity

PUBLIC = "https://desk.example.test"
CALLBACK = f"{PUBLIC}/sign-in/entra/callback"
BERT, SUE, EVE = "oid-bert", "oid-sue", "oid-eve"


@dataclass
class Site:
    house: House
    sim: GraphSim
    browser: Browser

    async def to_entra(self) -> str:
        """Where the browser is sent to."""
        found = await self.browser.ask("GET", "/sign-in/entra")
        assert found.status == 302, found.body
        return str(found.headers["Location"])

    async def answer_of(self, url: str) -> dict[str, str]:
        """Entra's page: the form that it posts to us."""
        return await answer_of(self.browser.session, url)

    async def post(self, answer: dict[str, str]) -> Answered:
        foreign = {"Origin": self.sim.authority}
        return await self.browser.ask("POST", "/sign-in/entra/callback", data=answer, headers=foreign)

    async def sign_in(self, oid: str) -> Answered:
        self.sim.entra.impostor = oid
        return await self.post(await self.answer_of(await self.to_entra()))

    async def last(self) -> tuple[str, str, str]:
        record = (await self.house.part.audit.latest())[0]
        return record.who, record.result, record.detail


async def answer_of(session: aiohttp.ClientSession, url: str) -> dict[str, str]:
    async with session.get(url, ssl=False) as response:
        text = await response.text()
    assert f'action="{CALLBACK}"' in text, text
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', text)
    return {name: html.unescape(value) for name, value in fields}


def graph_of(sim: GraphSim, **more: Any) -> dict[str, Any]:
    return {
        "tenant": TENANT,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "authority": sim.authority,
        "trusted_roots": sim.roots,
        **more,
    }


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_identity(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def sim(tmp_path: Path, identity: Any) -> AsyncIterator[GraphSim]:
    async with GraphSim(LoopClock(), tmp_path / "sim", identity=identity) as sim:
        sim.registration.redirect_uris.add(CALLBACK)
        sim.registration.scopes.add("User.Read")
        sim.add_user(BERT, "Bert Example", userPrincipalName="Bert@Example.com")
        sim.add_user(SUE, "Sue Super")
        sim.add_user(EVE, "Eve Elsewhere")
        yield sim


@pytest.fixture
async def site(tmp_path: Path, sim: GraphSim, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    # What the environment says of trust must not matter: only [graph] trusted_roots does.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/dev/null")
    monkeypatch.setenv("TANDEM_TEST_GRAPH", SECRET)
    graph = graph_of(sim, client_secret="env:TANDEM_TEST_GRAPH")
    settings = {"entra": True, "public_url": PUBLIC, "trusted_proxies": ["127.0.0.0/8"]}
    async with open_house(tmp_path, graph=graph, sign_in=settings) as house, house.browser() as browser:
        yield Site(house, sim, browser)


async def test_an_agent_signs_in_with_entra(site: Site) -> None:
    assert (await site.browser.ask("GET", "/sign-in")).body == {"local": True, "entra": True}
    url = await site.to_entra()
    asked = parse_qs(urlsplit(url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["response_mode"] == ["form_post"]
    assert SECRET not in url
    site.sim.entra.impostor = BERT
    found = await site.post(await site.answer_of(url))
    assert (found.status, found.headers["Location"]) == (303, "/")
    me = (await site.browser.ask("GET", "/api/v1/me")).body
    assert (me["login"], me["name"], me["role"], me["source"]) == ("bert", "Bert Example", "agent", "entra")
    assert await site.last() == ("bert", "ok", "entra agent")


async def test_who_begins_a_thousand_sign_ins_forgets_only_his_own(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop of anonymous requests let everybody's sign-in expire."""
    monkeypatch.setattr(sign_in, "_MOST_FLOWS", 6)
    monkeypatch.setattr(sign_in, "_MOST_OF_ONE", 3)
    url = await site.to_entra()
    async with site.house.browser() as stranger:
        for _ in range(8):
            other = {"X-Forwarded-For": "192.0.2.9"}
            assert (await stranger.ask("GET", "/sign-in/entra", headers=other)).status == 302
    site.sim.entra.impostor = BERT
    found = await site.post(await site.answer_of(url))
    assert (found.status, found.headers["Location"]) == (303, "/")


async def test_an_app_role_makes_a_supervisor_of_who_is_no_agent(site: Site) -> None:
    site.sim.entra.claims = {"roles": ["supervisor", "something else"]}
    assert (await site.sign_in(SUE)).headers["Location"] == "/"
    me = (await site.browser.ask("GET", "/api/v1/me")).body
    assert (me["login"], me["role"], me["agent"]) == ("sue.super@contoso.test", "supervisor", None)
    assert (await site.browser.ask("GET", "/api/v1/agents")).status == 200


async def test_an_agent_with_an_app_role_keeps_his_login(site: Site) -> None:
    site.sim.entra.claims = {"roles": ["administrator"]}
    await site.sign_in(BERT)
    me = (await site.browser.ask("GET", "/api/v1/me")).body
    assert (me["login"], me["role"]) == ("bert", str(UserRole.ADMINISTRATOR))


async def test_who_is_nobody_here_stays_outside(site: Site) -> None:
    found = await site.sign_in(EVE)
    assert found.headers["Location"] == "/?refused=unknown_here"
    assert (await site.browser.ask("GET", "/api/v1/me")).status == 401
    assert (await site.last())[1] == "failed"


@pytest.mark.parametrize(
    "lie",
    [
        {"aud": "another-application"},
        {"tid": "another-tenant"},
        {"iss": "https://evil.example/" + TENANT},
        {"exp": 1_000_000_000},
        {"nonce": "0" * 64},
        {"oid": ""},
    ],
)
async def test_an_id_token_that_is_not_for_us_opens_nothing(site: Site, lie: dict[str, Any]) -> None:
    site.sim.entra.claims = lie
    found = await site.sign_in(BERT)
    assert found.headers["Location"] in ("/?refused=bad_token", "/?refused=bad_answer")
    assert (await site.browser.ask("GET", "/api/v1/me")).status == 401


async def test_the_answer_counts_once_and_for_the_browser_that_set_out(site: Site) -> None:
    site.sim.entra.impostor = BERT
    answer = await site.answer_of(await site.to_entra())
    async with site.house.browser() as victim:
        # An attacker has a victim's browser post his own answer, to have it signed in as himself.
        found = await victim.ask("POST", "/sign-in/entra/callback", data=answer)
        assert found.headers["Location"] == "/?refused=expired"
    assert (await site.post(answer)).headers["Location"] == "/"
    assert (await site.post(answer)).headers["Location"] == "/?refused=expired"


async def test_a_foreign_state_is_refused(site: Site) -> None:
    site.sim.entra.impostor = BERT
    answer = await site.answer_of(await site.to_entra())
    found = await site.post({**answer, "state": secrets.token_hex(8)})
    assert found.headers["Location"] == "/?refused=expired"


async def test_declined_consent_is_told(site: Site) -> None:
    site.sim.registration.scopes.clear()
    found = await site.sign_in(BERT)
    assert found.headers["Location"] == "/?refused=entra_refused"
    assert "AADSTS65004" in (await site.last())[2]


async def test_a_wrong_secret_is_told_without_it(site: Site) -> None:
    site.sim.registration.secrets.clear()
    found = await site.sign_in(BERT)
    assert found.headers["Location"] == "/?refused=entra_refused"
    assert "AADSTS7000215" in (await site.last())[2]
    assert SECRET not in (await site.last())[2]


async def test_entra_that_is_away_is_503(site: Site) -> None:
    await site.sim.close()
    found = await site.browser.ask("GET", "/sign-in/entra")
    assert (found.status, found.body["reason"]) == (503, "no_entra")


async def test_tokens_go_to_who_acts_for_the_person_and_trust_is_checked(
    sim: GraphSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_TEST_GRAPH", SECRET)
    kept: list[tuple[EntraIdentity, str]] = []
    graph = Graph.model_validate(graph_of(sim, client_secret="env:TANDEM_TEST_GRAPH"))
    entra = EntraSignIn(graph, CALLBACK, kept=lambda who, cache: kept.append((who, cache)))
    untrusting = EntraSignIn(graph.model_copy(update={"trusted_roots": None}), CALLBACK)
    try:
        with pytest.raises(EntraUnavailable):
            await untrusting.begin()
        flow = await entra.begin()
        with pytest.raises(EntraRefused):
            await entra.finish(flow, {"code": "x", "state": "another"})
        with pytest.raises(EntraRefused, match="AADSTS70008"):
            await entra.finish(flow, {"code": "x", "state": flow.state})
        assert kept == []
        flow, sim.entra.impostor = await entra.begin(), BERT
        async with aiohttp.ClientSession() as session:
            answer = await answer_of(session, flow.url)
        who = await entra.finish(flow, answer)
        assert [one for one, _ in kept] == [who]
        assert "RefreshToken" in kept[0][1]
    finally:
        entra.close()
        untrusting.close()


def test_claims_of_microsofts_form_are_understood() -> None:
    claims = {
        "aud": CLIENT, "tid": TENANT, "oid": "o1", "exp": 2000, "preferred_username": "a@b.c",
        "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "roles": ["supervisor"],
    }  # fmt: skip
    found = identity_of(
        claims, client_id=CLIENT, tenant=TENANT, authority="https://login.microsoftonline.com", now=2100
    )
    assert found == EntraIdentity("o1", TENANT, "a@b.c", "a@b.c", frozenset({"supervisor"}))
    with pytest.raises(EntraRefused, match="expired"):
        identity_of(
            claims, client_id=CLIENT, tenant=TENANT, authority="https://login.microsoftonline.com", now=2400
        )
