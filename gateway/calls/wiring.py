"""From edges to sound: the plan is pure, `Wiring` makes the patch bay and the room agree with it.

Two parties who hear each other are bridged in rtpengine; a party who only hears music is parked and played
to; anything else (three and more, one-way speech, speech over music) needs a mixer and is put in a room.
A call with three or more answered parties stays in its room through holds, so that a hold moves no sound.
One whose stream is on hold by its own description keeps its seat there and gets nothing: rtpengine would
forward the room's silence and tones into an inactive stream (facts/media-prototype.md 3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.calls.audibility import Edges
from gateway.calls.context import CallContext
from gateway.calls.leg import Leg
from gateway.errors import MediaUnavailable
from gateway.model import LegId
from media.patchbay import together
from media.pool import OnMoved, Room

MIXER_TURN = 0.03
"""Seconds in which a mixer has surely made the connections it was told: it does that at the end of its 20 ms
turn, and a leg that is moved in before it misses a turn (measured: 20 ms of the gap)."""
ROOM_FROM = 3
"""Answered parties from which a call is a conference (design: Conference)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the inside halves are connected to; the five sets are disjoint and cover the legs.

    bridged: pairs that hear each other in rtpengine
    room:    legs that are mixed, with `edges` for the room
    seated:  parked legs with a seat in the room to come back to
    music:   parked legs that are played the hold music
    parked:  legs that hear and say nothing
    near:    leg -> the leg whose room it should share when a conference needs several
    """

    bridged: frozenset[tuple[LegId, LegId]] = frozenset()
    room: frozenset[LegId] = frozenset()
    seated: frozenset[LegId] = frozenset()
    music: frozenset[LegId] = frozenset()
    parked: frozenset[LegId] = frozenset()
    edges: Edges = field(default_factory=Edges)
    near: Mapping[LegId, LegId] = field(default_factory=dict)

    @property
    def seats(self) -> frozenset[LegId]:
        """Everybody with a place in the room."""
        return self.room | self.seated


def plan(
    legs: Collection[LegId],
    edges: Edges,
    *,
    ringing: Collection[LegId] = (),
    mixed: bool = False,
    inactive: Collection[LegId] = (),
    near: Mapping[LegId, LegId] | None = None,
) -> Plan:
    """Choose the cheapest connection that gives exactly `edges`.

    ringing:  legs in early media; towards them speech is allowed though no edge asks for it, because early
              media is a two-way path in SIP and the bridge is cheaper than a room.
    mixed:    take a room in any case, because tones are to be heard over speech
    inactive: legs whose party has put its stream on hold
    """
    idle = frozenset(leg for leg in legs if leg in inactive and not _touched(leg, edges))
    in_room = Plan(room=frozenset(legs) - idle, seated=idle, edges=edges, near=near or {})
    answered = [leg for leg in legs if leg not in ringing]
    if mixed or len(answered) >= ROOM_FROM:
        return in_room
    pairs: set[tuple[LegId, LegId]] = set()
    for speaker, listener in edges.speech:
        mutual = (listener, speaker) in edges.speech or speaker in ringing
        lonely = all(
            {speaker, listener} == set(edge) or not {speaker, listener} & set(edge) for edge in edges.speech
        )
        if not (mutual and lonely) or edges.music & {speaker, listener}:
            return in_room
        first, second = sorted((speaker, listener))
        pairs.add((first, second))
    talking = {leg for pair in pairs for leg in pair}
    music = frozenset(leg for leg in legs if leg in edges.music)
    return Plan(
        bridged=frozenset(pairs),
        music=music,
        parked=frozenset(legs) - music - talking,
        edges=edges,
    )


def _touched(leg: LegId, edges: Edges) -> bool:
    return leg in edges.music or any(leg in edge for edge in edges.speech)


class Sound(StrEnum):
    """What a leg's inside half is connected to."""

    PARTY = "party"
    ROOM = "room"
    MUSIC = "music"
    RINGBACK = "ringback"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Connection:
    """`other` is the party a leg is bridged to, None for everything else."""

    sound: Sound
    other: LegId | None = None


class Wiring:
    """One call's sound: remembers what each leg is connected to and changes only what the plan changes.

    moved: told "bridge" or the room's name, with the cause, when the call's sound moves between the two
    """

    def __init__(self, context: CallContext, name: str, moved: Callable[[str, str], Awaitable[None]]) -> None:
        self._name = name
        self._bay = context.bay
        self._sounds = context.sounds
        self._rooms = context.rooms
        self._moved = moved
        self._room: Room | None = None
        self._on_room_moved: OnMoved | None = None
        self._now: dict[LegId, Connection] = {}

    @property
    def in_room(self) -> bool:
        return self._room is not None

    @property
    def room(self) -> Room | None:
        return self._room

    def adopt(self, room: Room) -> None:
        """Go on with a room that has run on over a restart."""
        self._room = room

    async def apply(
        self,
        wanted: Plan,
        legs: Mapping[LegId, Leg],
        *,
        ringback: Collection[LegId] = (),
        on_room_moved: OnMoved,
    ) -> None:
        """Connect every leg as planned; `ringback` legs hear ringing instead of what the plan says.

        MediaError: rtpengine or the rooms could not do it; what was done stays, the next `apply` goes on.
        """
        self._on_room_moved = on_room_moved
        for leg in [leg for leg in self._now if leg not in legs]:
            del self._now[leg]
        if wanted.seats:
            await self._enter_room(wanted, legs)
        for first, second in wanted.bridged:
            if first not in ringback and second not in ringback:
                await self._bridge(legs[first], legs[second])
        for leg in (*ringback, *wanted.music, *wanted.parked, *wanted.seated):
            sound = (
                Sound.RINGBACK if leg in ringback else Sound.MUSIC if leg in wanted.music else Sound.NOTHING
            )
            await self._isolate(legs[leg], Sound.NOTHING if legs[leg].held else sound)
        await self._leave_room(wanted)

    def renew(self, leg: LegId) -> None:
        """The leg's codec changed: connect it anew at the next `apply`."""
        self._now.pop(leg, None)

    async def repatch(self, room: Room, ports: Mapping[LegId, int], legs: Mapping[LegId, Leg]) -> bool:
        """The mixer of `room` moved these legs (its process was replaced): follow it.

        False, and nothing done, when that is not our room any more. MediaError: the next `apply` moves those
        whom rtpengine has not moved.
        """
        if room is not self._room:
            return False
        followers = [leg for leg in ports if self._now.get(leg) == Connection(Sound.ROOM)]
        for leg in followers:
            del self._now[leg]
        await together(
            *(
                self._into_room(legs[leg], ports[leg])
                for leg in followers
                if leg in legs and legs[leg].patchable
            )
        )
        return True

    async def announce(self, legs: Collection[LegId], hz: int, ms: int) -> None:
        """A tone over what these legs hear; nothing for those who are not in a room."""
        if self._room is not None:
            await self._room.announce(legs, hz, ms)

    async def close(self) -> None:
        """Give the room back."""
        room, self._room = self._room, None
        self._now.clear()
        if room is not None:
            await room.close()

    async def _bridge(self, first: Leg, second: Leg) -> None:
        wanted = {first.id: Connection(Sound.PARTY, second.id), second.id: Connection(Sound.PARTY, first.id)}
        if all(self._now.get(leg) == connection for leg, connection in wanted.items()):
            return
        self._now.pop(first.id, None)
        self._now.pop(second.id, None)
        await self._bay.bridge(first.anchor, second.anchor)
        self._now.update(wanted)

    async def _isolate(self, leg: Leg, sound: Sound) -> None:
        if self._now.get(leg.id) == Connection(sound):
            return
        self._now.pop(leg.id, None)
        await leg.anchor.park()
        if sound is not Sound.NOTHING:
            file = self._sounds.hold_music if sound is Sound.MUSIC else self._sounds.ringback
            await leg.anchor.play(file)
        self._now[leg.id] = Connection(sound)

    async def _enter_room(self, wanted: Plan, legs: Mapping[LegId, Leg]) -> None:
        if self._room is None:
            if self._rooms is None:
                raise MediaUnavailable("no conference rooms on this gateway")
            assert self._on_room_moved is not None
            self._room = await self._rooms.acquire(self._name, self._on_room_moved)
            await self._moved(self._room.name, "conference")
        room = self._room
        newcomers: list[LegId] = []
        for leg in sorted(wanted.seats, key=lambda leg: (leg in wanted.near, leg)):
            if self._now.get(leg) != Connection(Sound.ROOM) and (leg in wanted.room or leg not in room.legs):
                anchor = legs[leg].anchor
                near = wanted.near.get(leg)
                await room.add(leg, anchor.inside_port, str(anchor.codec), near=near)
                newcomers.append(leg)
        newcomers = [leg for leg in newcomers if leg in wanted.room]
        await room.set_edges(wanted.edges, near=wanted.near)
        if newcomers:
            await asyncio.sleep(MIXER_TURN)
        for leg in newcomers:
            self._now.pop(leg, None)
        # between the first and the last of them nobody hears anybody
        await together(*(self._into_room(legs[leg], room.port(leg)) for leg in newcomers))

    async def _into_room(self, leg: Leg, port: int) -> None:
        await leg.anchor.patch(port)
        self._now[leg.id] = Connection(Sound.ROOM)

    async def _leave_room(self, wanted: Plan) -> None:
        """Those who left free their seats; the last two to talk are bridged already."""
        room = self._room
        if room is None:
            return
        if wanted.seats:
            for leg in room.legs - wanted.seats:
                await room.remove(leg)
            return
        self._room = None
        await room.close()
        await self._moved("bridge", "two_parties")
