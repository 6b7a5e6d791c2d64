"""`scripts/demo --desktop`: the Agent Desktop with people to talk to, until somebody ends it.

A customer and a Teams expert are processes of their own; letters in the terminal tell them what to do.
Exit codes as those of `show`; ending it is no failure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.agents.accounts import Accounts
from gateway.agents.database import AgentDatabase
from gateway.agents.people import UserRole
from gateway.config import load
from tests.demo import folder as folders
from tests.demo.common import Leave, Ports, heading, left_behind, ready, say
from tests.demo.failure import DemoFailed
from tests.demo.people import CUSTOMER, EXPERT, TELEPHONE, GraphControl, Persons
from tests.demo.processes import Standin, enter_all, gateway, graph, standin
from tests.demo.settings import FQDN, GRAPH_SECRET, NUMBERS, GraphPeer, Site, desktop_toml
from tests.demo.speech import monologue
from tests.demo.terminal import lines_typed
from tests.peers.certs import load_pki, make_pki
from tests.support import ports

DEFAULT_PORT = 8080
_MEDIA_PORTS = 240
_LINES = {
    CUSTOMER: (
        "Hello, this is the customer. I have a question about my invoice.",
        "It says I have to pay twice. Can you help me?",
        "I am still here.",
    ),
    EXPERT: (
        "Hello, this is Erika, the expert in Microsoft Teams.",
        "I am looking at the invoice now.",
        "The refund is on its way.",
    ),
    TELEPHONE: ("This is a desk telephone of the contact center. It answers by itself.",),
}
_VOICES = {CUSTOMER: "customer", EXPERT: "Teams", TELEPHONE: "contact center"}
_ACCOUNTS = {"anna": UserRole.AGENT, "bert": UserRole.AGENT, "sue": UserRole.SUPERVISOR}


@dataclass(frozen=True)
class Desk:
    """What the people at the terminal and at the browser need."""

    address: str
    password: str
    persons: Persons
    running: asyncio.subprocess.Process


async def run(options: argparse.Namespace, leave: Leave) -> int:
    """Until `leave` is set, or Ctrl-C's cancellation before everything is up. DemoFailed."""
    folder = await folders.make(options.output, keep=options.keep)
    heading("Getting ready")
    where = Ports.choose(_MEDIA_PORTS)
    async with _house(folder, where, _http_port(options.port)) as desk:
        _welcome(desk)
        leave.awaited = True
        await _until_left(desk, leave, folder)
        say("\nending the calls and the processes ...")
        standins = desk.persons.standins
    complaints = [f"Teams' rules: {text}" for one in standins.values() for text in one.violations]
    complaints += left_behind(folder, where)
    for text in complaints:
        say(f"  FAILED: {text}")
    if not complaints:
        say("  No process or port is left.")
    say(f"  Recordings, call detail and logs are in {folder.name}/.")
    return 1 if complaints else 0


def _http_port(wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            attempt.bind(("127.0.0.1", DEFAULT_PORT))
            return DEFAULT_PORT
    return ports.free_port(also_udp=False)


@contextlib.asynccontextmanager
async def _house(folder: Path, where: Ports, port: int) -> AsyncIterator[Desk]:
    """Everything that runs, every part a process of its own."""
    await asyncio.gather(
        asyncio.to_thread(make_pki, folder / "pki"),
        *(monologue(folder / "speech" / f"{who}.wav", _VOICES[who], lines) for who, lines in _LINES.items()),
    )
    speech = {who: folder / "speech" / f"{who}.wav" for who in _LINES}
    async with contextlib.AsyncExitStack() as stack:
        address = f"http://localhost:{port}"
        entra, *parties = await enter_all(
            stack,
            graph(folder / "graph", f"{address}/teams/signed-in", folder / "graph.log"),
            *_standins(folder, where, speech),
        )
        assert isinstance(entra, dict)
        people = {party.name: party for party in parties if isinstance(party, Standin)}
        control = await stack.enter_async_context(GraphControl(entra["control"]))
        (folder / GRAPH_SECRET).write_text(entra["client_secret"])
        roots = load_pki(folder / "pki")
        config = folder / "tandem.toml"
        config.write_text(
            desktop_toml(
                Site(
                    plain=where.plain,
                    secure=where.secure,
                    media=where.media,
                    identity=roots["gateway"],
                    roots=roots.roots,
                    proxies=people[EXPERT].ready["peers"],
                    hosts=people[EXPERT].ready["hosts"],
                ),
                port=port,
                customers=people[CUSTOMER].ready["peer"],
                telephones=people[TELEPHONE].ready["peer"],
                graph=GraphPeer.of(entra),
            )
        )
        say(f"  tandem run --config {config.name} ...")
        process = await stack.enter_async_context(gateway(config, folder / "gateway.log"))
        await ready(folder / "state")
        password = f"demo-{secrets.token_hex(4)}"
        await _add_accounts(config, password)
        yield Desk(address, password, Persons(people, control), process)


async def _add_accounts(config: Path, password: str) -> None:
    """As `tandem account add` does."""
    database = AgentDatabase(load(config).database_url)
    try:
        for login, role in _ACCOUNTS.items():
            await Accounts(database).add(login, role, password, name=f"{login.capitalize()} Example")
    finally:
        await database.close()


def _standins(
    folder: Path, where: Ports, speech: dict[str, Path]
) -> Iterator[AbstractAsyncContextManager[Standin]]:
    plain, secure = f"127.0.0.1:{where.plain}", f"127.0.0.1:{where.secure}"
    center = "tests.peers.contact_center"
    commands = {
        CUSTOMER: (center, "--gateway", plain, "--number", NUMBERS[CUSTOMER], "--answer-after", "1.5"),
        TELEPHONE: (center, "--gateway", plain, "--number", NUMBERS["anna"], "--answer-after", "4"),
        EXPERT: (
            *("tests.peers.teams", "--gateway", secure, "--pki", str(folder / "pki"), "--trunk", FQDN),
            *("--media-address", "127.0.0.1", "--answer-after", "1.5"),
        ),
    }
    for who, words in commands.items():
        yield standin(
            *(who, *words, "--speak", str(speech[who]), "--record", str(folder / "heard" / who)),
            log=folder / f"{who}.log",
            on_event=_unseen,
        )


def _unseen(event: dict[str, Any]) -> None:
    """Nobody watches the SIP messages here."""


def _welcome(desk: Desk) -> None:
    heading("The desktop is open")
    say(f"  {desk.address}/    login: anna    password: {desk.password}")
    say(
        """
  Sign in with a browser on this machine, choose Ready, tick "Use this browser as my telephone" and let it
  use the microphone; without that, Anna's desk telephone answers by itself after four seconds. Bert is a
  second agent and Sue supervises, both with the same password. "Enable Teams" leads to a stand-in for
  Microsoft's sign-in, whose certificate your browser does not know: go on."""
    )
    expert, customer, bert = (NUMBERS[who] for who in (EXPERT, CUSTOMER, "bert"))
    say(f"\n  To call: the expert {expert}, the customer {customer}, Bert {bert}.")
    say("  Type a letter here and Enter:\n")
    for line in desk.persons.help():
        say(f"    {line}")
    say("\n  Ctrl-C ends everything.\n")


async def _until_left(desk: Desk, leave: Leave, folder: Path) -> None:
    """Obeys and tells until `leave`; DemoFailed when the gateway or a stand-in ends by itself."""

    async def obey() -> None:
        async with contextlib.aclosing(lines_typed()) as typed:
            async for line in typed:
                if line == "q":
                    leave.set()
                elif line:
                    desk.persons.obey(line)
        await asyncio.Event().wait()

    async def gone() -> None:
        code = await desk.running.wait()
        raise DemoFailed(f"the gateway ended with exit code {code}; see {folder / 'gateway.log'}")

    works = (leave.wait(), obey(), gone(), desk.persons.tell(_note), *desk.persons.listen())
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _note(text: str) -> None:
    say(f"  {time.strftime('%H:%M:%S')}  {text}")
