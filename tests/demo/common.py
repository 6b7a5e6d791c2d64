"""What the calls that end by themselves and the desktop that stays have in common."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from gateway.state_dir import read_note
from tests.demo.failure import DemoFailed
from tests.support import ports


def say(text: str = "") -> None:
    print(text, flush=True)


def heading(text: str) -> None:
    say(f"\n== {text} ".ljust(88, "="))


class Leave(asyncio.Event):
    """Set to end what stays until it is told to.

    awaited: everything is up, and whoever wants it to end has only to `set` this
    """

    awaited = False


@dataclass(frozen=True)
class Ports:
    """Where the gateway will listen, chosen before anything runs."""

    plain: int
    secure: int
    media: tuple[int, int]

    @classmethod
    def choose(cls, media: int) -> Ports:
        """Free ones; media: how many for RTP."""
        return cls(ports.free_port(), ports.free_port(), ports.free_udp_range(media))


async def get(state: Path, path: str) -> tuple[int, str]:
    note = read_note(state)
    if note is None:
        raise DemoFailed(f"the gateway is gone; see {state.parent / 'gateway.log'}")
    limit = aiohttp.ClientTimeout(total=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.get(f"http://{note.host}:{note.port}{path}") as response,
        ):
            return response.status, await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DemoFailed(f"GET {path}: {error or type(error).__name__}") from error


async def ready(state: Path, within: float = 15.0) -> None:
    deadline = time.monotonic() + within
    while (answer := await get(state, "/readyz"))[0] != 200:
        if time.monotonic() > deadline:
            raise DemoFailed(f"the gateway is not ready: {answer[1]}")
        await asyncio.sleep(0.05)


def left_behind(folder: Path, where: Ports) -> list[str]:
    """Ports of the gateway that still answer, an rtpengine that is still noted as running."""
    found = []
    for port in (where.plain, where.secure):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(f"port {port} is still open")
    if (folder / "state" / "media" / "engine.json").exists():
        found.append("rtpengine may still run")
    return found
