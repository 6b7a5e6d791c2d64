"""Account, users, directory, chats and channels, over the API as a program uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.agents.people import UserRole
from gateway.api.metrics import Metrics
from gateway.api.openapi import document
from gateway.api.server import HttpApi
from gateway.api.sessions_access import TEAMS_ACCESS, Own, Rule, rule_of
from gateway.teams.account_model import Account
from gateway.teams.chats import Popped
from gateway.teams.errors import SignInNeeded
from gateway.teams.routes import teams_operations
from gateway.teams.store import Shelf
from gateway.teams.wiring import teams_readings
from tests.peers.graph import CLIENT, SECRET, TENANT, GraphSim
from tests.support.clock import FakeClock
from tests.teams.acting import drive
from tests.teams.conftest import ANN, ERIKA, MAX
from tests.teams.room_stage import LOGIN, RoomStage, good_account

TEAM, GENERAL = "team-1", "19:general@thread.tacv2"
MINE = f"/api/v1/agents/{LOGIN}/teams"


class Api:
    """The operations behind a server of our own, with a token."""

    def __init__(self, stage: RoomStage) -> None:
        status: Any = None
        self.server = HttpApi("127.0.0.1:0", status=status, metrics=Metrics(), tokens={"test": "test-token"})
        self.server.add_routes(teams_operations(stage.room))

    async def __call__(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        host, port = self.server.address
        headers = {"Authorization": "Bearer test-token"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, f"http://{host}:{port}{path}", json=body, params=query) as answer,
        ):
            return answer.status, await answer.json(content_type=None) if answer.status != 204 else None


@pytest.fixture
async def stage(sim: GraphSim, clock: FakeClock, tmp_path: Path) -> AsyncIterator[RoomStage]:
    for oid in (ANN, ERIKA):
        sim.presence.client(oid, "Available", "Available")
    sim.conversations.team(TEAM, "Support", [ANN, ERIKA])
    sim.conversations.channel(TEAM, GENERAL, "General")
    async with RoomStage(sim, clock, tmp_path, good_account()) as made:
        yield made


@pytest.fixture
async def api(stage: RoomStage) -> AsyncIterator[Api]:
    made = Api(stage)
    await made.server.start()
    yield made
    await made.server.stop()


# -- the account --


async def test_the_account_is_shown_without_its_secret(stage: RoomStage, api: Api) -> None:
    status, body = await api("GET", "/api/v1/teams/account")
    assert (status, body["tenant"], body["client_id"]) == (200, TENANT, CLIENT)
    assert SECRET not in str(body)
    assert await api("POST", "/api/v1/teams/account/check") == (200, {"ok": True, "cause": ""})


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"client_secret": "wrong"}, "client secret is wrong"),
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, "client id is not known"),
    ],
)
async def test_testing_the_connection_names_the_cause(
    stage: RoomStage, change: dict[str, Any], cause: str
) -> None:
    found = await stage.room.check(replace(good_account(), **change))
    assert not found.ok
    assert cause in found.cause


async def test_a_missing_permission_is_named(stage: RoomStage) -> None:
    stage.sim.registration.app_roles.discard("Presence.ReadWrite.All")
    found = await stage.room.check()
    assert "Presence.ReadWrite.All" in found.cause


@pytest.mark.parametrize(("days", "warned"), [(16, False), (15, True), (1, True), (0, True), (-1, True)])
async def test_the_secrets_end_is_announced_from_fifteen_days_before(
    stage: RoomStage, caplog: pytest.LogCaptureFixture, days: int, warned: bool
) -> None:
    end = date.fromordinal(stage.clock.wall().date().toordinal() + days)
    view = await stage.room.save_account(replace(good_account(), secret_expires=end))
    assert (view.days_left, bool(view.warning)) == (days, warned)
    assert ("event=secret_expiring" in caplog.text) is warned
    assert view.warning in stage.room.health().text
    assert stage.room.health().ok
    readings = {one.name: one.value for one in teams_readings(stage.room)}
    assert readings["tandem_teams_secret_expires_seconds"] == days * 86400


async def test_deleting_the_account_disables_everybody_until_each_enables_again(
    stage: RoomStage, api: Api
) -> None:
    await stage.enable()
    assert (await api("GET", MINE))[1]["enabled"]
    assert (await api("DELETE", "/api/v1/teams/account"))[0] == 204
    await stage.quiet()
    assert stage.sim.subscriptions.all == {}
    assert not (await api("GET", MINE))[1]["enabled"]
    assert (await api("GET", "/api/v1/teams/people"))[0] == 409
    await stage.room.stop()
    await stage.open()
    assert stage.room.accounts.account is None
    body = {"tenant": TENANT, "client_id": CLIENT, "client_secret": SECRET, "secret_expires": "2027-01-31"}
    assert (await api_of(stage, "PUT", "/api/v1/teams/account", body))[0] == 200
    assert not stage.room.users.enabled
    await stage.enable()
    assert list(stage.room.users.enabled) == [LOGIN]


async def restart(stage: RoomStage) -> None:
    await stage.room.stop()
    await stage.open()


NEW = {
    "tenant": TENANT, "client_id": CLIENT, "client_secret": "another~secret", "secret_expires": "2027-01-31",
}  # fmt: skip


async def test_an_account_entered_at_the_desktop_outlives_a_restart(stage: RoomStage) -> None:
    """`[graph]` was taken over again at every start: its old secret came back, without the day it ends."""
    await stage.enable()
    stage.sim.registration.secrets.add("another~secret")
    assert (await api_of(stage, "PUT", "/api/v1/teams/account", NEW))[0] == 200
    await restart(stage)
    account = stage.room.accounts.account
    assert account is not None
    assert (account.client_secret, account.secret_expires) == ("another~secret", date(2027, 1, 31))
    assert list(stage.room.users.enabled) == [LOGIN]
    stage.account = Account(TENANT, CLIENT, SECRET, "object-1", date(2027, 6, 30))
    await restart(stage)
    assert stage.room.accounts.account == stage.account, "the configuration changed since"


async def test_what_replaced_the_configured_account_and_was_deleted_stays_deleted(stage: RoomStage) -> None:
    """The fingerprint of the deleted one was kept, which is not the configured one's: that came back."""
    stage.sim.registration.secrets.add("another~secret")
    assert (await api_of(stage, "PUT", "/api/v1/teams/account", NEW))[0] == 200
    assert (await api_of(stage, "DELETE", "/api/v1/teams/account", None))[0] == 204
    await restart(stage)
    assert stage.room.accounts.account is None


async def test_another_application_in_the_configuration_turns_teams_off_for_everybody(
    stage: RoomStage,
) -> None:
    await stage.enable()
    stage.account = Account(TENANT, "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee", SECRET)
    await restart(stage)
    assert stage.room.accounts.account == stage.account
    assert stage.room.users.enabled == {}
    assert await stage.room._store.all(Shelf.TOKENS) == {}


async def test_deleting_the_account_does_not_wait_for_graph(stage: RoomStage) -> None:
    """Each user's subscriptions were ended first, and a request to a dead Graph takes a minute."""
    await stage.enable()
    stage.desks.take_call(LOGIN)
    await stage.quiet()
    stage.sim.trouble("/subscriptions/", 503, count=-1)
    stage.sim.trouble("clearPresence", 503, count=-1)
    async with asyncio.timeout(5):
        await stage.room.delete_account()
    assert stage.room.users.enabled == {}
    await restart(stage)
    assert stage.room.accounts.account is None
    for shelf in (Shelf.TOKENS, Shelf.USER, Shelf.SUBSCRIPTION, Shelf.SYNC, Shelf.SEEN):
        assert await stage.room._store.all(shelf) == {}


async def api_of(stage: RoomStage, method: str, path: str, body: Any) -> tuple[int, Any]:
    api = Api(stage)
    await api.server.start()
    try:
        return await api(method, path, body)
    finally:
        await api.server.stop()


async def test_a_new_secret_of_the_same_application_keeps_the_users(stage: RoomStage) -> None:
    await stage.enable()
    stage.sim.registration.secrets.add("another~secret")
    await stage.room.save_account(Account(TENANT, CLIENT, "another~secret"))
    assert list(stage.room.users.enabled) == [LOGIN]


# -- users --


async def test_only_the_mapped_user_may_enable_teams(stage: RoomStage, api: Api) -> None:
    response = await stage.enable(hint=ERIKA)
    assert response.status == 403
    assert not (await api("GET", MINE))[1]["enabled"]
    assert (await api("GET", f"{MINE}/chats"))[0] == 409
    assert (await stage.enable()).status == 200
    assert (await api("GET", MINE))[1] == {
        "enabled": True, "name": "Ann Agent", "sign_in": "", "oid": ANN,
    }  # fmt: skip
    assert (await stage.enable(login="bob", hint=ERIKA)).status == 403
    with pytest.raises(SignInNeeded):
        stage.room.enabled("bob")


async def test_a_mapping_that_changed_counts_after_a_restart(stage: RoomStage) -> None:
    await stage.enable()
    stage.mapped = {LOGIN: "erika.expert@contoso.test"}
    await stage.room.stop()
    await stage.open()
    assert stage.room.users.enabled == {}
    assert (await stage.enable(hint=ANN)).status == 403
    assert (await stage.enable(hint=ERIKA)).status == 200


async def test_a_mapping_that_changes_counts_at_once(stage: RoomStage, api: Api) -> None:
    """Who took over a login could read and write the chats of the one before until a restart."""
    await stage.enable()
    await stage.room.connected.chats.open_chat(LOGIN, ERIKA)
    stage.mapped = {LOGIN: ANN.upper(), "bob": MAX}
    stage.room.mapping_changed()
    assert list(stage.room.users.enabled) == [LOGIN], "he is still the same"
    stage.mapped = {LOGIN: "erika.expert@contoso.test"}
    stage.room.mapping_changed()
    assert (await api("GET", f"{MINE}/chats"))[0] == 409
    await stage.quiet()
    assert stage.sim.subscriptions.all == {}
    for shelf in (Shelf.TOKENS, Shelf.USER, Shelf.SYNC, Shelf.SEEN):
        assert await stage.room._store.all(shelf) == {}
    assert (await stage.enable(hint=ANN)).status == 403
    assert (await stage.enable(hint=ERIKA)).status == 200
    stage.mapped = {}
    stage.room.mapping_changed()
    await stage.quiet()
    assert stage.room.users.enabled == {}


# -- the directory --


async def test_people_are_found_as_one_types(stage: RoomStage, api: Api) -> None:
    status, body = await api("GET", "/api/v1/teams/people", q="eri")
    assert status == 200
    (erika,) = body["people"]
    assert (erika["name"], erika["availability"], erika["number"]) == (
        "Erika Expert",
        "Available",
        "+15550102",
    )
    assert [one["oid"] for one in (await api("GET", "/api/v1/teams/people", q="max.ex"))[1]["people"]] == [
        MAX
    ]
    for strange in ('"', '\\"', "a&b", "'", "x" * 100):
        assert (await api("GET", "/api/v1/teams/people", q=strange))[0] == 200


async def test_who_has_no_phone_is_called_through_the_attendant(stage: RoomStage) -> None:
    (found,) = await stage.room.connected.directory.search("Max")
    assert (found.number, found.digits) == ("+15550100", "16293973783#")


# -- chats --


async def test_a_chat_with_an_expert(stage: RoomStage, api: Api) -> None:
    await stage.enable()
    popped: list[Popped] = []
    stage.room.connected.chats.subscribe(popped.append)
    talk = stage.sim.conversations
    talk.group("a group", ANN, ERIKA, MAX)
    status, chat = await api("POST", f"{MINE}/chats", {"user": ERIKA})
    assert (status, chat["peer_name"]) == (200, "Erika Expert")
    path = f"{MINE}/chats/{chat['id'].replace('@', '%40')}"
    assert (await api("POST", f"{path}/messages", {"text": "<b>hello</b>"}))[0] == 201
    await stage.quiet()
    assert popped == []
    thread = talk.chats[chat["id"]]
    attachments = [
        {"id": "1", "contentType": "reference", "name": "plan.docx", "contentUrl": "https://x/plan.docx"},
        {"id": "2", "contentType": "application/vnd.microsoft.card.adaptive", "content": "{}"},
    ]
    talk.post(thread, stage.sim.users[ERIKA], "<p>see</p>", contentType="html", attachments=attachments)
    await stage.quiet()
    assert [one.message.labels for one in popped] == [
        ("plan.docx", "application/vnd.microsoft.card.adaptive")
    ]
    stage.clock.advance(2)
    status, body = await api("GET", f"{path}/messages")
    assert [one["text"] for one in body["messages"]] == ["<b>hello</b>", "see"]
    assert (await api("PUT", f"{path}/favourite", {"favourite": True}))[0] == 204
    (listed,) = (await api("GET", f"{MINE}/chats"))[1]["chats"]
    assert (listed["peer"], listed["favourite"]) == (ERIKA, True)


async def test_messages_of_one_chat_keep_their_order(stage: RoomStage) -> None:
    await stage.enable()
    chats = stage.room.connected.chats
    chat = await chats.open_chat(LOGIN, ERIKA)

    async def say() -> None:
        await asyncio.gather(*(chats.send(LOGIN, chat.id, str(number)) for number in range(8)))

    await drive(stage.clock, say())
    thread = stage.sim.conversations.chats[chat.id]
    assert [one["body"]["content"] for one in thread.messages.values()] == [str(n) for n in range(8)]


async def test_a_channel_has_threads_and_one_conversation_at_a_time(stage: RoomStage, api: Api) -> None:
    await stage.enable()
    popped: list[Popped] = []
    stage.room.connected.chats.subscribe(popped.append)
    path = f"{MINE}/channels/{TEAM}/{GENERAL.replace(':', '%3A').replace('@', '%40')}"
    assert (await api("POST", f"{path}/messages", {"text": "too early"}))[0] == 409
    assert (await api("PUT", path))[0] == 200
    assert (await api("PUT", path))[0] == 409
    stage.clock.advance(2)
    status, root = await api("POST", f"{path}/messages", {"text": "who knows?"})
    assert status == 201
    channel = stage.sim.conversations.channels[(TEAM, GENERAL)]
    stage.sim.conversations.post(channel, stage.sim.users[ERIKA], "I do", replyToId=root["id"])
    await stage.quiet()
    assert [(one.message.text, one.message.thread) for one in popped] == [("I do", root["id"])]
    stage.clock.advance(2)
    await api("POST", f"{path}/messages", {"text": "thanks", "thread": root["id"]})
    stage.clock.advance(2)
    status, body = await api("GET", f"{path}/messages", thread=root["id"])
    assert [one["text"] for one in body["messages"]] == ["I do", "thanks"]
    (listed,) = (await api("GET", f"{MINE}/channels"))[1]["channels"]
    assert (listed["name"], listed["open"]) == ("General", True)
    assert (await api("DELETE", path))[0] == 204
    assert len(stage.sim.subscriptions.all) == 2
    stage.sim.conversations.post(channel, stage.sim.users[ERIKA], "anything else?")
    await stage.quiet()
    assert len(popped) == 1


async def test_without_an_account_the_room_is_there_and_says_so(
    sim: GraphSim, clock: FakeClock, tmp_path: Path
) -> None:
    async with RoomStage(sim, clock, tmp_path, None) as stage:
        assert stage.room.health().ok
        assert (await api_of(stage, "GET", "/api/v1/teams/people", None))[0] == 409
        assert (await api_of(stage, "GET", "/api/v1/teams/account", None))[0] == 404


async def test_a_lost_key_turns_teams_off_and_nothing_else(stage: RoomStage) -> None:
    await stage.room.stop()
    (stage.folder / "teams.key").unlink()
    await stage.open()
    assert stage.room.health().ok
    assert "restore the key" in stage.room.health().text


async def test_each_operation_has_its_role(stage: RoomStage) -> None:
    operations = {one.name: one.path for one in teams_operations(stage.room)}
    assert set(TEAMS_ACCESS) <= set(operations)
    for name, path in operations.items():
        if "{login}" in path:
            assert rule_of(name).own is Own.LOGIN, name
        elif "account" in path:
            assert rule_of(name) == Rule(UserRole.ADMINISTRATOR), name


async def test_the_operations_make_a_document(stage: RoomStage) -> None:
    operations = teams_operations(stage.room)
    found = document(operations)
    assert len({one.name for one in operations}) == len(operations)
    assert f"{MINE.replace(LOGIN, '{login}')}/chats" in found["paths"]
