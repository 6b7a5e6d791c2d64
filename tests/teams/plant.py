"""A gateway as a process, with `[graph]`, between its stand-ins: Microsoft over TLS, itself too."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.clock import LoopClock
from tests.calls.house import configuration, tone_file
from tests.peers.certs import Identity, Pki
from tests.peers.contact_center import ContactCenter
from tests.peers.graph import CLIENT, TENANT, GraphSim
from tests.peers.teams import Teams
from tests.restart.plant import Plant
from tests.support import ports
from tests.teams.conftest import ANN, ERIKA

AGENT_NUMBER = "+49301112222"
SECRET = "canary-client-secret"
TOKEN = "canary-bearer-token"
CALLBACK = "/sign-in/entra/callback"
TEXT = """
[log]
level = "debug"

[[agent]]
login = "anna"
name = "Ann Agent"
numbers = ["{number}"]
teams_user = "{ann}"

[http]
listen = "127.0.0.1:{port}"
tokens = [{{ name = "center", secret = "env:TANDEM_TEST_TOKEN" }}]

[cdr]
json_lines = "{rows}"

[sign_in]
entra = true
public_url = "{public}"

[graph]
tenant = "{tenant}"
client_id = "{client}"
client_secret = "env:TANDEM_TEST_GRAPH"
authority = "{authority}"
root = "{root}"
trusted_roots = "{roots}"
"""


class Front:
    """A TLS end in front of the gateway's HTTP port, as a proxy of the site is; bytes go through."""

    def __init__(self, identity: Identity, behind: int) -> None:
        self._identity, self._behind = identity, behind
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Front:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._identity.chain, self._identity.key)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                inner, outer = await asyncio.open_connection("127.0.0.1", self._behind)
                both = [asyncio.create_task(_pump(reader, outer)), asyncio.create_task(_pump(inner, writer))]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for one in both:
                    one.cancel()
                await asyncio.gather(*both, return_exceptions=True)
                outer.close()
        finally:
            writer.close()
            self._tasks.discard(task)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()


@dataclass
class Desk:
    """Ann at her desk, in a browser: what her page was told, newest picture of each sort."""

    plant: TeamsPlant
    http: aiohttp.ClientSession
    csrf: str = ""
    picture: dict[str, Any] = field(default_factory=dict)
    teams: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    _reading: asyncio.Task[None] | None = None
    _socket: aiohttp.ClientWebSocketResponse | None = None

    async def sign_in(self) -> None:
        """With Entra ID, and nothing else."""
        async with self.http.get(f"{self.plant.public}/sign-in/entra") as answer:
            page = await answer.text()
        assert CALLBACK in page, page
        form = {
            name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', page)
        }
        headers = {"Origin": self.plant.sim.authority}
        url = f"{self.plant.public}{CALLBACK}"
        async with self.http.post(url, data=form, headers=headers, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/")
        self.csrf = (await self.ask("GET", "/api/v1/me"))[1]["csrf"]

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"X-CSRF-Token": self.csrf} if self.csrf else {}
        async with self.http.request(method, self.plant.public + path, json=body, headers=headers) as answer:
            text = await answer.text()
            self.plant.answers.append(text)
            return answer.status, json.loads(text) if text else None

    async def watch(self, after: str = "") -> None:
        """Open the page's stream."""
        await self.leave()
        url = f"{self.plant.public}/api/v1/me/events?teams={after}"
        socket = self._socket = await self.http.ws_connect(url, timeout=aiohttp.ClientWSTimeout(ws_close=1.0))

        async def read() -> None:
            async for message in socket:
                found = json.loads(message.data)
                if "teams_event" in found:
                    self.events.append(found["teams_event"])
                elif "teams" in found:
                    self.teams = found["teams"]
                else:
                    self.picture = found
                self.told.set()

        self._reading = asyncio.create_task(read())

    async def leave(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()

    async def sees(self, condition: Callable[[Desk], bool], what: str, within: float = 60.0) -> None:
        try:
            async with asyncio.timeout(within):
                while not condition(self):
                    self.told.clear()
                    await self.told.wait()
        except TimeoutError:
            state = f"{self.picture} {self.teams} {self.events[-3:]}"
            raise AssertionError(f"the page never saw {what}: {state}") from None

    @property
    def state(self) -> tuple[str, str]:
        agent = self.picture.get("agent") or {}
        return agent.get("state", ""), agent.get("reason", "")

    def reasons(self) -> list[str]:
        """Why it had to read again."""
        return [one["reason"] for one in self.events if one["kind"] == "refresh"]

    def messages(self) -> list[str]:
        return [one["message"]["text"] for one in self.events if one["kind"] == "message"]


@dataclass
class TeamsPlant(Plant):
    """answers: bodies of what the gateway's API answered."""

    sim: GraphSim = None  # type: ignore[assignment]  # set by open_teams_plant
    public: str = ""
    port: int = 0
    answers: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def desk(self) -> AsyncIterator[Desk]:
        trust = ssl.create_default_context(cafile=str(self.sim.roots))
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(connector=connector) as http:
            desk = Desk(self, http)
            try:
                yield desk
            finally:
                await desk.leave()

    async def program(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, f"http://127.0.0.1:{self.port}{path}", json=body) as answer,
        ):
            text = await answer.text()
            self.answers.append(text)
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text


@contextlib.asynccontextmanager
async def open_teams_plant(
    pki: Pki, folder: Path, identity: tuple[Identity, Path]
) -> AsyncIterator[TeamsPlant]:
    """TANDEM_TEST_GRAPH must hold SECRET, TANDEM_TEST_TOKEN our TOKEN. At the end no call may be left."""
    media = ports.free_udp_range(64 * 4)
    plain, secure, http = ports.free_port(), ports.free_port(), ports.free_port()
    center = ContactCenter(gateway=("127.0.0.1", plain))
    teams = Teams(pki, media_addresses=["127.0.0.1"], gateway=("127.0.0.1", secure))
    sim = GraphSim(LoopClock(), folder / "graph", identity=identity)
    async with center, teams, sim, Front(identity[0], http) as front:
        public = f"https://localhost:{front.port}"
        sim.registration.secrets = {SECRET}
        sim.registration.redirect_uris |= {f"{public}{CALLBACK}", f"{public}/teams/signed-in"}
        sim.subscriptions.trust = ssl.create_default_context(cafile=str(sim.roots))
        sim.add_user(ANN, "Ann Agent")
        sim.add_user(ERIKA, "Erika Expert", businessPhones=["+15551230000"])
        for oid in (ANN, ERIKA):
            sim.presence.client(oid, "Available", "Available")
        sim.entra.impostor = ANN
        (folder / "state").mkdir()
        extra = TEXT.format(
            number=AGENT_NUMBER, ann=ANN, port=http, rows=folder / "rows", public=public, tenant=TENANT,
            client=CLIENT, authority=sim.authority, root=sim.root, roots=sim.roots,
        )  # fmt: skip
        config = folder / "tandem.toml"
        config.write_text(
            configuration(
                state=folder / "state", pki=pki, center=center, teams=teams,
                listen=[f"udp:127.0.0.1:{plain}", f"tcp:127.0.0.1:{plain}", f"tls:127.0.0.1:{secure}"],
                media_ports=media, center_extra='party = "agent"',
                media_extra=f'music = "{tone_file(folder / "music.wav")}"', extra=extra,
            )
        )  # fmt: skip
        plant = TeamsPlant(folder, config, center, teams, sim=sim, public=public, port=http)
        try:
            await plant.start()
            yield plant
            if plant.process.returncode is None:
                await plant.quiet()
        finally:
            await plant.end()
        assert plant.process.returncode == 0, plant.log[-4000:]
        assert "Traceback" not in plant.log, plant.log
