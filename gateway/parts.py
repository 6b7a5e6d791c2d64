"""The rooms as parts of the gateway's life: what to call at start and stop, and how to ask how they are."""

from __future__ import annotations

from pathlib import Path

from gateway.app import Health
from gateway.calls.restore import Restorer
from gateway.calls.snapshots import SnapshotStore
from gateway.cdr.journal import Journal
from gateway.cdr.recorder import Recorder
from media.engine import Engine
from media.pool import RoomPool

_MOMENT = 0.3
"""Seconds that the sinks have before a restart."""


class JournalPart:
    name = "journal"

    def __init__(self, journal: Journal, directory: Path) -> None:
        self._journal, self._directory = journal, directory

    async def start(self) -> None:
        await self._journal.open(self._directory)

    async def stop(self) -> None:
        await self._journal.close()

    def health(self) -> Health:
        if not self._journal.healthy:
            return Health(False, self._journal.fault)
        if not self._journal.can_accept:
            return Health(False, "too little free disk space for new calls")
        return Health(True)


class RecorderPart:
    """A sink that is down delays nobody and loses nothing, so it does not make the gateway unwell."""

    name = "recorder"

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def start(self) -> None:
        await self._recorder.start()

    async def stop(self) -> None:
        await self._recorder.stop()

    async def detach(self) -> None:
        """What the sinks do not take at once is on the disk, for the next gateway."""
        await self._recorder.stop(_MOMENT)

    def health(self) -> Health:
        if self._recorder.fault:
            return Health(False, self._recorder.fault)
        down = [f"{sink.name}: {sink.fault}" for sink in self._recorder.sinks if sink.fault]
        return Health(True, "; ".join(down))


class EnginePart:
    name = "media"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(self) -> None:
        await self._engine.start()

    async def stop(self) -> None:
        await self._engine.stop()

    async def detach(self) -> None:
        """rtpengine goes on."""
        await self._engine.detach()

    def health(self) -> Health:
        return Health(self._engine.up, "" if self._engine.up else "rtpengine does not answer")


class RecoveryPart:
    """Goes on with the calls of the last gateway, ends those it cannot; keeps ours for the next one."""

    name = "recovery"

    def __init__(self, restorer: Restorer, store: SnapshotStore) -> None:
        self._restorer, self._store = restorer, store

    async def start(self) -> None:
        await self._restorer.restore()

    async def stop(self) -> None:
        await self._store.close()

    def health(self) -> Health:
        return Health(True)


class RoomsPart:
    """Conference rooms; two-party calls need none, so their lack does not make the gateway unwell."""

    name = "rooms"

    def __init__(self, pool: RoomPool) -> None:
        self._pool = pool

    async def start(self) -> None:
        await self._pool.start()

    async def stop(self) -> None:
        await self._pool.close()

    async def detach(self) -> None:
        """Conferences go on mixing."""
        await self._pool.detach()

    def health(self) -> Health:
        return Health(True, "" if self._pool.warm else "no room process is ready")
