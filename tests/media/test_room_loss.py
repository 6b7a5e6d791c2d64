"""Rooms that die, hang, cannot start or are many: the pool keeps conferences going and leaves nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.calls.audibility import Hold
from gateway.errors import MediaUnavailable
from gateway.model import LegId
from media.pool import RoomPool
from media.room_process import RoomProcess, RoomSettings
from tests.media.room_hall import Hall, open_hall, write_music


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return write_music(tmp_path / "music.wav")


@pytest.fixture
async def hall(music: Path) -> AsyncIterator[Hall]:
    async with open_hall(RoomPool(RoomSettings(music=music), size_warm=1, check_every=0.5)) as hall:
        yield hall


@pytest.fixture
async def small(music: Path) -> AsyncIterator[Hall]:
    """Rooms as small as a wheel with one stream a call would give: ten parties need four of them."""
    pool = RoomPool(RoomSettings(music=music), size_warm=1, capacity=4, max_parties=10)
    async with open_hall(pool) as hall:
        yield hall


@pytest.fixture
async def pool(hall: Hall) -> RoomPool:
    return hall.pool


async def test_a_killed_room_is_replaced_within_two_seconds(hall: Hall) -> None:
    await hall.open(4)
    held = hall.edges([Hold(hall.parties[3].leg)])
    await hall.room.set_edges(held)
    await hall.expect(held)
    begun = asyncio.get_running_loop().time()
    os.kill(hall.room.processes[0].pid, signal.SIGKILL)
    await asyncio.wait_for(hall.moved.wait(), 5)
    assert hall.moves[0][0].keys() == {party.leg for party in hall.parties}
    assert hall.moves[0][1] == "signal_9"
    talkers = hall.parties[:3]
    heard = await asyncio.gather(
        *(a.peer.hears(b.hz, last=1) for a, b in itertools.permutations(talkers, 2)),
    )
    assert max(heard) - begun < 2.0
    await hall.expect(held)


async def test_a_room_that_hangs_is_found_and_replaced(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("media.room_process._REPLY_WITHIN", 1.0)
    await hall.open(3)
    os.kill(hall.room.processes[0].pid, signal.SIGSTOP)
    await asyncio.wait_for(hall.moved.wait(), 10)
    await hall.expect(hall.edges())


async def test_a_room_that_dies_while_a_party_joins(hall: Hall) -> None:
    await hall.open(3)
    os.kill(hall.room.processes[0].pid, signal.SIGKILL)
    await hall.join()
    await hall.room.set_edges(hall.edges())
    await hall.expect(hall.edges())


async def test_any_room_of_a_cascade_may_die(small: Hall) -> None:
    await small.open(7)
    for index in (0, 1):
        small.moved.clear()
        os.kill(small.room.processes[index].pid, signal.SIGKILL)
        await asyncio.wait_for(small.moved.wait(), 5)
        await small.expect(small.edges())


async def test_a_warm_room_that_dies_is_replaced(pool: RoomPool, hall: Hall) -> None:
    (process,) = pool._warm
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(process.ended.wait(), 5)
    assert process not in pool._warm
    await hall.open(3)
    await hall.expect(hall.edges())


@pytest.mark.load
async def test_many_conferences_in_a_row_leave_nothing(pool: RoomPool) -> None:
    for turn in range(12):
        room = await pool.acquire(f"turn{turn}", lambda *_: None)
        ports = [await room.add(LegId(f"leg{i}"), 9) for i in range(4)]
        assert len(set(ports)) == 4
        pids = [process.pid for process in room.processes]
        await room.close()
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: ASYNC240
        assert not pool.rooms


@pytest.mark.load
async def test_parties_come_and_go_for_ever_in_one_room(pool: RoomPool) -> None:
    """Slots, sockets and memory of one process through many more joins than it has streams."""
    room = await pool.acquire("revolving", lambda *_: None)
    pid = room.processes[0].pid
    sizes = []
    for turn in range(300):
        leg = LegId(f"leg{turn}")
        await room.add(leg, 9)
        if turn >= 4:
            await room.remove(LegId(f"leg{turn - 4}"))
        if turn in (150, 299):
            sizes.append(_resident(pid))
    assert room.processes[0].pid == pid
    assert len(room.legs) == 4
    assert sizes[1] < sizes[0] + 2048
    await room.close()


def _resident(pid: int) -> int:
    """Resident memory in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


async def test_a_closed_room_and_pool_refuse(pool: RoomPool) -> None:
    room = await pool.acquire("closed", lambda *_: None)
    await room.close()
    await room.close()
    with pytest.raises(MediaUnavailable):
        await room.add(LegId("late"), 9)
    await pool.close()
    with pytest.raises(MediaUnavailable):
        await pool.acquire("late", lambda *_: None)


async def test_a_room_without_music_or_with_a_bad_file_still_mixes(tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not a wave file")
    for settings in (RoomSettings(), RoomSettings(music=bad)):
        async with open_hall(RoomPool(settings, size_warm=0, capacity=8)) as hall:
            await hall.open(3)
            await hall.expect(hall.edges())


async def test_a_room_process_that_cannot_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("media.room_process.sys.executable", "/bin/false")
    with pytest.raises(MediaUnavailable, match="did not start"):
        await RoomProcess.start(RoomSettings(directory=tmp_path))
    assert os.listdir(tmp_path) == []


async def test_a_conference_outlives_the_gateway_and_is_adopted(music: Path, hall: Hall) -> None:
    """The restart: nobody misses a packet, and the new gateway rules the conference."""
    await hall.open(3)
    await hall.expect(hall.edges())
    since = hall.parties[0].peer.now
    process = hall.room.processes[0]
    pid = process.pid
    (snapshot,) = json.loads(json.dumps(await hall.pool.detach()))
    await hall.expect(hall.edges())
    async with open_hall(RoomPool(RoomSettings(music=music), size_warm=0, capacity=8)) as after:
        held = hall.edges([Hold(hall.parties[0].leg)])
        hall.room = await after.pool.adopt(snapshot, hall.edges(), hall.on_moved)
        assert hall.room.processes[0].pid == pid
        assert hall.room.legs == {party.leg for party in hall.parties}
        await hall.expect(hall.edges())
        packets = hall.parties[0].peer.heard(since)
        assert max(b.at - a.at for a, b in itertools.pairwise(packets)) < 0.2
        await hall.room.set_edges(held)
        await hall.expect(held)
        assert not hall.moves
        await hall.room.close()
    await process._exit_code()  # asyncio, whose child it was, has to notice it before the loop is closed
    assert not os.path.exists(f"/proc/{pid}")  # noqa: ASYNC240


async def test_what_died_during_the_restart_is_replaced(music: Path, small: Hall) -> None:
    await small.open(4)
    processes = small.room.processes
    pids = [process.pid for process in processes]
    (snapshot,) = await small.pool.detach()
    os.kill(pids[1], signal.SIGKILL)
    pool = RoomPool(RoomSettings(music=music), size_warm=0, capacity=4, max_parties=10)
    async with open_hall(pool):
        small.room = await pool.adopt(snapshot, small.edges(), small.on_moved)
        assert {leg for ports, _ in small.moves for leg in ports} == {p.leg for p in small.parties[1:]}
        await small.expect(small.edges())
    for process in processes:
        await process._exit_code()
    assert not any(os.path.exists(p["socket"]) for p in snapshot["processes"].values())  # noqa: ASYNC240


async def test_a_room_nobody_adopts_ends_by_itself(tmp_path: Path) -> None:
    process = await RoomProcess.start(RoomSettings(directory=tmp_path, linger=0.2))
    await process.detach()
    assert await asyncio.wait_for(process._exit_code(), 10) == 0
    assert os.listdir(tmp_path) == []
    with pytest.raises(MediaUnavailable):
        await RoomProcess.adopt({"name": "gone", "pid": 1, "socket": str(tmp_path / "gone.sock")})
