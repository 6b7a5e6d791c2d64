"""Real calls, commanded over HTTP: what the API says is so is heard by the parties and told by the events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from gateway.api.control_routes import CALLS, control_operations
from gateway.api.event_routes import EventStreams
from gateway.api.openapi import document
from gateway.calls.control import CallControl
from media.pool import RoomPool
from tests.api.site import TOKEN, Reply, Site, open_site
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House
from tests.calls.matrix import THIRD, TONES, Stage, everybody, only_call, two
from tests.calls.test_answer import TALK, by_event
from tests.support.waiting import until

AGENT = 'party = "agent"'
ANNA = f'[[agent]]\nlogin = "anna"\nnumbers = ["{CUSTOMER}"]\n'
NOBODY = "0" * 32


@dataclass
class Desk:
    """The API of a house, with answers held against the document."""

    site: Site
    house: House
    schemas: dict[str, Any]

    async def ask(self, method: str, path: str = "", **more: Any) -> Reply:
        reply = await self.site.ask(method, CALLS + path, **more)
        if reply.status in (200, 201) and "legs" in reply.body:
            schema = {"$ref": "#/components/schemas/CallView", "components": self.schemas}
            jsonschema.validate(reply.body, schema)
        return reply

    async def only(self) -> dict[str, Any]:
        reply = await self.ask("GET")
        assert reply.status == 200
        [call] = reply.body["calls"]
        return dict(call)

    async def refused(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        """Status and reason; nothing may have changed and nothing may have been recorded."""
        before, told = (await self.ask("GET")).body, len(self.house.events)
        reply = await self.ask(method, path, **more)
        assert reply.status >= 400, reply.body
        assert len(reply.body["detail"]) > 10, "the cause is said"
        assert (await self.ask("GET")).body == before
        assert len(self.house.events) == told
        return reply.status, reply.body["reason"]

    def events(self) -> Any:
        url = self.site.url("/api/v1/events?after=0")
        return self.site.session.ws_connect(url, headers=TOKEN)


@contextlib.asynccontextmanager
async def desk(house: OpenHouse, rooms: RoomPool | None = None) -> AsyncIterator[Desk]:
    async with house(center_extra=AGENT, extra=ANNA, rooms=rooms) as h:
        operations = control_operations(CallControl(h.gateway.context, h.gateway.calls))
        streams = EventStreams(h.journal)
        async with open_site(*operations, streams.operation(), stopping=[streams.close]) as site:
            yield Desk(site, h, document(operations)["components"])


def leg(call: dict[str, Any], what: str) -> dict[str, Any]:
    [found] = [one for one in call["legs"] if what in (one["party"], one["number"], one["login"])]
    return dict(found)


async def test_a_call_is_placed_held_muted_and_ended_by_command(house: OpenHouse, rooms: RoomPool) -> None:
    async with desk(house, rooms) as d:
        h = d.house
        reply = await d.ask("POST", json={"agent": "anna", "number": EXPERT})
        assert reply.status == 201
        path = "/" + reply.body["id"]
        assert reply.headers["Location"] == CALLS + path
        assert (reply.body["state"], reply.body["to_number"]) == ("setup", EXPERT)
        agent = await h.center.expect_call()
        agent.ring(headers=TALK)
        asked = by_event(agent)
        await until(lambda: only_call(h).legs[0].answerable)
        agents = f"{path}/legs/{only_call(h).legs[0].id}"
        assert (await d.ask("POST", agents + "/answer")).status == 204
        assert len(asked) == 1
        expert = await h.teams.expect_invite(tone=TONES["expert"])
        await expert.answer()
        stage = Stage(h)
        stage.add("agent", agent)
        stage.add("expert", expert)
        await stage.hear(everybody("agent", "expert"))

        call = (await d.ask("GET", path)).body
        assert call["state"] == "up"
        assert leg(call, "anna")["party"] == "agent"
        mine = f"{path}/legs/{leg(call, 'anna')['id']}"
        for query, hits in (("agent=anna", 1), ("agent=otto", 0), ("trunk=teams", 1), ("interaction=x", 0)):
            assert len((await d.ask("GET", "?" + query)).body["calls"]) == hits

        reply = await d.ask("PATCH", mine, json={"holding": True})
        assert (reply.status, reply.body["holding"]) == (200, True)
        await stage.hear({"agent": set(), "expert": {"music"}})
        assert (await d.ask("PATCH", path, json={"music": "never"})).body["music"] == "never"
        await stage.hear({"agent": set(), "expert": set()})
        for stage_name in ("ivr", "queue", "queue", "connected"):
            assert (await d.ask("PATCH", path, json={"stage": stage_name})).status == 200
        for wrong in ({"stage": "lunch"}, {"stage": "ivr", "music": "never"}, {}):
            assert (await d.ask("PATCH", path, json=wrong)).status == 422
        await d.ask("PATCH", mine, json={"holding": False})
        assert (await d.ask("PATCH", mine, json={"muted": True})).body["muted"]
        await stage.hear({"agent": {"expert"}, "expert": set()})
        assert not (await d.ask("PATCH", mine, json={"muted": False})).body["muted"]
        await stage.hear(everybody("agent", "expert"))
        reply = await d.ask("POST", mine + "/digits", json={"digits": "1#"})
        assert (reply.status, reply.body) == (204, b"")

        assert (await d.ask("DELETE", path)).status == 204
        await asyncio.gather(agent.expect_end(), expert.expect_end())
        assert (await d.ask("GET", path)).status == 404
        await h.quiet()
        async with d.events() as stream:
            told = [json.loads(await stream.receive_str()) for _ in h.events]
        assert [one["kind"] for one in told] == [event.kind for event in h.events]
        assert [one["kind"] for one in told if one["kind"].startswith("leg_h")] == ["leg_held"]
        [row] = h.rows()
        assert (row.caller_login_id, row.hold_count) == ("anna", 1)


async def test_a_party_is_added_once_and_removed(house: OpenHouse, rooms: RoomPool) -> None:
    async with desk(house, rooms) as d:
        stage, agent, expert = await two(d.house)
        path = "/" + (await d.only())["id"]
        key = {"Idempotency-Key": "one"}
        first, second = await asyncio.gather(
            *(d.ask("POST", path + "/legs", json={"number": THIRD}, headers=key) for _ in range(2))
        )
        assert {first.status, second.status} <= {201, 409}
        again = await d.ask("POST", path + "/legs", json={"number": THIRD}, headers=key)
        assert (again.status, again.headers["Idempotency-Replayed"]) == (201, "true")
        third = await d.house.teams.expect_invite(tone=TONES["third"])
        other = {"number": "+15551239999"}
        assert await d.refused("POST", path + "/legs", json=other, headers=key) == (
            422,
            "idempotency_key_reused",
        )
        assert await d.refused("POST", path + "/legs", json={"number": THIRD}) == (409, "already_there")
        await third.answer()
        stage.add("third", third)
        await stage.hear(everybody("agent", "expert", "third"))
        call = await d.only()
        assert call["in_room"]
        own, new = leg(call, "agent"), leg(call, THIRD)
        on_hold = {"on_hold": True, "by": own["id"]}
        assert (await d.ask("PATCH", f"{path}/legs/{new['id']}", json=on_hold)).body["on_hold"]
        await stage.hear({"agent": {"expert"}, "expert": {"agent"}, "third": {"music"}})
        assert (await d.ask("DELETE", f"{path}/legs/{new['id']}")).status == 204
        await third.expect_end()
        assert (await d.ask("POST", f"{path}/legs/{own['id']}/hangup")).status == 204
        await asyncio.gather(agent.expect_end(), expert.expect_end())


async def test_consult_then_merge(house: OpenHouse, rooms: RoomPool) -> None:
    async with desk(house, rooms) as d:
        stage, agent, expert = await two(d.house)
        call = await d.only()
        path = "/" + call["id"]
        own = f"{path}/legs/{leg(call, 'agent')['id']}"
        assert await d.refused("POST", path + "/consultation/merge") == (409, "no_consultation")
        assert await d.refused("DELETE", path + "/consultation") == (409, "no_consultation")
        reply = await d.ask("POST", own + "/consultation", json={"number": THIRD})
        assert (reply.status, reply.body["consultation_of"]) == (201, call["id"])
        aside = reply.headers["Location"].removeprefix(CALLS)
        third = await d.house.teams.expect_invite(tone=TONES["third"])
        assert await d.refused("POST", aside + "/consultation/merge") == (409, "not_answered")
        assert (await d.refused("POST", own + "/consultation", json={"number": "+1"}))[0] == 409
        await third.answer()
        stage.add("third", third)
        await stage.hear({"agent": {"third"}, "third": {"agent"}, "expert": {"music"}})
        reply = await d.ask("POST", aside + "/consultation/merge")
        assert (reply.status, reply.body["id"]) == (200, call["id"])
        await stage.hear(everybody("agent", "expert", "third"))
        assert (await d.ask("DELETE", path)).status == 204
        await asyncio.gather(agent.expect_end(), expert.expect_end(), third.expect_end())


async def test_a_blind_transfer_by_command(house: OpenHouse) -> None:
    async with desk(house) as d:
        stage, agent, expert = await two(d.house)
        call = await d.only()
        path = f"/{call['id']}/legs/{leg(call, 'agent')['id']}/transfer"
        assert (await d.ask("POST", path, json={"number": THIRD})).status == 202
        third = await d.house.teams.expect_invite(tone=TONES["third"])
        await third.answer()
        await agent.expect_end()
        stage.add("third", third)
        await stage.hear(everybody("expert", "third"))
        await third.hang_up()
        await expert.expect_end()


async def test_misuse_is_refused_with_its_cause_and_changes_nothing(house: OpenHouse) -> None:
    async with desk(house) as d:
        _, agent, expert = await two(d.house)
        call = await d.only()
        path = "/" + call["id"]
        own, other = (f"{path}/legs/{leg(call, party)['id']}" for party in ("agent", "teams_expert"))
        own_id = own.rpartition("/")[2]
        number = {"number": THIRD}
        for method, where, body, wanted in (
            ("GET", f"/{NOBODY}", None, (404, "unknown_call")),
            ("GET", f"{path}/legs/{NOBODY}", None, (404, "unknown_leg")),
            ("DELETE", f"{path}/legs/{NOBODY}", None, (404, "unknown_leg")),
            ("PATCH", f"{path}/legs/{NOBODY}", {"muted": True}, (404, "unknown_leg")),
            ("POST", own + "/answer", None, (409, "wrong_state")),
            ("POST", path + "/consultation/merge", None, (409, "no_consultation")),
            ("POST", path + "/consultation/transfer", None, (409, "no_consultation")),
            ("POST", path + "/legs", number, (409, "no_rooms")),
            ("PATCH", own, {"supervision": "barge"}, (409, "no_supervisor")),
            ("PATCH", own, {"on_hold": True, "by": own_id}, (422, "own_leg")),
            ("PATCH", own, {"on_hold": True, "by": NOBODY}, (404, "unknown_leg")),
            ("POST", own + "/digits", {"digits": "1X"}, (422, "invalid")),
            ("POST", own + "/transfer", {"number": "<sip:a@b>"}, (422, "bad_number")),
            ("POST", own + "/transfer", {"number": "a\r\nb"}, (422, "bad_number")),
            ("POST", other + "/transfer", {**number, "trunk": "moon"}, (422, "no_way")),
            ("POST", "", {"agent": "otto", "number": THIRD}, (404, "unknown_agent")),
            ("POST", "", {"agent": "anna", "number": "", "trunk": ""}, (422, "invalid")),
            ("POST", "", {"agent": "anna", "number": THIRD, "trunk": "moon"}, (422, "no_way")),
        ):
            more = {} if body is None else {"json": body}
            assert await d.refused(method, where, **more) == wanted, (method, where, body)
        d.house.gateway.drain()
        assert await d.refused("POST", "", json={"agent": "anna", "number": THIRD}) == (503, "draining")
        await agent.bye()
        await expert.expect_end()


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_bad_idempotency_key_is_said_to_be_one(house: OpenHouse, key: str) -> None:
    async with desk(house) as d:
        more = {"json": {"agent": "otto", "number": "1"}, "headers": {"Idempotency-Key": key}}
        assert await d.refused("POST", "", **more) == (422, "invalid")


async def test_a_refused_command_does_not_use_up_its_key(house: OpenHouse) -> None:
    async with desk(house) as d:
        headers = {"Idempotency-Key": "two"}
        body = {"agent": "otto", "number": "1"}
        for _ in range(2):
            assert await d.refused("POST", "", json=body, headers=headers) == (404, "unknown_agent")
        reply = await d.ask("POST", "", json={"agent": "anna", "number": EXPERT}, headers=headers)
        assert reply.status == 201
        agent = await d.house.center.expect_call()
        assert (await d.ask("DELETE", "/" + reply.body["id"])).status == 204
        await agent.expect_end()
        await until(lambda: not d.house.gateway.calls.calls)
