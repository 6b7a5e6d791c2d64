"""A contact-center system watches agents' states over the API, from any id on, also over a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSServerHandshakeError

from gateway.agents.people import UserRole
from tests.agents.house import PASSWORD, House, open_house

URL = "/api/v1/agent-events"


@contextlib.asynccontextmanager
async def watching(house: House, query: str = "") -> AsyncIterator[ClientWebSocketResponse]:
    async with (
        house.program() as program,
        program.session.ws_connect(house.base.replace("http", "ws") + URL + query) as reader,
    ):
        yield reader


async def take(reader: ClientWebSocketResponse, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        return [json.loads(await reader.receive_str()) for _ in range(count)]


async def say(house: House, login: str, state: str, reason: str = "") -> None:
    async with house.program() as program:
        body = {"state": state} | ({"reason": reason} if reason else {})
        answer = await program.ask("PUT", f"/api/v1/agents/{login}/state", json=body)
        assert answer.status == 200, answer.body


def told(message: dict[str, Any]) -> tuple[str, str, str, str]:
    return message["login"], message["before"], message["status"]["state"], message["by"]


async def test_changes_in_a_row_are_told_one_by_one_with_who_made_them(tmp_path: Path) -> None:
    """Pictures of the desk leave out what came and went within a moment."""
    async with open_house(tmp_path) as house, watching(house) as reader:
        for state in ("ready", "not_ready", "ready"):
            await say(house, "anna", state, "Golf" if state == "not_ready" else "")
        first, second, third = await take(reader, 3)
        assert told(first) == ("anna", "logged_out", "ready", "token crm")
        assert told(second)[1:3] == ("ready", "not_ready")
        assert second["status"]["reason"] == "Golf"
        assert told(third)[1:3] == ("not_ready", "ready")
        call = await house.call("anna")
        [busy] = await take(reader, 1)
        assert told(busy) == ("anna", "ready", "busy", "calls")
        await house.hang_up(call)
        kinds = {message["kind"]: message for message in await take(reader, 2)}
        assert kinds["agent_call"]["call"] == call
        assert kinds["agent_state"]["status"]["state"] == "ready"


async def test_a_system_that_was_away_gets_what_it_missed_also_over_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with watching(house) as reader:
            await say(house, "anna", "ready")
            [seen] = await take(reader, 1)
        await say(house, "bert", "ready")
        await say(house, "anna", "not_ready", "Golf")
    async with open_house(tmp_path) as house:
        async with watching(house, f"?after={seen['id']}") as reader:
            assert [told(one)[0] for one in await take(reader, 2)] == ["bert", "anna"]
            await say(house, "bert", "logged_out")
            assert told((await take(reader, 1))[0])[:3] == ("bert", "ready", "logged_out")
        async with watching(house, "?after=0&login=bert") as reader:
            # What came before may have gone into the report; what tells his present state stays.
            found = await take(reader, 1)
            while found[-1]["status"]["state"] != "logged_out":
                found += await take(reader, 1)
            assert {one["login"] for one in found} == {"bert"}


async def test_only_who_may_see_everybody_watches(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.part.accounts.add("anna", UserRole.AGENT, PASSWORD)
        async with house.browser("anna") as browser:
            answer = await browser.ask("GET", URL)
            assert answer.status == 403
        async with house.browser() as stranger:
            assert (await stranger.ask("GET", URL)).status == 401
        async with house.program() as program:
            assert (await program.ask("GET", URL)).status == 426
            with pytest.raises(WSServerHandshakeError, match="422"):
                await program.session.ws_connect(house.base.replace("http", "ws") + URL + "?after=999")
