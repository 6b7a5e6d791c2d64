"""A customer's web chat that a Teams expert joins: over the API, to the webhook, and over restarts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.api.metrics import Metrics
from gateway.api.openapi import document
from gateway.api.server import HttpApi
from gateway.api.sessions_access import WEB_CHAT_ACCESS
from gateway.teams.chats import Popped
from gateway.teams.errors import StoreFault
from gateway.teams.messages import Message
from gateway.teams.messages import message as read_message
from gateway.teams.room import TeamsRoom
from gateway.teams.store import Shelf
from gateway.teams.web_chat_routes import WEB_CHATS, web_chat_operations
from gateway.teams.wiring import teams_readings
from gateway.webhook import signature
from tests.peers.graph import GraphSim
from tests.peers.graph_chats import Thread
from tests.support.clock import FakeClock
from tests.support.waiting import until
from tests.teams.acting import drive, next_pause
from tests.teams.conftest import ANN, ERIKA, MAX
from tests.teams.room_stage import LOGIN, RoomStage, good_account

SECRET = "hook-secret"
CARD = "application/vnd.microsoft.card.adaptive"


class ChatServer:
    """The contact center's chat server: takes events, each once, and checks who sent them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.posts = 0
        self.status = 200
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        app = web.Application()
        app.router.add_post("/hook", self._post)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.posts += 1
        shown = request.headers["Tandem-Signature"]
        match = re.fullmatch(r"t=(\d+),v1=[0-9a-f]{64}", shown)
        assert match is not None
        assert shown == signature(SECRET.encode(), int(match[1]), body)
        event = json.loads(body)
        assert request.headers["Idempotency-Key"] == event["id"]
        if self.status == 200 and event["id"] not in [one["id"] for one in self.events]:
            self.events.append(event)
        return web.Response(status=self.status)

    def told(self) -> list[tuple[str, str]]:
        """What happened, and the text."""
        return [(one["event"], (one["message"] or {}).get("text", "")) for one in self.events]


class WebStage(RoomStage):
    """The room with web chats behind a server of their own."""

    hook = ""

    async def open(self) -> None:
        await super().open()
        status: Any = None
        self.server = HttpApi("127.0.0.1:0", status=status, metrics=Metrics(), tokens={"center": "t0ken"})
        self.server.add_routes(web_chat_operations(self.room.web_chats))
        await self.server.start()

    def make(self, settings: Any) -> TeamsRoom:
        hook = (self.hook, SECRET, 5.0) if self.hook else None
        return super().make(replace(settings, hook=hook))

    async def close(self) -> None:
        await self.server.stop()
        await self.room.stop()

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()
        await super().__aexit__()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Also when Graph's pace has to be waited for."""
        return await drive(self.clock, self._ask(method, path, body, headers))

    async def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        host, port = self.server.address
        headers = {"Authorization": "Bearer t0ken", **headers}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, f"http://{host}:{port}{WEB_CHATS}{path}", json=body) as answer,
        ):
            return answer.status, await answer.json(content_type=None) if answer.status != 204 else None

    async def begin(self, name: str = "Carla Customer") -> str:
        status, chat = await self.ask("POST", "", {"agent": LOGIN, "customer_name": name, "reference": "c-1"})
        assert (status, chat["state"], chat["expert"]) == (201, "open", "")
        return f"/{chat['id']}"

    async def settle(self) -> None:
        """Until nothing is under way; what waits for the clock gets its time."""
        for _ in range(400):
            await asyncio.sleep(0.002)
            due = next_pause(self.clock)
            if due is not None and due - self.clock.now() < 15:
                self.clock.advance(max(due - self.clock.now(), 0))
            elif self.room.idle and self.sim.subscriptions.idle:
                break
        await self.quiet()

    @property
    def talk(self) -> Thread:
        return self.sim.conversations.one_to_one(ANN, ERIKA)

    def in_teams(self) -> list[str]:
        """What the expert reads."""
        return [one["body"]["content"] for one in self.talk.messages.values()]

    def expert(self, text: str, **more: Any) -> dict[str, Any]:
        return self.sim.conversations.post(self.talk, self.sim.users[ERIKA], text, **more)


@pytest.fixture
def center() -> ChatServer:
    return ChatServer()


@pytest.fixture
async def stage(
    sim: GraphSim, clock: FakeClock, tmp_path: Path, center: ChatServer
) -> AsyncIterator[WebStage]:
    made = WebStage(sim, clock, tmp_path, good_account())
    made.hook = await center.start()
    async with made:
        await made.enable()
        yield made
    await center.stop()


async def test_an_expert_joins_talks_to_the_customer_and_leaves(stage: WebStage, center: ChatServer) -> None:
    chat = await stage.begin()
    assert (await stage.ask("POST", f"{chat}/messages", {"from": "customer", "text": "It is broken"}))[
        0
    ] == 201
    status, shown = await stage.ask("PUT", f"{chat}/expert", {"user": ERIKA})
    assert (status, shown["expert"], shown["expert_name"]) == (200, ERIKA, "Erika Expert")
    await stage.settle()
    assert "Carla Customer is on a web chat" in stage.in_teams()[0]
    assert "Carla Customer: It is broken" in stage.in_teams()[0]
    await stage.ask("POST", f"{chat}/messages", {"from": "customer", "text": "See", "files": ["photo.jpg"]})
    await stage.ask("POST", f"{chat}/messages", {"from": "agent", "text": "Erika will know"})
    await stage.settle()
    assert stage.in_teams()[1:] == ["Carla Customer: See [photo.jpg]", f"{LOGIN}: Erika will know"]
    attachments = [
        {
            "id": "1",
            "contentType": "reference",
            "name": "plan.docx",
            "contentUrl": "https://x/secret/plan.docx",
        },
        {"id": "2", "contentType": CARD, "content": '{"a": "inside"}'},
    ]
    said = stage.expert("<p>Restart <b>it</b></p>", contentType="html", attachments=attachments)
    await stage.settle()
    status, body = await stage.ask("GET", f"{chat}/messages?after=0")
    last = body["messages"][-1]
    assert (last["from"], last["name"], last["text"]) == ("expert", "Erika Expert", "Restart it")
    assert (last["files"], last["types"]) == (["plan.docx"], [CARD])
    assert [one["number"] for one in body["messages"]] == list(range(1, len(body["messages"]) + 1))
    stage.clock.advance(1)
    stage.sim.conversations.edit(stage.talk, said["id"], "Restart it twice")
    await stage.settle()
    stage.sim.conversations.delete(stage.talk, said["id"])
    await stage.settle()
    assert (await stage.ask("DELETE", f"{chat}/expert"))[1]["expert"] == ""
    await stage.settle()
    assert stage.in_teams()[-1] == "Carla Customer no longer reads what is written here."
    stage.expert("between us")
    await stage.settle()
    assert (await stage.ask("DELETE", chat))[0] == 204
    assert (await stage.ask("DELETE", chat))[0] == 204
    assert (await stage.ask("POST", f"{chat}/messages", {"from": "customer", "text": "hello?"}))[0] == 409
    await until(lambda: len(center.events) == 10)
    assert center.told() == [
        ("started", ""), ("message", "It is broken"), ("joined", "Erika Expert has joined"),
        ("message", "See"), ("message", "Erika will know"), ("message", "Restart it"),
        ("edited", "Restart it twice"), ("deleted", ""), ("left", "Erika Expert has left"), ("ended", ""),
    ]  # fmt: skip
    assert center.events[5]["message"]["files"] == ["plan.docx"]
    assert center.events[5]["web_chat"]["reference"] == "c-1"
    everything = json.dumps(center.events)
    assert "https://x" not in everything
    assert "inside" not in everything
    told = [event for _, event in stage.room.feeds.since(LOGIN, 0) if event["kind"] == "web_chat"]
    assert len(told) == 10


async def test_what_agent_and_expert_write_to_each_other_is_theirs(stage: WebStage) -> None:
    chat = await stage.begin()
    stage.expert("before I joined")
    await stage.settle()
    await stage.ask("PUT", f"{chat}/expert", {"user": ERIKA})
    sent = stage.room.connected.chats.send(LOGIN, stage.talk.id, "careful, he is angry")
    await drive(stage.clock, sent)
    stage.sim.conversations.post(stage.talk, stage.sim.users[ANN], "from my own Teams")
    await stage.settle()
    body = (await stage.ask("GET", f"{chat}/messages"))[1]
    assert [one["text"] for one in body["messages"]] == ["Erika Expert has joined"]


async def test_an_expert_is_in_one_web_chat_of_an_agent_and_another_takes_his_place(stage: WebStage) -> None:
    one, other = await stage.begin("Carla"), await stage.begin("Dieter")
    await stage.ask("PUT", f"{one}/expert", {"user": ERIKA})
    await stage.ask("PUT", f"{one}/expert", {"user": ERIKA})
    status, problem = await stage.ask("PUT", f"{other}/expert", {"user": ERIKA})
    assert (status, problem["reason"]) == (409, "expert_busy")
    status, shown = await stage.ask("PUT", f"{one}/expert", {"user": MAX})
    assert (status, shown["expert_name"]) == (200, "Max Experte")
    assert (await stage.ask("PUT", f"{other}/expert", {"user": ERIKA}))[0] == 200
    await stage.settle()
    stage.expert("for Dieter")
    await stage.settle()
    texts = {
        key: [one["text"] for one in (await stage.ask("GET", f"{key}/messages"))[1]["messages"]]
        for key in (one, other)
    }
    assert "for Dieter" not in texts[one]
    assert "for Dieter" in texts[other]
    assert (await stage.ask("PUT", f"{one}/expert", {"user": "nobody"}))[0] == 404


async def test_without_the_agents_sign_in_nobody_is_invited_and_the_web_chat_goes_on(stage: WebStage) -> None:
    chat = await stage.begin()
    await stage.room.disable(LOGIN)
    status, problem = await stage.ask("PUT", f"{chat}/expert", {"user": ERIKA})
    assert (status, problem["reason"]) == (409, "sign_in_needed")
    assert (await stage.ask("POST", f"{chat}/messages", {"from": "customer", "text": "hi"}))[0] == 201


async def test_an_expert_who_can_be_told_no_more_leaves(stage: WebStage) -> None:
    chat = await stage.begin()
    await stage.ask("PUT", f"{chat}/expert", {"user": ERIKA})
    await stage.settle()
    stage.sim.trouble("/messages", 403, count=-1, method="POST")
    await stage.ask("POST", f"{chat}/messages", {"from": "customer", "text": "are you there?"})
    await stage.settle()
    assert (await stage.ask("GET", chat))[1]["expert"] == ""
    assert (await stage.ask("GET", f"{chat}/messages"))[1]["messages"][-1]["text"] == "Erika Expert has left"


async def test_a_repeated_post_is_one_message(stage: WebStage) -> None:
    chat = await stage.begin()
    key = {"Idempotency-Key": "k-1"}
    body = {"from": "customer", "text": "once"}
    assert (await stage.ask("POST", f"{chat}/messages", body, **key))[0] == 201
    assert (await stage.ask("POST", f"{chat}/messages", body, **key))[0] == 201
    assert len((await stage.ask("GET", f"{chat}/messages"))[1]["messages"]) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [({"from": "expert", "text": "x"}, 422), ({"from": "customer"}, 422),
     ({"from": "customer", "text": " "}, 422), ({"from": "agent", "text": "", "files": ["a.pdf"]}, 201),
     ({"text": "x"}, 422)],
)  # fmt: skip
async def test_what_can_be_said(stage: WebStage, body: dict[str, Any], status: int) -> None:
    chat = await stage.begin()
    assert (await stage.ask("POST", f"{chat}/messages", body))[0] == status
    assert (await stage.ask("GET", "/unknown"))[0] == 404


async def test_everything_survives_a_restart(stage: WebStage, center: ChatServer) -> None:
    chat = await stage.begin()
    await stage.ask("PUT", f"{chat}/expert", {"user": ERIKA})
    await stage.settle()
    await until(lambda: len(center.events) == 2)
    center.status = 503
    await stage.close()
    stage.clock.advance(600)
    await stage.open()
    await stage.ask("POST", f"{chat}/messages", {"from": "customer", "text": "still there?"})
    stage.expert("yes")
    await stage.settle()
    posts = center.posts
    await until(lambda: center.posts > 0)
    assert len(center.events) == 2
    await stage.close()
    center.status = 200
    await stage.open()
    await until(lambda: len(center.events) == 4)
    assert center.posts >= posts
    assert center.told()[2:] == [("message", "still there?"), ("message", "yes")]
    assert stage.in_teams().count("Carla Customer: still there?") == 1
    found = (await stage.ask("GET", f"{chat}/messages"))[1]["messages"]
    assert [one["text"] for one in found] == ["Erika Expert has joined", "still there?", "yes"]


async def test_a_database_that_fails_loses_nothing_and_changes_nothing_half(
    stage: WebStage, center: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await stage.begin()
    await stage.ask("PUT", f"{chat}/expert", {"user": ERIKA})
    await stage.settle()

    async def fails(*_: object) -> None:
        raise StoreFault("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(stage.room._store, "put_all", fails)
        for method, path, body in (
            ("DELETE", chat, None), ("DELETE", f"{chat}/expert", None),
            ("POST", f"{chat}/messages", {"from": "customer", "text": "lost"}),
        ):  # fmt: skip
            assert (await stage.ask(method, path, body))[0] == 503
        taken = Popped(LOGIN, "", stage.talk.id, message(expert_says(stage)), False, ERIKA)
        await stage.room.web_chats.taken(taken)
    shown = (await stage.ask("GET", chat))[1]
    assert (shown["state"], shown["expert"]) == ("open", ERIKA)
    stage.clock.advance(20)
    await until(lambda: stage.room.web_chats.idle)
    found = (await stage.ask("GET", f"{chat}/messages"))[1]["messages"]
    assert [one["text"] for one in found] == ["Erika Expert has joined", "kept all the same"]
    assert (await stage.ask("DELETE", chat))[0] == 204
    await until(lambda: center.told()[-1] == ("ended", ""))


def expert_says(stage: WebStage) -> dict[str, Any]:
    """As Graph tells of it; here by hand."""
    return {
        "id": "1700000099999", "messageType": "message", "createdDateTime": "2026-01-01T00:00:00Z",
        "from": {"user": {"id": ERIKA, "displayName": "Erika Expert"}},
        "body": {"contentType": "text", "content": "kept all the same"}, "chatId": stage.talk.id,
    }  # fmt: skip


def message(body: dict[str, Any]) -> Message:
    found = read_message(body)
    assert found is not None
    return found


async def test_a_webhook_that_is_down_is_tried_again_and_what_it_refuses_is_passed_over(
    stage: WebStage, center: ChatServer
) -> None:
    center.status = 500
    await stage.begin()
    hook = stage.room.hook
    assert hook is not None
    await until(lambda: hook.failures > 0)
    for _ in range(2):
        tries = hook.failures
        stage.clock.advance(60)
        await until(lambda tries=tries: hook.failures > tries)  # type: ignore[misc]
    assert center.posts == hook.failures
    readings = {one.name: one.value for one in teams_readings(stage.room)}
    assert (readings["tandem_web_chat_hook_up"], readings["tandem_web_chat_hook_waiting"]) == (0, 1)
    center.status = 422
    stage.clock.advance(60)
    await until(lambda: hook.rejected == 1)
    center.status = 200
    await stage.begin("Dieter")
    await until(lambda: center.told() == [("started", "")])
    assert center.events[0]["web_chat"]["customer_name"] == "Dieter"


async def test_an_ended_one_can_be_read_for_a_day(stage: WebStage) -> None:
    chat = await stage.begin()
    await stage.ask("POST", f"{chat}/messages", {"from": "customer", "text": "bye"})
    await stage.ask("DELETE", chat)
    stage.clock.advance(3600)
    await stage.room.web_chats.tidy()
    assert (await stage.ask("GET", chat))[1]["state"] == "ended"
    stage.clock.advance(24 * 3600)
    await stage.room.web_chats.tidy()
    assert (await stage.ask("GET", chat))[0] == 404
    assert await stage.room._store.all(Shelf.WEB_CHAT_MESSAGE) == {}


async def test_each_operation_has_its_role_and_a_place_in_the_document(stage: WebStage) -> None:
    operations = web_chat_operations(stage.room.web_chats)
    assert {one.name for one in operations} == {*WEB_CHAT_ACCESS, "beginWebChat"}
    assert f"{WEB_CHATS}/{{web_chat}}/expert" in document(operations)["paths"]
