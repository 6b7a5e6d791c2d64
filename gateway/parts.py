"""The rooms as parts of the gateway's life: what to call at start and stop, and how to ask how they are."""

from __future__ import annotations

import logging
from pathlib import Path

from gateway.app import Health
from gateway.cdr.call_state import closing_events
from gateway.cdr.journal import Journal
from gateway.cdr.recorder import Recorder
from gateway.clock import LoopClock
from media.engine import Engine
from media.patchbay import PatchBay
from media.pool import RoomPool

log = logging.getLogger("tandem.app")


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

    def health(self) -> Health:
        return Health(self._engine.up, "" if self._engine.up else "rtpengine does not answer")


class RecoveryPart:
    """Ends what a crash cut off: in the journal, so that rows are made, and in rtpengine."""

    name = "recovery"

    def __init__(self, recorder: Recorder, journal: Journal, bay: PatchBay) -> None:
        self._recorder, self._journal, self._bay = recorder, journal, bay

    async def start(self) -> None:
        now = int(LoopClock().wall().timestamp() * 1000)
        states = list(self._recorder.states.values())
        for state in states:
            log.warning("call_cut_off call=%s cause=gateway_restart", state.call)
            await self._journal.append(*closing_events(state, now))
        await self._bay.restored()

    async def stop(self) -> None:
        """Nothing of it lasts."""

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

    def health(self) -> Health:
        return Health(True, "" if self._pool.warm else "no room process is ready")
