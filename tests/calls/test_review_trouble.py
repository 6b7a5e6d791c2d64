"""What the gateway lacks (ports, rtpengine, disk, room for one more) costs new calls, never running ones."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cdr.segments import Disk
from gateway.errors import MediaUnavailable
from gateway.events import CallEnded
from media.engine import Engine, EngineSettings
from media.process import Daemon
from tests.calls.conftest import OpenHouse
from tests.calls.conversation import both_hear, over, to_teams
from tests.calls.house import CUSTOMER, EXPERT, House, open_house, until
from tests.peers.certs import Pki
from tests.peers.contact_center_call import CenterCall
from tests.support import ports


def ended(h: House) -> list[tuple[str, int]]:
    """Reason and code of the calls that are over, in the order in which they ended."""
    return [
        (event.termination.reason, event.termination.sip_code)
        for event in h.events
        if isinstance(event, CallEnded)
    ]


@pytest.fixture
async def small_engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An rtpengine with ports for two calls, four a leg."""
    engine = Engine(
        EngineSettings("embedded", "127.0.0.1", ports.free_udp_range(16), tmp_path, ping_interval=0.2)
    )
    await engine.start()
    yield engine
    await engine.stop()


async def test_port_exhaustion_is_503_in_the_journal_and_running_calls_go_on(
    small_engine: Engine, pki: Pki, tmp_path: Path
) -> None:
    async with open_house(small_engine, pki, tmp_path) as h:
        limits = h.config.limits.model_copy(update={"max_calls": 10})
        h.gateway.context.config = h.config.model_copy(update={"limits": limits})
        agent, expert = await to_teams(h)
        second, other = await to_teams(h)
        third = await h.center.call(EXPERT)
        answer = await third.outcome()
        assert answer.code == 503
        assert "Q.850;cause=" in answer.get("Reason")
        await until(lambda: len(h.gateway.calls.calls) == 2, "end of the third call")
        assert ended(h) == [("no_media", 503)]
        assert h.rows() == [], "no INVITE left for it: no row (facts/call-detail.md 5, rule 10)"
        await both_hear(agent, expert)
        await over(agent, expert)
        await until(lambda: len(h.gateway.calls.calls) == 1, "end of the first call")
        agent, expert = await to_teams(h)
        await over(agent, expert)
        await over(second, other)


@pytest.fixture
async def own_engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An rtpengine of the test's own, because it will be killed."""
    engine = Engine(
        EngineSettings("embedded", "127.0.0.1", ports.free_udp_range(100), tmp_path, ping_interval=0.2)
    )
    await engine.start()
    yield engine
    await engine.stop()


async def test_a_dead_rtpengine_is_503_and_the_next_call_after_its_return_is_heard(
    own_engine: Engine, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(own_engine, pki, tmp_path) as h:
        own_engine.on_restarted = h.gateway.calls.media_restarted
        agent, expert = await to_teams(h)
        start = own_engine._start_rtpengine

        async def broken(state: object) -> Daemon:
            raise MediaUnavailable("no such binary")

        monkeypatch.setattr(own_engine, "_start_rtpengine", broken)
        os.kill(own_engine.processes["rtpengine"], signal.SIGKILL)
        refused, theirs = await h.center.call(EXPERT), await h.teams.invite(CUSTOMER)
        assert (await refused.outcome(within=30.0)).code == 503
        answer = await theirs.outcome(within=30.0)
        assert answer.code == 503
        assert answer.get("Warning")
        assert "rtpengine" not in answer.get("Warning"), "an inner part and its address are told to Teams"
        assert "127.0.0.1" not in answer.get("Warning")
        await h.teams.expect_no_invite(0.1)
        monkeypatch.setattr(own_engine, "_start_rtpengine", start)
        await until(lambda: own_engine.restarts >= 1, "rtpengine back", within=20.0)
        await both_hear(agent, expert)
        again, other = await to_teams(h)
        await over(again, other)
        await over(agent, expert)
        await h.quiet()
        assert ended(h) == [("no_media", 503)] * 2 + [("hangup", 200)] * 2


class FullDisk(Disk):
    """Real files; every write fails while `full`."""

    full = False

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, data)


async def test_a_full_disk_is_503_for_new_calls_and_the_running_one_is_recorded(house: OpenHouse) -> None:
    disk = FullDisk()
    async with house(disk=disk) as h:
        agent, expert = await to_teams(h)
        disk.full = True
        for _ in range(2):  # the first finds it out, the second is not even begun
            refused = await h.center.call(EXPERT)
            assert (await refused.outcome()).code == 503
        await h.teams.expect_no_invite(0.1)
        await both_hear(agent, expert)
        await agent.hold("sendonly")
        await agent.resume()
        await over(agent, expert)
        await h.quiet()
        disk.full = False
        await until(lambda: h.journal.can_accept, "the disk to be writable")
        await until(lambda: bool(ended(h)), "the row")
        assert ended(h) == [("hangup", 200)]
        agent, expert = await to_teams(h)
        await over(agent, expert)


async def test_a_trunks_limit_counts_calls_in_both_directions(house: OpenHouse) -> None:
    """`max_calls` of the trunk a call goes out by; the peer over there may have bought no more."""
    async with house(teams_extra="max_calls = 1") as h:
        agent, expert = await to_teams(h)
        for _ in range(2):
            refused = await h.center.call(EXPERT)
            answer = await refused.outcome()
            assert answer.code == 503
        await h.teams.expect_no_invite(0.1)
        theirs = await h.teams.invite(CUSTOMER)
        assert (await theirs.outcome()).code == 503
        await until(lambda: len(h.gateway.calls.calls) == 1, "end of what was refused")
        assert ended(h) == [("trunk_max_calls", 503)] * 2
        await over(agent, expert)
        await h.quiet()
        agent, expert = await to_teams(h)
        await over(agent, expert)


async def test_a_burst_over_the_rate_is_503_and_the_next_second_is_free(house: OpenHouse) -> None:
    async with house() as h:
        limits = h.config.limits.model_copy(update={"calls_per_second": 2.0})
        h.gateway.context.config = h.config.model_copy(update={"limits": limits})
        calls = [await h.center.call(EXPERT) for _ in range(5)]
        experts = [await h.teams.expect_invite() for _ in range(2)]
        codes = sorted([(await call.outcome()).code for call in calls if await refused(call)])
        assert codes == [503, 503, 503]
        assert h.gateway.calls.limits.refused["calls_per_second"] == 3
        for expert in experts:
            await expert.reject(486)
        await asyncio.sleep(1.0)
        agent, expert = await to_teams(h)
        await over(agent, expert)


async def test_while_a_caller_waits_for_his_media_others_get_503(house: OpenHouse) -> None:
    """An overloaded gateway that takes every call loses those it has: measured as 27 of 300 dropped."""
    async with house() as h:
        limits = h.config.limits.model_copy(update={"max_setup_delay": 0.2})
        h.gateway.context.config = h.config.model_copy(update={"limits": limits})
        engine = h.engine.processes["rtpengine"]
        os.kill(engine, signal.SIGSTOP)
        try:
            first = await h.center.call(EXPERT)
            await until(lambda: h.gateway.calls.limits.delay > 0.2, "a caller who waits")
            answer = await (await h.center.call(EXPERT)).outcome()
        finally:
            os.kill(engine, signal.SIGCONT)
        assert (answer.code, answer.get("Retry-After")) == (503, "5")
        assert "overloaded" in answer.get("Reason")
        expert = await h.teams.expect_invite()
        await expert.answer()
        await first.answered()
        assert h.gateway.calls.limits.delay == 0
        await over(first, expert)
        again = await to_teams(h)
        await over(*again)


async def refused(call: CenterCall) -> bool:
    """Whether the call was refused at once; the others are still waiting."""
    assert call.inviting is not None
    seen = call.inviting.seen
    await call.until(lambda: any(r.code == 100 or r.code >= 200 for r in seen), "100 or an answer")
    return any(r.code >= 200 for r in seen)
