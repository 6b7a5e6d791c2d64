"""A thousand calls in a row and a hundred at once leave nothing behind, and memory stays flat.

SIPp calls over UDP, Teams picks up at once by TLS with SRTP. Everything is counted after warm-up and again at
the end: calls, sessions, transactions, tasks, anchors, rtpengine's calls and sockets, our own files.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import MediaUnavailable
from gateway.events import CallEnded, Event
from gateway.sip.transaction_timers import Timers
from media.engine import Engine, EngineSettings
from tests.calls.foreign import Foreign, listener
from tests.calls.house import EXPERT, House, open_house, until
from tests.peers import teams_shapes as shapes
from tests.peers.certs import Pki
from tests.peers.rtp import RtpPeer
from tests.peers.sipp import Sipp, available
from tests.peers.sipwire import WireMessage, new_tag
from tests.peers.sipwire_net import WireLog
from tests.peers.sipwire_ua import Dialog, DialogUser, ServerTx
from tests.peers.teams import Teams
from tests.support import ports

pytestmark = [
    pytest.mark.load,
    pytest.mark.longest,
    pytest.mark.skipif(not available(), reason="sipp is not installed"),
]
PLACES = 110
"""Calls for which the engine has ports."""


class Machine(DialogUser):
    """A Teams voice application: answers at once, has nothing to say, remembers nothing after BYE."""

    def __init__(self, teams: Teams, transaction: ServerTx, sink: RtpPeer) -> None:
        request = transaction.request
        self._teams = teams
        self.dialog = Dialog.of_invite(request, new_tag())
        teams.ua.adopt(self)
        contact = f"<sip:api-du-b-euwe.pstnhub.microsoft.com:{teams.proxies[0].port};x-i=1>"
        headers = [("CONTACT", contact), ("ALLOW", shapes.ALLOW)]
        transaction.respond(180, to_tag=self.dialog.local_tag, headers=headers)
        body = shapes.answer(sink, request.sdp(), teams.shape, "sendrecv")
        transaction.respond(200, to_tag=self.dialog.local_tag, headers=headers, body=body)

    def on_request(self, transaction: ServerTx) -> None:
        transaction.respond(200)
        if transaction.request.method == "BYE":
            asyncio.get_running_loop().call_soon(self._teams.ua.forget, self.dialog.call_id)

    def on_ack(self, ack: WireMessage) -> None:
        """Nothing to do: the answer was complete."""


def machines(pki: Pki, sink: RtpPeer) -> Teams:
    """Teams, of which a `Machine` answers every call; it keeps nothing of them."""
    teams = Teams(pki, media_addresses=["127.0.0.1"], log=WireLog(keep=False))
    teams.ua.wire.observer = None  # it would remember every dialog

    def pick_up(transaction: ServerTx) -> bool:
        if transaction.request.method != "INVITE":
            return False
        Machine(teams, transaction, sink)
        return True

    teams.hook = pick_up
    return teams


class Tally(list[Event]):
    """Counts the calls that have ended instead of keeping what happened in them."""

    ended = 0

    def append(self, event: Event) -> None:
        self.ended += isinstance(event, CallEnded)


@dataclass(frozen=True)
class Holdings:
    """What is held at a quiet moment; `own` and `engine` count open files."""

    tasks: int
    own: int
    engine: int
    files: int

    @classmethod
    def of(cls, h: House) -> Holdings:
        pid = h.engine.processes["rtpengine"]
        state = h.config.gateway.state_dir
        return cls(
            len(asyncio.all_tasks()),
            len(os.listdir("/proc/self/fd")),
            len(os.listdir(f"/proc/{pid}/fd")),
            sum(1 for _ in state.rglob("*")),
        )


@pytest.fixture
async def roomy(tmp_path: Path) -> AsyncIterator[Engine]:
    """An rtpengine of its own with ports for all calls at once, and no more."""
    settings = EngineSettings("embedded", "127.0.0.1", ports.free_udp_range(8 * PLACES), tmp_path / "engine")
    engine = Engine(settings)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def sink() -> AsyncIterator[RtpPeer]:
    """Takes what all calls are sent; says nothing."""
    peer = await RtpPeer.open(srtp=True)
    peer.pause()
    yield peer
    await peer.close()


async def settle(h: House, finished: int) -> Holdings:
    """Wait until `finished` calls are over and nothing of them is left; what is held then."""
    agent, layer = h.gateway.agent, h.gateway.transactions
    await h.quiet()
    assert isinstance(h.events, Tally)
    assert h.events.ended == finished
    await until(lambda: layer.active == 0, "transactions to end", 15)
    assert not agent.sessions
    assert not any(agent.active.values())
    assert not h.gateway.context.bay.anchors
    assert (await h.engine.ng.command("list"))["calls"] == []
    gc.collect()
    return Holdings.of(h)


def living() -> Counter[str]:
    """Objects of our own classes that are alive, by class."""
    gc.collect()
    names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    return Counter(name for name in names if name.startswith(("gateway.", "media.")))


def resident() -> float:
    """MiB of memory in use by this process (gateway, stand-in and test)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def round_of(h: House, folder: Path, calls: int, **pace: Any) -> None:
    """So many calls by SIPp; every one has to be good."""
    port = int(h.center.peer.rpartition(":")[2])
    async with Sipp(
        folder, gateway=listener(h, "udp"), called=EXPERT, calls=calls, port=port, **pace
    ) as caller:
        counts = await caller.finished(90)
    assert counts.all_good, counts.errors
    assert counts.successful == calls


async def test_a_slow_rtpengine_is_not_taken_for_a_hung_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load pings come back late; as long as anything is answered, it must not be killed."""
    pid = engine.processes["rtpengine"]
    pings: list[float] = []

    async def late(waits: object = ()) -> None:
        pings.append(asyncio.get_running_loop().time())
        await engine.ng.command("list")
        raise MediaUnavailable("late")

    monkeypatch.setattr(engine.ng, "ping", late)
    await until(lambda: len(pings) > 5, "pings")
    assert engine.processes["rtpengine"] == pid
    assert engine.up
    assert engine.restarts == 0


async def test_a_thousand_calls_in_a_row_and_a_hundred_at_once_leave_nothing_behind(
    roomy: Engine, pki: Pki, sink: RtpPeer, tmp_path: Path
) -> None:
    teams = machines(pki, sink)
    center = Foreign(f"udp:127.0.0.1:{ports.free_port()}")
    async with open_house(roomy, pki, tmp_path, center=center, teams=teams) as h:
        h.events = Tally()
        layer = h.gateway.transactions
        layer.timers = layer._sending.timers = Timers(t1=0.05)  # or each round would have to wait 32 s
        quick = {"rate": 32.0, "hold": 0.05, "limit": 10}  # a busy machine takes longer, not more at once
        await round_of(h, tmp_path / "first", 200, **quick)
        before = await settle(h, 200)
        alive, blocks = living(), sys.getallocatedblocks()
        await round_of(h, tmp_path / "second", 400, **quick)
        assert await settle(h, 600) == before
        size = resident()
        await round_of(h, tmp_path / "third", 400, **quick)
        assert await settle(h, 1000) == before
        assert living() - alive == Counter()
        assert sys.getallocatedblocks() - blocks < 8 * 800, (
            "the journal's index may keep a few strings a call"
        )
        assert resident() - size < 4.0, "MiB more after 400 more calls"
        done = asyncio.ensure_future(round_of(h, tmp_path / "at-once", 100, rate=30.0, hold=7.0))
        await until(lambda: len(h.gateway.calls.calls) == 100, "a hundred calls at once", 20)
        await until(lambda: h.gateway.calls.leg_count == 200, "their legs")
        await done
        assert await settle(h, 1100) == before
