"""The whole gateway with `[graph]`, as a process: one agent's day, and where her secrets are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.agents.states import EXTERNAL_BUSY
from tests.calls.conftest import engine, engine_settings, pki
from tests.peers.certs import Identity, Pki
from tests.peers.graph import CLIENT
from tests.support.waiting import until
from tests.teams.conftest import ANN, ERIKA
from tests.teams.plant import SECRET, TOKEN, Desk, TeamsPlant, open_teams_plant

__all__ = ["engine", "engine_settings", "pki"]

MINE = "/api/v1/agents/anna/teams"
IN_A_CALL, AVAILABLE = ("Busy", "InACall"), ("Available", "Available")
EXPERT = "+15551230000"
BODY = "canary-message-body"
ECHO = 0.5


@pytest.fixture
async def plant(
    pki: Pki, tmp_path: Path, graph_identity: tuple[Identity, Path], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TeamsPlant]:
    monkeypatch.setenv("TANDEM_TEST_GRAPH", SECRET)
    monkeypatch.setenv("TANDEM_TEST_TOKEN", TOKEN)
    async with open_teams_plant(pki, tmp_path, graph_identity) as made:
        made.sim.subscriptions.delivery.delay = ECHO
        yield made


async def busy_sync_without_calls(plant: TeamsPlant, desk: Desk) -> None:
    """A call in Teams, which the desk follows."""
    await desk.ask("PUT", "/api/v1/agents/anna/state", {"state": "ready"})
    await desk.sees(lambda d: d.state == ("ready", ""), "Ready")
    plant.sim.presence.client(ANN, *IN_A_CALL)
    await desk.sees(lambda d: d.state == ("not_ready", EXTERNAL_BUSY), "Not Ready by Teams")
    await desk.sees(lambda d: d.teams["busy_sync"]["desk"] == "held", "why")
    plant.sim.presence.client(ANN, *AVAILABLE)
    await desk.sees(lambda d: d.state == ("ready", ""), "Ready again")


async def test_an_agents_day_over_restarts_and_where_her_secrets_are_not(plant: TeamsPlant) -> None:
    sim = plant.sim
    async with plant.desk() as desk:
        # One sign-in serves desk and Teams.
        await desk.sign_in()
        await desk.watch()
        await desk.sees(lambda d: bool(d.teams) and d.teams["connected"], "Teams")
        assert (desk.teams["mapped"], desk.teams["enabled"]) == (True, False)
        status, found = await desk.ask("POST", MINE)
        assert (status, found["enabled"], found["sign_in"]) == (200, True, "")
        assert sim.entra.requests.count("authorize") == 1
        await desk.sees(lambda d: d.teams["enabled"], "Teams enabled")
        # Graph reaches us over HTTPS.
        await until(lambda: len(sim.subscriptions.all) == 2, 60)
        assert all(one.url.startswith("https://") for one in sim.subscriptions.all.values())
        await busy_sync_without_calls(plant, desk)
        chat = sim.conversations.one_to_one(ANN, ERIKA)
        sim.conversations.post(chat, sim.users[ERIKA], f"{BODY} one")
        await desk.sees(lambda d: d.messages() == [f"{BODY} one"], "a message")
        path = f"{MINE}/chats/{chat.id.replace('@', '%40')}/messages"
        assert (await desk.ask("POST", path, {"text": f"{BODY} two"}))[0] == 201
        # A real call: the desk is Busy, and so is Teams; our echo changes nothing.
        agent = await plant.center.call(EXPERT)
        expert = await plant.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        await desk.sees(lambda d: d.state[0] == "busy", "Busy")
        await until(lambda: sim.presence.shown(ANN) == IN_A_CALL, 60)
        await desk.sees(lambda d: d.teams["busy_sync"]["teams"] == "set", "that it is ours")
        # Restarted in place, in the middle of the call: one bulk read, and Busy goes on.
        asked = sim.count("POST", "getPresencesByUserId")
        reads = sim.count("GET", "presence")
        await plant.restart()
        await until(lambda: sim.count("POST", "getPresencesByUserId") == asked + 1, 60)
        await until(lambda: sim.presence.shown(ANN) == IN_A_CALL, 60)
        assert sim.count("GET", "presence") == reads
        last = desk.events[-1]["id"]
        await desk.watch(last)
        await desk.sees(lambda d: "restart" in d.reasons(), "that it must read again")
        await desk.sees(lambda d: d.state[0] == "busy", "Busy after the restart")
        # Killed, and the call ends while the new one comes up or later: Teams is released.
        await plant.kill_and_start()
        await until(lambda: sim.presence.sessions(ANN).get(CLIENT) == IN_A_CALL, 60)
        await desk.watch()
        await expert.hang_up()
        await agent.expect_end()
        await until(lambda: sim.presence.sessions(ANN).get(CLIENT) in (AVAILABLE, None), 60)
        await desk.sees(lambda d: d.state[0] in ("ready", "after_call_work"), "the end of the call")
        await asyncio.sleep(2 * ECHO)
        assert desk.state[1] != EXTERNAL_BUSY, "our own echo made her Not Ready"
        await until(lambda: len(sim.subscriptions.all) == 2, 60)
        sim.conversations.post(chat, sim.users[ERIKA], f"{BODY} three")
        await desk.sees(lambda d: f"{BODY} three" in d.messages(), "a message after the restart")
        assert desk.messages().count(f"{BODY} one") == 1
        await web_chats(plant, desk)
        await trouble(plant, desk)
        plant.answers.append((await plant.program("GET", "/metrics"))[1])
    await plant.end()
    nothing_of_it(plant)


async def web_chats(plant: TeamsPlant, desk: Desk) -> None:
    """The chat server brings them; an agent has her own."""
    keys = []
    for login in ("anna", "bert"):
        body = {"agent": login, "customer_name": "Carla"}
        status, found = await plant.program("POST", "/api/v1/web-chats", body)
        assert status == 201
        keys.append(found["id"])
    mine, other = (f"/api/v1/web-chats/{key}" for key in keys)
    await desk.sees(lambda d: "web_chat" in [one["kind"] for one in d.events], "her web chat")
    status, listed = await desk.ask("GET", "/api/v1/web-chats?agent=anna")
    assert [one["id"] for one in listed["web_chats"]] == keys[:1]
    assert (await desk.ask("GET", "/api/v1/web-chats"))[0] == 403
    assert (await desk.ask("GET", "/api/v1/web-chats?agent=bert"))[0] == 403
    assert (await desk.ask("POST", "/api/v1/web-chats", {"agent": "anna", "customer_name": "x"}))[0] == 403
    assert (await desk.ask("PUT", f"{mine}/expert", {"user": ERIKA}))[1]["expert"] == ERIKA
    said = {"from": "agent", "text": f"{BODY} four"}
    assert (await desk.ask("POST", f"{mine}/messages", said))[1]["name"] == "Ann Agent"
    assert (await desk.ask("POST", f"{mine}/messages", {**said, "from": "customer"}))[0] == 403
    tries: tuple[tuple[str, str, dict[str, str] | None], ...] = (
        ("GET", other, None), ("DELETE", other, None), ("GET", f"{other}/messages", None),
        ("POST", f"{other}/messages", said), ("PUT", f"{other}/expert", {"user": ERIKA}),
        ("DELETE", f"{other}/expert", None),
    )  # fmt: skip
    for method, path, sent in tries:
        assert (await desk.ask(method, path, sent))[0] == 404, (method, path)
    assert (await desk.ask("DELETE", mine))[0] == 204
    thread = plant.sim.conversations.one_to_one(ANN, ERIKA)
    over = "Carla no longer reads what is written here."
    await until(lambda: over in [one["body"]["content"] for one in thread.messages.values()], 60)


async def trouble(plant: TeamsPlant, desk: Desk) -> None:
    """What errors say: of Graph, of Entra ID, of ourselves."""
    sim = plant.sim
    chat = sim.conversations.one_to_one(ANN, ERIKA)
    path = f"{MINE}/chats/{chat.id.replace('@', '%40')}/messages"
    sim.trouble("/messages", 403, count=1, method="POST")
    assert (await desk.ask("POST", path, {"text": f"{BODY} refused"}))[0] == 409
    assert (await desk.ask("POST", path, {"text": 7, "secret": f"{BODY} misshapen"}))[0] == 422
    wrong = {
        "tenant": "11111111-2222-3333-4444-555555555555",
        "client_id": CLIENT,
        "client_secret": "canary-wrong",
    }
    status, found = await plant.program("POST", "/api/v1/teams/account/test", wrong)
    assert (status, found["ok"]) == (200, False)
    assert "client secret is wrong" in found["cause"]
    sim.entra.expire_access_tokens()
    sim.entra.revoked.add(ANN)
    assert (await desk.ask("GET", f"{MINE}/chats"))[1]["reason"] == "sign_in_needed"
    await desk.sees(lambda d: d.teams["sign_in_needed"], "that she has to sign in again")
    sim.entra.revoked.clear()
    await desk.sign_in()
    await desk.watch()
    await desk.sees(lambda d: not d.teams["sign_in_needed"], "that signing in at the desk was enough")
    assert (await desk.ask("GET", f"{MINE}/chats"))[0] == 200


def nothing_of_it(plant: TeamsPlant) -> None:
    """No token, secret or message body in log, journals, database, rows, answers of errors, or metrics."""
    sim = plant.sim
    secrets = {SECRET, TOKEN, "canary-wrong", *sim.entra.issued}
    secrets |= {one.client_state for one in sim.subscriptions.all.values()}
    assert len(secrets) > 10
    bodies = {BODY}
    for place, text in places(plant):
        found = [one for one in secrets | bodies if one.encode() in text]
        assert not found, f"{place}: {found[0][:24]}"
    said = [text for text in plant.answers if '"reason"' in text and '"status"' in text]
    assert said
    for answer in plant.answers:
        assert not [one for one in secrets - {TOKEN} if one in answer], answer[:200]
    assert not [text for text in said if BODY in text]
    assert 'level = "debug"' in plant.config.read_text()
    assert " DEBUG " in plant.log


def places(plant: TeamsPlant) -> Iterator[tuple[str, bytes]]:
    """Everything that the gateway left on the disk, but sound."""
    yield "log", plant.log.encode()
    for file in [*plant.state.rglob("*"), *(plant.folder / "rows").rglob("*")]:
        if file.is_file() and "media" not in file.parts and "sounds" not in file.parts:
            yield str(file.relative_to(plant.folder)), file.read_bytes()
