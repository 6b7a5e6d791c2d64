"""`Room`: one conference of any size in one or several room processes.

It is kept as a wish (who sits where, with which remote port, who hears whom) and `_reconcile` makes the
processes agree with it. Everything that happens, a party more or less, other edges, a process that died,
is a change of the wish or of the processes and then the same `_reconcile`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.calls.audibility import Edges
from gateway.errors import MediaError, MediaUnavailable
from gateway.model import LegId
from media.room_cascade import HUB, Pair, link_name, plan
from media.room_process import RoomProcess
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


class Supply(Protocol):
    """What a conference needs of the pool."""

    leaves: int
    """How many rooms it may have besides the hub."""

    def seats(self, room: int) -> int:
        """How many parties room number `room` may have."""
        ...

    async def take(self, room: Room) -> RoomProcess:
        """A process that is ready and reports its end to `room`; MediaUnavailable when there is none."""
        ...

    def forget(self, room: Room) -> None: ...


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

    def __init__(self, pool: Supply, name: str, on_moved: OnMoved) -> None:
        self.name = name
        self._pool, self._on_moved = pool, on_moved
        self._seats: dict[LegId, _Seat] = {}
        self._edges = Edges()
        self._near: Mapping[LegId, LegId] = {}
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

    async def set_edges(self, edges: Edges, *, near: Mapping[LegId, LegId] | None = None) -> None:
        """Make exactly these edges true; returns when the mixers have been told.

        near: legs and whom they are to share a room with where the edges ask for it (a whisper); somebody
              may have to change rooms for that, and `on_moved` says who
        """
        async with self._turn:
            self._ensure_open()
            self._edges, self._near = edges, near or {}
            self._reseat()
            await self._reconcile()

    def port(self, leg: LegId) -> int:
        """Where a seated leg is now; see `add`."""
        return self._seats[leg].local

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
        await self._stop_repairing()
        async with self._turn:
            processes, self._processes = self.processes, {}
            await asyncio.gather(*(process.close() for process in processes))
            self._seats.clear()
        self._pool.forget(self)

    def snapshot(self) -> dict[str, Any]:
        """What `RoomPool.adopt` needs to take the conference over, ready for JSON."""
        return {
            "name": self.name,
            "seats": [
                {"leg": s.leg, "room": s.room, "remote": s.remote, "codec": s.codec, "local": s.local}
                for s in self._seats.values()
            ],
            "processes": {str(number): process.snapshot() for number, process in self._processes.items()},
        }

    async def detach(self) -> None:
        """Let go of the processes and leave them mixing; the room is closed to us."""
        self._closed = True
        await self._stop_repairing()
        async with self._turn:
            processes, self._processes = self.processes, {}
            for process in processes:
                await process.detach()
        self._pool.forget(self)

    async def take_over(self, snapshot: Mapping[str, Any], edges: Edges) -> None:
        """Become the conference of `snapshot`: what is gone of it is replaced, and `on_moved` says so."""
        async with self._turn:
            self._edges = edges
            for text, record in snapshot["processes"].items():
                with contextlib.suppress(MediaUnavailable):
                    process = await RoomProcess.adopt(record)
                    process.on_end = self.process_ended
                    self._processes[int(text)] = process
            for record in snapshot["seats"]:
                leg, remote, codec = LegId(record["leg"]), int(record["remote"]), str(record["codec"])
                seat = _Seat(leg, int(record["room"]), remote, codec, int(record["local"]))
                if seat.room in self._processes:
                    seat.process, seat.placed = self._processes[seat.room], (remote, codec)
                self._seats[leg] = seat
            hub = self._processes.get(HUB)
            if hub is not None:
                self._linked = {n: (hub, p) for n, p in self._processes.items() if n != HUB}
            await self._reconcile()

    async def _stop_repairing(self) -> None:
        if self._repair is not None:
            self._repair.cancel()
            await asyncio.gather(self._repair, return_exceptions=True)

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

    def _reseat(self) -> None:
        """Bring those together whose speech no link can carry; one who does not mind makes room for them."""
        for leg, other in self._near.items():
            if not {leg, other} <= self._seats.keys() or (leg, other) not in self._edges.speech:
                continue
            mine, theirs = self._seats[leg], self._seats[other]
            home = {str(seat.leg): seat.room for seat in self._seats.values()}
            if mine.room == theirs.room or not plan(self._edges.speech, home).missing:
                continue
            if not self._join(mine, theirs.room):
                self._join(theirs, mine.room)

    def _join(self, seat: _Seat, room: int) -> bool:
        """Seat it in that room, in exchange for one who is bound to nobody where the room is full."""
        there = [other for other in self._seats.values() if other.room == room]
        if len(there) >= self._pool.seats(room):
            bound = {*self._near, *self._near.values()}
            free = [other for other in there if other.leg not in bound]
            if not free:
                return False
            self._move(free[-1], seat.room)
        self._move(seat, room)
        return True

    def _move(self, seat: _Seat, room: int) -> None:
        if seat.process is not None:
            self._leavers.append((seat.process, seat.leg))
        seat.room = room

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
            cause = ",".join(causes) or "reseated"
            log.log(
                logging.WARNING if causes else logging.INFO,
                "event=legs_moved room=%s legs=%d cause=%s", self.name, len(moved), cause,
            )  # fmt: skip
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
