"""kill -9 of rtpengine under twenty calls: the same ports and keys, sound back within two seconds."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.calls.routing import compile_route
from media.engine import Engine, EngineSettings
from tests.calls.house import EXPERT, House, open_house
from tests.peers.certs import Pki
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams import Teams
from tests.peers.teams_call import TeamsCall
from tests.restart.plant import Plant, open_plant
from tests.support import ports

CALLS = 20


async def talking(plant: Plant | House, count: int) -> list[tuple[CenterCall, TeamsCall]]:
    pairs = []
    for _ in range(count):
        agent = await plant.center.call(EXPERT)
        expert = await plant.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        pairs.append((agent, expert))
    await all_hear(pairs)
    return pairs


async def all_hear(pairs: list[tuple[CenterCall, TeamsCall]], within: float = 10.0) -> None:
    await asyncio.gather(
        *(agent.rtp.hears(700, within) for agent, _ in pairs),
        *(expert.rtp.hears(440, within) for _, expert in pairs),
    )


async def end(pairs: list[tuple[CenterCall, TeamsCall]]) -> None:
    for agent, expert in pairs:
        await agent.bye()
        await expert.expect_end()


@pytest.mark.load
async def test_twenty_calls_keep_ports_and_keys_and_are_heard_within_two_seconds(
    pki: Pki, tmp_path: Path
) -> None:
    async with open_plant(pki, tmp_path) as plant:
        pairs = await talking(plant, CALLS)
        before = [(a.rtp.remote, e.rtp.remote, e.rtp.remote_key) for a, e in pairs]
        died = pairs[0][0].rtp.now
        plant.kill_engine()
        await asyncio.sleep(0.1)
        await all_hear(pairs)
        heard = [a.rtp.first_heard(700, died + 0.1) for a, _ in pairs]
        heard += [e.rtp.first_heard(440, died + 0.1) for _, e in pairs]
        silent = [(at or 99.0) - died for at in heard]
        assert max(silent) < 2.0, sorted(silent)[-5:]
        assert [(a.rtp.remote, e.rtp.remote, e.rtp.remote_key) for a, e in pairs] == before
        assert not any(expert.rtp.undecodable for _, expert in pairs)
        await end(pairs)
        assert len(await plant.all_rows(CALLS)) == CALLS


async def test_with_redis_lost_the_plain_leg_is_rebuilt_and_teams_call_ends_and_says_why(
    pki: Pki, tmp_path: Path
) -> None:
    """T21: Teams does not follow to other ports."""
    async with open_plant(pki, tmp_path) as plant:
        [(agent, expert)] = await talking(plant, 1)
        plant.kill_engine("redis", "rtpengine")
        await asyncio.gather(agent.expect_end(), expert.expect_end())
        [row] = await plant.all_rows(1)
        assert (row["reason"], row["disposition"]) == ("media_lost", "system_terminated")
        await end(await talking(plant, 1))


@pytest.fixture
async def own_engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An rtpengine of the test's own, because it will be killed."""
    settings = EngineSettings(
        "embedded", "127.0.0.1", ports.free_udp_range(60), tmp_path / "engine", ping_interval=0.2
    )
    engine = Engine(settings)
    await engine.start()
    yield engine
    await engine.stop()


def kill(engine: Engine, *names: str) -> None:
    for name in names:
        os.kill(engine.processes[name], signal.SIGKILL)


async def test_a_long_srtp_call_gets_a_new_key_by_re_invite(
    own_engine: Engine, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its roll-over counter stands at 1, which rtpengine does not restore (facts media-prototype 10)."""
    teams = Teams(pki, media_addresses=["127.0.0.1"], strict=False)
    async with open_house(own_engine, pki, tmp_path, teams=teams) as h:
        own_engine.on_restarted = h.gateway.calls.media_restarted
        bay = h.gateway.context.bay
        monkeypatch.setattr(bay, "restored", functools.partial(bay.restored, rekey_after=0))
        pairs = await talking(h, 1)
        agent, expert = pairs[0]
        await agent.rtp.wrap_sequence()
        await all_hear(pairs)
        key, port = expert.rtp.remote_key, expert.rtp.remote
        kill(own_engine, "rtpengine")
        await expert.expect("INVITE")
        await all_hear(pairs)
        assert expert.rtp.remote_key != key
        assert expert.rtp.remote == port
        assert all("SRTP key changed" in text for text in teams.violations), "more than what is needed"
        await end(pairs)


async def test_with_redis_lost_plain_legs_are_rebuilt_by_re_invite(
    own_engine: Engine, pki: Pki, tmp_path: Path
) -> None:
    async with open_house(own_engine, pki, tmp_path) as h:
        own_engine.on_restarted = h.gateway.calls.media_restarted
        object.__setattr__(h.gateway.context.directory, "routes", (compile_route("center", ".*", "center"),))
        caller = await h.center.call("+49307777", tone=440)
        called = await h.center.expect_call(tone=700)
        await called.answer()
        await caller.answered()
        await asyncio.gather(caller.rtp.hears(700), called.rtp.hears(440))
        kill(own_engine, "redis", "rtpengine")
        await asyncio.gather(caller.expect("INVITE"), called.expect("INVITE"))
        await asyncio.gather(caller.rtp.hears(700), called.rtp.hears(440))
        await caller.bye()
        await called.expect_end()
