"""Conferences for the gateway: a pool of warm room processes, and `Room`, a conference of any size in them.

A Room is kept as a wish (who sits where, with which remote port, who hears whom) and `_reconcile` makes the
processes agree with it. Everything that happens, a party more or less, other edges, a process that died,
is a change of the wish or of the processes and then the same `_reconcile`.

A process serves one conference and then ends: nothing of a conference can leak into the next one. Warm
processes have pjsua2 loaded and their mixer's clock not yet running; they cost no CPU worth mentioning.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.calls.audibility import Edges
from gateway.errors import MediaError, MediaUnavailable
from gateway.model import LegId
from media.room_cascade import HUB, Pair, link_name, plan
from media.room_process import RoomProcess, RoomSettings, probe
from media.room_protocol import Place, Remove, Stats, Tone, Wire

log = logging.getLogger("tandem.rooms")

_ATTEMPTS = 5
_PAUSE = 0.1
_LONGEST_PAUSE = 2.0

OnMoved = Callable[["Room", Mapping[LegId, int], str], None]
"""(room, leg -> its new local port, cause): re-patch these legs' inside halves; called in the loop thread."""


class RoomFull(MediaError):
    """The conference has as many parties as the pool was made for."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text)


@dataclass(slots=True)
class _Seat:
    """A party's place: wished room, remote port and codec; `placed` is what its process was told."""

    leg: LegId
    room: int
    remote: int
    codec: str
    local: int = 0
    process: RoomProcess | None = None
    placed: tuple[int, str] = (-1, "")


class Room:
    """One conference. Made by `RoomPool.acquire`; every method may raise MediaError with the cause."""

    def __init__(self, pool: RoomPool, name: str, on_moved: OnMoved) -> None:
        self.name = name
        self._pool, self._on_moved = pool, on_moved
        self._seats: dict[LegId, _Seat] = {}
        self._edges = Edges()
        self._processes: dict[int, RoomProcess] = {}
        self._linked: dict[int, tuple[RoomProcess, RoomProcess]] = {}
        self._wired: dict[RoomProcess, Wire] = {}
        self._leavers: list[tuple[RoomProcess, str]] = []
        self._missing: frozenset[Pair] = frozenset()
        self._turn = asyncio.Lock()
        self._repair: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def legs(self) -> frozenset[LegId]:
        return frozenset(self._seats)

    @property
    def processes(self) -> tuple[RoomProcess, ...]:
        """The processes at work for this conference, the hub first."""
        return tuple(process for _, process in sorted(self._processes.items()))

    async def add(
        self, leg: LegId, remote_port: int, codec: str = "PCMA", *, near: LegId | None = None
    ) -> int:
        """Seat `leg`; its inside half shall send RTP to the returned port of 127.0.0.1 and will be sent to at
        `remote_port`. Adding a seated leg again re-points it and keeps the port.

        codec: PCMA, PCMU or G722; remote_port 0: only reserve the port, send nothing yet
        near:  a leg to share a room with if there is space (whisper, consultation; see room_cascade)
        RoomFull: no seat; MediaUnavailable: no process could be had
        """
        async with self._turn:
            self._ensure_open()
            old = self._seats.get(leg)
            if old is not None:
                old.remote, old.codec = remote_port, codec
            else:
                self._seats[leg] = _Seat(leg, self._room_for(near), remote_port, codec)
            try:
                await self._reconcile()
            except BaseException:
                if old is None:
                    self._forget(leg)
                raise
            return self._seats[leg].local

    async def remove(self, leg: LegId) -> None:
        """Free the seat at once; an unknown leg is fine."""
        async with self._turn:
            if leg in self._seats and not self._closed:
                self._forget(leg)
                await self._reconcile()

    async def set_edges(self, edges: Edges) -> None:
        """Make exactly these edges true; returns when the mixers have been told."""
        async with self._turn:
            self._ensure_open()
            self._edges = edges
            await self._reconcile()

    async def announce(self, legs: Collection[LegId], hz: int = 880, ms: int = 200) -> None:
        """One beep to these legs: somebody joined. A party who cannot be reached just misses it."""
        for number, process in list(self._processes.items()):
            ports = tuple(leg for leg in legs if leg in self._seats and self._seats[leg].room == number)
            if ports:
                with contextlib.suppress(MediaError):
                    await process.command(Tone(ports, hz, ms))

    async def statistics(self) -> dict[LegId, dict[str, Any]]:
        """leg -> RTP counters of its inside half at the room (see `media.room_protocol.Stats`)."""
        result: dict[LegId, dict[str, Any]] = {}
        for process in self.processes:
            found = await process.command(Stats())
            result.update({leg: found[leg] for leg in self._seats if leg in found})
        return result

    async def close(self) -> None:
        """End the conference and its processes. Never raises; calling it twice is fine."""
        self._closed = True
        if self._repair is not None:
            self._repair.cancel()
            await asyncio.gather(self._repair, return_exceptions=True)
        async with self._turn:
            processes, self._processes = self.processes, {}
            await asyncio.gather(*(process.close() for process in processes))
            self._seats.clear()
        self._pool.forget(self)

    def _ensure_open(self) -> None:
        if self._closed:
            raise MediaUnavailable(f"{self.name} is closed")

    # ---- who sits where -----------------------------------------------------------------------------

    def _room_for(self, near: LegId | None) -> int:
        taken = dict.fromkeys(self._processes, 0) | {HUB: 0}
        for seat in self._seats.values():
            taken[seat.room] = taken.get(seat.room, 0) + 1
        free = [room for room, count in sorted(taken.items()) if count < self._pool.seats(room)]
        wished = self._seats[near].room if near in self._seats else HUB
        if wished in free:
            return wished
        if free:
            return free[0]
        leaves = set(range(1, self._pool.leaves + 1)) - taken.keys()
        if not leaves:
            raise RoomFull(f"{self.name} is full with {len(self._seats)} parties")
        return min(leaves)

    def _forget(self, leg: LegId) -> None:
        seat = self._seats.pop(leg)
        if seat.process is not None:
            self._leavers.append((seat.process, leg))

    # ---- making it so -------------------------------------------------------------------------------

    def process_ended(self, process: RoomProcess) -> None:
        """A process of ours died: put its parties elsewhere, whatever it takes, until that worked."""
        if not self._closed and (self._repair is None or self._repair.done()):
            self._repair = asyncio.create_task(self._keep_repairing())

    async def _keep_repairing(self) -> None:
        pause = _PAUSE
        while not self._closed and any(process.ended.is_set() for process in self._processes.values()):
            try:
                async with self._turn:
                    await self._reconcile()
            except MediaError as error:
                log.error("event=room_not_replaced room=%s problem=%s", self.name, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _reconcile(self) -> None:
        """Caller holds `_turn`. A process that dies underneath is replaced and everything done again."""
        before = {leg: seat.local for leg, seat in self._seats.items() if seat.local}
        causes: list[str] = []
        for attempt in range(_ATTEMPTS):
            self._ensure_open()
            try:
                await self._staff(causes)
                await self._dismiss()
                await self._place()
                await self._link()
                await self._wire()
            except MediaUnavailable:
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_PAUSE * attempt)
            else:
                break
        moved = {
            leg: self._seats[leg].local for leg, port in before.items() if self._seats[leg].local != port
        }
        if moved:
            cause = ",".join(causes) or "moved"
            log.warning("event=room_replaced room=%s legs=%d cause=%s", self.name, len(moved), cause)
            self._on_moved(self, moved, cause)

    async def _staff(self, causes: list[str]) -> None:
        """A living process for every room in use, none for the others."""
        used = {HUB, *(seat.room for seat in self._seats.values())}
        for number in used:
            process = self._processes.get(number)
            if process is not None and process.ended.is_set():
                causes.append(process.cause)
                del self._processes[number]
                self._wired.pop(process, None)
                await process.kill()
            if number not in self._processes:
                self._processes[number] = await self._pool.take(self)
        for number in set(self._processes) - used:
            process = self._processes.pop(number)
            self._wired.pop(process, None)
            if self._linked.pop(number, None) is not None:
                self._leavers.append((self._processes[HUB], link_name(number)))
            await process.close()

    async def _dismiss(self) -> None:
        while self._leavers:
            process, port = self._leavers[-1]
            if process in self._processes.values():
                await process.command(Remove(port))
            self._leavers.pop()

    async def _place(self) -> None:
        for seat in self._seats.values():
            process = self._processes[seat.room]
            if seat.process is not process or seat.placed != (seat.remote, seat.codec):
                reply = await process.command(Place(seat.leg, seat.remote, seat.codec))
                seat.local, seat.process, seat.placed = (
                    int(reply["local"]),
                    process,
                    (seat.remote, seat.codec),
                )

    async def _link(self) -> None:
        hub = self._processes[HUB]
        for number, leaf in self._processes.items():
            if number == HUB or self._linked.get(number) == (hub, leaf):
                continue
            name = link_name(number)
            there = await leaf.command(Place(name, 0))
            here = await hub.command(Place(name, int(there["local"])))
            await leaf.command(Place(name, int(here["local"])))
            self._linked[number] = (hub, leaf)

    async def _wire(self) -> None:
        home = {str(leg): seat.room for leg, seat in self._seats.items()}
        cascade = plan(self._edges.speech, home)
        for number, process in self._processes.items():
            pairs = tuple(sorted(cascade.wires.get(number, frozenset())))
            music = tuple(sorted(leg for leg in self._edges.music if home.get(leg) == number))
            wire = Wire(pairs, music)
            if self._wired.get(process) != wire:
                await process.command(wire)
                self._wired[process] = wire
        if cascade.missing - self._missing:
            log.error("event=room_edges_missing room=%s pairs=%d", self.name, len(cascade.missing))
        self._missing = cascade.missing


class RoomPool:
    """Warm room processes and the conferences made of them. `await start()`, then `acquire`, `close`.

    size_warm:   processes that wait ready (about 13 MB each)
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
        self._count = 0
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

    async def acquire(self, name: str, on_moved: OnMoved) -> Room:
        """A conference called `name` in logs. `on_moved` is called whenever local ports changed, because a
        process died and was replaced."""
        if self._closed:
            raise MediaUnavailable("the room pool is closed")
        room = Room(self, name, on_moved)
        self._rooms.add(room)
        try:
            await room.set_edges(Edges())
        except BaseException:
            await room.close()
            raise
        return room

    async def close(self) -> None:
        """End all conferences and processes; when it returns no process is left. Never raises."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(room.close() for room in list(self._rooms)))
        warm, self._warm = self._warm, []
        await asyncio.gather(*(process.close() for process in warm))

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
