"""rtpengine dies under calls, and the gateway comes back to a running rtpengine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import MediaUnavailable
from gateway.model import new_leg_id
from media.engine import Engine, EngineSettings
from media.patchbay import PatchBay
from media.process import Daemon
from tests.media.conftest import PeerFactory
from tests.media.support import PLAIN, both_hear, callee, caller
from tests.media.test_music import write_wav
from tests.peers.tone import hears, sine
from tests.support import ports
from tests.support.waiting import until


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An rtpengine of the test's own, because it will be killed."""
    settings = EngineSettings(
        "embedded", "127.0.0.1", ports.free_udp_range(60), tmp_path / "engine", ping_interval=0.2
    )
    engine = Engine(settings)
    await engine.start()
    yield engine
    await engine.stop()


class Notice:
    """An Engine's on_restarted that can be awaited."""

    def __init__(self, engine: Engine) -> None:
        self._event = asyncio.Event()
        engine.on_restarted = self._event.set

    async def wait(self) -> None:
        await asyncio.wait_for(self._event.wait(), 10)
        self._event.clear()


def kill(engine: Engine, name: str = "rtpengine") -> int:
    pid = engine.processes[name]
    os.kill(pid, signal.SIGKILL)
    return pid


async def test_calls_survive_the_death_of_rtpengine(engine: Engine, bay: PatchBay, peer: PeerFactory) -> None:
    """Ports, keys and sound are back in less than two seconds; the source lock too."""
    notice = Notice(engine)
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    c, d = await peer(tone=950, telephone_event=96), await peer(tone=1200, codec="PCMU")
    legs = [await caller(bay, a), await callee(bay, b), await caller(bay, c), await callee(bay, d)]
    closed = await caller(bay, await peer(tone=300))
    await bay.bridge(legs[0], legs[1])
    await bay.bridge(legs[2], legs[3])
    await asyncio.gather(both_hear(a, b), both_hear(c, d))
    outside = [leg.local for leg in legs]
    died = a.now
    kill(engine)
    await notice.wait()
    bay.forget(closed)
    restored = await bay.restored()
    await asyncio.gather(both_hear(a, b), both_hear(c, d))
    assert a.now - died < 2
    assert restored.lost == restored.rekey == ()
    assert [leg.local for leg in legs] == outside
    assert b.undecodable == 0
    refreshed = await legs[1].remote_offer(b.description())
    b.follow(refreshed)
    intruder = await peer(tone=2000)
    assert legs[0].local is not None
    intruder.connect("127.0.0.1", legs[0].local.port)
    await asyncio.sleep(0.2)
    since = b.now
    await b.hears(440)
    assert not hears(b.pcm(since), 2000), "the source lock is gone"


async def test_a_wrapped_leg_needs_and_gets_a_new_key(
    engine: Engine, bay: PatchBay, peer: PeerFactory
) -> None:
    """The outgoing roll-over counter is not restored: a strict receiver hears nothing before a new key."""
    notice = Notice(engine)
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    await a.wrap_sequence()
    await both_hear(a, b)
    kill(engine)
    await notice.wait()
    restored = await bay.restored(rekey_after=0)
    assert restored.rekey == (two,)
    with pytest.raises(AssertionError, match="no 440"):
        await b.hears(440, within=0.4)
    b.follow(await two.rekey())
    await two.accept_answer(b.description())
    await both_hear(a, b)


async def test_music_goes_on_after_a_restart(
    engine: Engine, bay: PatchBay, peer: PeerFactory, tmp_path: Path
) -> None:
    notice = Notice(engine)
    file = write_wav(tmp_path / "m.wav", sine(600, 3.0))
    a = await peer(tone=440)
    one = await caller(bay, a)
    await one.play(file)
    await a.hears(600)
    kill(engine)
    await notice.wait()
    await bay.restored()
    await a.hears(600)


async def test_legs_end_though_rtpengine_is_away_and_leave_nothing(
    engine: Engine, bay: PatchBay, peer: PeerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media.rtpengine.WAITS", (0.02,))
    notice = Notice(engine)
    a = await peer(tone=440)
    one = await caller(bay, a)
    os.kill(engine.processes["rtpengine"], signal.SIGSTOP)
    await one.close()
    with pytest.raises(MediaUnavailable):
        await bay.answer_side(new_leg_id(), a.description(), PLAIN)
    kill(engine)
    await notice.wait()
    await bay.restored()
    assert (await engine.ng.command("list"))["calls"] == []


async def test_redis_that_died_is_replaced_and_learns_of_the_calls_again(
    engine: Engine, bay: PatchBay, peer: PeerFactory
) -> None:
    notice = Notice(engine)
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    kill(engine, "redis")
    await notice.wait()
    await bay.restored()
    kill(engine)
    await notice.wait()
    restored = await bay.restored()
    assert restored.lost == ()
    await both_hear(a, b)


async def test_a_hanging_rtpengine_is_replaced(engine: Engine, bay: PatchBay, peer: PeerFactory) -> None:
    notice = Notice(engine)
    a, b = await peer(tone=440), await peer(tone=700)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    os.kill(engine.processes["rtpengine"], signal.SIGSTOP)
    await notice.wait()
    await bay.restored()
    await both_hear(a, b)


async def test_the_next_gateway_adopts_what_runs_and_stop_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = EngineSettings("embedded", "127.0.0.1", ports.free_udp_range(20), tmp_path / "state")
    first = Engine(settings)
    await first.start()
    processes, dtmf = first.processes, first.dtmf_port
    assert (tmp_path / "state" / "engine.json").stat().st_mode & 0o077 == 0
    await first.detach()
    second = Engine(settings)
    await second.start()
    assert second.adopted
    assert (second.processes, second.dtmf_port) == (processes, dtmf)
    await second.detach()
    other = Engine(EngineSettings("embedded", "127.0.0.1", ports.free_udp_range(20), tmp_path / "state"))
    await other.start()
    assert not other.adopted
    assert not set(other.processes.values()) & set(processes.values())
    left = list(other.processes.values())
    await other.stop()
    for pid in (*left, *processes.values()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (tmp_path / "state" / "engine.json").exists()
    assert "engine_replaced" in caplog.text


async def test_a_state_file_that_lies_is_not_believed(tmp_path: Path) -> None:
    """A pid that now belongs to another process (this one) is left alone."""
    assert Daemon(os.getpid(), 1).running is False
    (tmp_path / "engine.json").write_text("{broken")
    settings = EngineSettings("embedded", "127.0.0.1", ports.free_udp_range(20), tmp_path)
    engine = Engine(settings)
    await engine.start()
    assert not engine.adopted
    await engine.stop()


async def test_an_engine_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = Engine(EngineSettings("embedded", "127.0.0.1", (30000, 30010), tmp_path))
    with pytest.raises(MediaUnavailable, match="redis-server cannot be started"):
        await engine.start()
    await engine.stop()
    monkeypatch.undo()
    broken = tmp_path / "rtpengine"
    broken.write_text("#!/bin/sh\necho Fatal: no interface >&2\nexit 255\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(MediaUnavailable, match="rtpengine does not start: Fatal: no interface"):
        await engine.start()
    await engine.stop()


async def test_an_external_rtpengine_is_only_talked_to(engine: Engine, tmp_path: Path) -> None:
    host, port = engine.ng.address
    external = Engine(EngineSettings(f"udp:{host}:{port}", "127.0.0.1", (1, 2), tmp_path, ping_interval=0.05))
    await external.start()
    notice = Notice(external)
    assert external.processes == {}
    os.kill(engine.processes["rtpengine"], signal.SIGSTOP)
    await until(lambda: not external.up)
    os.kill(engine.processes["rtpengine"], signal.SIGCONT)
    await notice.wait()
    await external.stop()
    await engine.ng.ping()
    for bad in ("udp:127.0.0.1", "tcp:127.0.0.1:1", "udp::x"):
        with pytest.raises(MediaUnavailable):
            await Engine(EngineSettings(bad, "127.0.0.1", (1, 2), tmp_path)).start()
