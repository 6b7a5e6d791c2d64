"""A conference hall for tests: parties with tones around a `media.pool.Room`, and who hears whom."""

from __future__ import annotations

import asyncio
import contextlib
import wave
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path

from gateway.calls.audibility import (
    Edges,
    Hold,
    MusicPolicy,
    Participant,
    Supervision,
    SupervisorMode,
    audibility,
)
from gateway.model import LegId, PartyType
from media.pool import Room, RoomPool
from tests.peers import tone
from tests.peers.rtp import RtpPeer

MUSIC_HZ = 2750
TONES = [425, 575, 725, 875, 1025, 1175, 1325, 1475, 1625, 1775, 1925, 2075]
QUIET = -38.0


def write_music(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(tone.sine(MUSIC_HZ, 2.0).tobytes())
    return path


@contextlib.asynccontextmanager
async def open_hall(pool: RoomPool) -> AsyncIterator[Hall]:
    """Start the pool; end everything afterwards."""
    await pool.start()
    hall = Hall(pool)
    try:
        yield hall
    finally:
        await hall.close()
        await pool.close()


class Party:
    """A leg, its far end (standing for the inside half in rtpengine) and what edges say about it."""

    def __init__(self, index: int, peer: RtpPeer) -> None:
        self.leg = LegId(f"leg{index}")
        self.hz = TONES[index]
        self.peer = peer
        self.participant = Participant(self.leg, PartyType.EXTERNAL)


class Hall:
    """A conference with its parties; re-patches them when the room was replaced, as the gateway does."""

    def __init__(self, pool: RoomPool) -> None:
        self.pool = pool
        self.parties: list[Party] = []
        self.moves: list[tuple[Mapping[LegId, int], str]] = []
        self.moved = asyncio.Event()
        self.room: Room
        self._opened = False

    async def open(self, count: int) -> None:
        self.room = await self.pool.acquire("test", self.on_moved)
        self._opened = True
        for _ in range(count):
            await self.join()
        await self.room.set_edges(self.edges())

    async def join(self, *, codec: str = "PCMA", near: LegId | None = None) -> Party:
        index = len(self.parties)
        party = Party(index, await RtpPeer.open(tone=TONES[index], codec=codec, rtcp_mux=False))
        self.parties.append(party)
        port = await self.room.add(party.leg, party.peer.port, codec, near=near)
        party.peer.connect("127.0.0.1", port)
        return party

    async def leave(self, party: Party) -> None:
        await self.room.remove(party.leg)
        self.parties.remove(party)
        await party.peer.close()

    def on_moved(self, room: Room, ports: Mapping[LegId, int], cause: str) -> None:
        for party in self.parties:
            if party.leg in ports:
                party.peer.connect("127.0.0.1", ports[party.leg])
        self.moves.append((ports, cause))
        self.moved.set()

    def edges(
        self,
        holds: Collection[Hold] = (),
        muted: Collection[LegId] = (),
        policy: MusicPolicy = MusicPolicy.REMAINING,
    ) -> Edges:
        return audibility([p.participant for p in self.parties], holds, muted=muted, music=policy)

    async def whisper(self, coach: Party, agent: Party, *, near: bool = False) -> None:
        """From now on `coach` supervises `agent`, whispering; `near`: they are to share a room."""
        supervision = Supervision(SupervisorMode.WHISPER, agent.leg)
        coach.participant = Participant(coach.leg, PartyType.AGENT, supervision=supervision)
        await self.room.set_edges(self.edges(), near={coach.leg: agent.leg} if near else None)

    async def expect(self, edges: Edges, within: float = 4.0) -> None:
        """Everybody hears exactly this: each tone of an edge, the music, and nothing else."""
        deadline = asyncio.get_running_loop().time() + within
        while True:
            since = asyncio.get_running_loop().time()
            await asyncio.sleep(0.3)
            wrong = [text for party in self.parties for text in self._wrong(party, edges, since)]
            if not wrong:
                return
            assert asyncio.get_running_loop().time() < deadline, "; ".join(wrong)

    def _wrong(self, party: Party, edges: Edges, since: float) -> list[str]:
        pcm = party.peer.pcm(since)
        if len(pcm) < 8 * tone.PACKET:
            return [f"{party.leg} gets only {len(pcm)} samples"]
        names = {other.hz: str(other.leg) for other in self.parties} | {MUSIC_HZ: "music"}
        wanted = {other.hz for other in self.parties if (other.leg, party.leg) in edges.speech}
        wanted |= {MUSIC_HZ} if party.leg in edges.music else set()
        levels = {hz: tone.level(pcm, hz) for hz in names}
        missing = [names[hz] for hz in names if hz in wanted and levels[hz] < tone.HEARD]
        extra = [names[hz] for hz in names if hz not in wanted and levels[hz] > QUIET]
        return [f"{party.leg} misses {missing} overhears {extra}"] if missing or extra else []

    async def close(self) -> None:
        if self._opened:
            await self.room.close()
        for party in self.parties:
            await party.peer.close()
