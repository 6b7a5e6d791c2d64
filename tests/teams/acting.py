"""What tests of this room do again and again."""

from __future__ import annotations

import asyncio
import html
import re
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp

from gateway.teams.entra import Entra
from tests.peers.graph import GraphSim
from tests.support.clock import FakeClock
from tests.support.waiting import until

T = TypeVar("T")


async def browse(sim: GraphSim, address: str) -> dict[str, str]:
    """Follow a sign-in address as a browser does; the form that the redirect URI gets."""
    async with aiohttp.ClientSession() as http, http.get(address, ssl=_context(sim)) as answer:
        page = await answer.text()
    assert answer.status == 200, page
    return {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', page)}


def _context(sim: GraphSim) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(sim.roots))


async def sign_in(sim: GraphSim, entra: Entra, login: str, redirect: str, hint: str) -> None:
    answer = await browse(sim, await entra.begin_sign_in(login, redirect, hint))
    await entra.finish_sign_in(answer, lambda _login, _identity: None)


async def drive(clock: FakeClock, work: Coroutine[Any, Any, T], *, limit: float = 3600.0) -> T:
    """Run `work`; whenever it waits for the clock (`clock.pause`) and for nothing else, the clock moves."""
    task = asyncio.ensure_future(work)
    end = clock.now() + limit
    quiet = 0
    while not task.done():
        await asyncio.sleep(0)
        due = next_pause(clock)
        quiet = quiet + 1 if due is not None else 0
        if quiet > 1 and due is not None and not task.done():
            assert due < end, "the clock ran and ran"
            clock.advance(due - clock.now())
            quiet = 0
        elif due is None:
            await asyncio.sleep(0.001)
    return await task


def next_pause(clock: FakeClock) -> float | None:
    """When the next of those who wait in `pause` is to go on."""
    found = [
        due
        for due, _, timer in clock._heap
        if isinstance(getattr(timer.callback, "__self__", None), asyncio.Event)
    ]
    return min(found, default=None)


async def eventually(condition: Callable[[], bool]) -> None:
    await until(condition)
