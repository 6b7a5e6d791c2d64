"""A pool of warm room processes, and the conferences made of them.

A process serves one conference and then ends: nothing of a conference can leak into the next one. It is a
plain new interpreter (0.13 s to start, 0.11 s of it CPU; a fork server would take 0.01 s), because the
warm ones hide that. They have pjsua2 loaded and their mixer's clock not yet running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from gateway.calls.audibility import Edges
from gateway.errors import MediaUnavailable
from media.room_cascade import HUB
from media.room_conference import OnMoved, Room, RoomFull
from media.room_process import RoomProcess, RoomSettings, probe

__all__ = ["OnMoved", "Room", "RoomFull", "RoomPool", "RoomSettings"]

log = logging.getLogger("tandem.rooms")

_CALM = 0.4
"""Seconds from the use of a warm process to the start of its successor, which takes 0.1 s of a core: not
while the parties of the new conference are being moved into it."""
_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class RoomPool:
    """Warm room processes and the conferences made of them. `await start()`, then `acquire`, `close`.

    size_warm:   processes that wait ready (about 17 MB each)
    capacity:    streams a process; None: probed at start
    max_parties: of one conference; decides how many streams of the hub are kept for links
    check_every: seconds between the checks that every room still answers
    """

    def __init__(
        self,
        settings: RoomSettings | None = None,
        *,
        size_warm: int = 2,
        capacity: int | None = None,
        max_parties: int = 64,
        check_every: float = 2.0,
    ) -> None:
        self._settings = settings or RoomSettings()
        self._size_warm, self._max_parties, self._check_every = size_warm, max_parties, check_every
        self.capacity = capacity or 0
        self.leaves = 0
        self._warm: list[RoomProcess] = []
        self._rooms: set[Room] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._need = asyncio.Event()
        self._closed = False

    async def start(self) -> None:
        """Probe the capacity and warm up; MediaUnavailable when rooms do not work on this machine at all."""
        if not self.capacity:
            self.capacity = await probe()
        self.leaves = _leaves(self.capacity, self._max_parties)
        self._warm.append(await self._start_one())
        log.info("event=rooms_ready capacity=%d leaves=%d", self.capacity, self.leaves)
        self._need.set()
        self._tasks = [asyncio.create_task(self._refill()), asyncio.create_task(self._check())]

    @property
    def warm(self) -> int:
        """Processes that wait ready."""
        return len(self._warm)

    @property
    def rooms(self) -> frozenset[Room]:
        return frozenset(self._rooms)

    async def adopt(self, snapshot: Mapping[str, Any], edges: Edges, on_moved: OnMoved) -> Room:
        """The conference that an earlier gateway detached from (`Room.snapshot`), with the edges it should
        have now. Its sound is not interrupted where its processes still run."""
        room = self._open(str(snapshot["name"]), on_moved)
        try:
            await room.take_over(snapshot, edges)
        except BaseException:
            await room.close()
            raise
        return room

    async def acquire(self, name: str, on_moved: OnMoved) -> Room:
        """A conference called `name` in logs. `on_moved` is called whenever local ports changed, because a
        process died and was replaced."""
        room = self._open(name, on_moved)
        try:
            await room.set_edges(Edges())
        except BaseException:
            await room.close()
            raise
        return room

    async def close(self) -> None:
        """End all conferences and processes; when it returns no process is left. Never raises."""
        await self._retire()
        await asyncio.gather(*(room.close() for room in list(self._rooms)))

    async def detach(self) -> list[dict[str, Any]]:
        """Before a restart: the snapshots of all conferences, which go on mixing; warm processes end."""
        await self._retire()
        snapshots = [room.snapshot() for room in self._rooms]
        await asyncio.gather(*(room.detach() for room in list(self._rooms)))
        return snapshots

    async def _retire(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        warm, self._warm = self._warm, []
        await asyncio.gather(*(process.close() for process in warm))

    def _open(self, name: str, on_moved: OnMoved) -> Room:
        if self._closed:
            raise MediaUnavailable("the room pool is closed")
        room = Room(self, name, on_moved)
        self._rooms.add(room)
        return room

    # ---- for Room -----------------------------------------------------------------------------------

    def seats(self, room: int) -> int:
        """How many parties room number `room` of a conference may have."""
        return self.capacity - (self.leaves if room == HUB else 1)

    async def take(self, room: Room) -> RoomProcess:
        while self._warm:
            process = self._warm.pop(0)
            if not process.ended.is_set():
                break
        else:
            process = await self._start_one()
        process.on_end = room.process_ended
        self._need.set()
        return process

    def forget(self, room: Room) -> None:
        self._rooms.discard(room)

    # ---- upkeep -------------------------------------------------------------------------------------

    async def _start_one(self) -> RoomProcess:
        process = await RoomProcess.start(self._settings)
        process.on_end = self._warm_one_ended
        return process

    def _warm_one_ended(self, process: RoomProcess) -> None:
        if process in self._warm:
            self._warm.remove(process)
            self._need.set()

    async def _refill(self) -> None:
        pause = _PAUSE
        while True:
            await self._need.wait()
            self._need.clear()
            if self._rooms:
                await asyncio.sleep(_CALM)
            while len(self._warm) < self._size_warm:
                try:
                    self._warm.append(await self._start_one())
                    pause = _PAUSE
                except MediaUnavailable as error:
                    log.error("event=room_not_started problem=%s", error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._check_every)
            await asyncio.gather(*(process.check() for room in self._rooms for process in room.processes))


def _leaves(capacity: int, parties: int) -> int:
    """The fewest leaves that seat `parties`; as many as there can be when none is enough."""
    for leaves in range(capacity):
        if (capacity - leaves) + leaves * (capacity - 1) >= parties:
            return leaves
    return capacity - 1
