"""The Graph stand-in as a process, as the demo uses it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from pathlib import Path

import aiohttp

from gateway.clock import LoopClock
from gateway.teams.account_model import Account
from gateway.teams.client import GraphClient
from gateway.teams.clouds import Cloud
from gateway.teams.entra import Entra
from gateway.teams.presence_graph import Presences
from gateway.teams.store import Store
from gateway.teams.vault import Vault


async def test_it_runs_as_a_process_and_obeys_its_control_address(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.peers.graph_cli", str(tmp_path / "graph"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        said = dict(word.split("=", 1) for word in line.split()[1:])
        cloud = Cloud(said["authority"], said["root"], Path(said["roots"]))
        account = Account(said["tenant"], said["client_id"], said["client_secret"])
        clock = LoopClock()
        store = Store(f"sqlite:///{tmp_path / 'x.db'}", Vault(tmp_path))
        await store.open()
        entra = Entra(cloud, account, store, clock)
        client = GraphClient(cloud, entra, clock)
        async with aiohttp.ClientSession(said["control"]) as control:
            people = [one async for one in client.pages("/users", who=None)]
            oid = str(people[0]["id"])
            wish = {"user": oid, "availability": "Busy", "activity": "InACall"}
            assert (await control.post("/presence", json=wish)).status == 200
            assert (await Presences(client, account.client_id).read(oid)).pair == ("Busy", "InACall")
            other = str(people[1]["id"])
            said_it = await control.post("/say", json={"user": oid, "to": other, "text": "hello"})
            assert said_it.status == 200
            assert (await control.post("/presence", json={"user": "nobody"})).status == 400
            state = await (await control.get("/state")).json()
            assert [one["body"]["content"] for chat in state["chats"].values() for one in chat] == ["hello"]
        await client.close()
        entra.close()
        await store.close()
        assert ssl.create_default_context(cafile=said["roots"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
