"""From edges to sound: the plan is pure, `Wiring` makes the patch bay and the room agree with it.

Two parties who hear each other are bridged in rtpengine; a party who only hears music is parked and played
to; anything else (three and more, one-way speech, speech over music) needs a mixer and is put in a room.
A call with three or more answered parties stays in its room through holds, so that a hold moves no sound.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.calls.audibility import Edges
from gateway.calls.context import CallContext
from gateway.calls.leg import Leg
from gateway.errors import MediaUnavailable
from gateway.model import LegId
from media.pool import OnMoved, Room

ROOM_FROM = 3
"""Answered parties from which a call is a conference (design: Conference)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the inside halves are connected to; the four sets are disjoint and cover the legs.

    bridged: pairs that hear each other in rtpengine
    room:    legs that are mixed, with `edges` for the room
    music:   parked legs that are played the hold music
    parked:  legs that hear and say nothing
    """

    bridged: frozenset[tuple[LegId, LegId]] = frozenset()
    room: frozenset[LegId] = frozenset()
    music: frozenset[LegId] = frozenset()
    parked: frozenset[LegId] = frozenset()
    edges: Edges = field(default_factory=Edges)


def plan(legs: Collection[LegId], edges: Edges, *, ringing: Collection[LegId] = ()) -> Plan:
    """Choose the cheapest connection that gives exactly `edges`.

    ringing: legs in early media; towards them speech is allowed though no edge asks for it, because early
             media is a two-way path in SIP and the bridge is cheaper than a room.
    """
    answered = [leg for leg in legs if leg not in ringing]
    if len(answered) >= ROOM_FROM:
        return Plan(room=frozenset(legs), edges=edges)
    pairs: set[tuple[LegId, LegId]] = set()
    for speaker, listener in edges.speech:
        mutual = (listener, speaker) in edges.speech or speaker in ringing
        lonely = all(
            {speaker, listener} == set(edge) or not {speaker, listener} & set(edge) for edge in edges.speech
        )
        if not (mutual and lonely) or edges.music & {speaker, listener}:
            return Plan(room=frozenset(legs), edges=edges)
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
        if wanted.room:
            await self._enter_room(wanted, legs)
        for first, second in wanted.bridged:
            if first not in ringback and second not in ringback:
                await self._bridge(legs[first], legs[second])
        for leg in (*ringback, *wanted.music, *wanted.parked):
            sound = (
                Sound.RINGBACK if leg in ringback else Sound.MUSIC if leg in wanted.music else Sound.NOTHING
            )
            await self._isolate(legs[leg], sound)
        await self._leave_room(wanted)

    def renew(self, leg: LegId) -> None:
        """The leg's codec changed: connect it anew at the next `apply`."""
        self._now.pop(leg, None)

    async def repatch(self, ports: Mapping[LegId, int], legs: Mapping[LegId, Leg]) -> None:
        """The room's mixer moved these legs (its process was replaced): follow it."""
        for leg, port in ports.items():
            if leg in legs and legs[leg].patchable:
                await legs[leg].anchor.patch(port)
                self._now[leg] = Connection(Sound.ROOM)

    async def close(self) -> None:
        """Give the room back."""
        if self._room is not None:
            room, self._room = self._room, None
            await room.close()
        self._now.clear()

    async def _bridge(self, first: Leg, second: Leg) -> None:
        wanted = {first.id: Connection(Sound.PARTY, second.id), second.id: Connection(Sound.PARTY, first.id)}
        if all(self._now.get(leg) == connection for leg, connection in wanted.items()):
            return
        for leg in (first, second):
            await self._silence(leg)
        await self._bay.bridge(first.anchor, second.anchor)
        self._now.update(wanted)

    async def _isolate(self, leg: Leg, sound: Sound) -> None:
        if self._now.get(leg.id) == Connection(sound):
            return
        await self._silence(leg)
        await leg.anchor.park()
        if sound is not Sound.NOTHING:
            file = self._sounds.hold_music if sound is Sound.MUSIC else self._sounds.ringback
            await leg.anchor.play(file)
        self._now[leg.id] = Connection(sound)

    async def _silence(self, leg: Leg) -> None:
        """Music and patched sound are both sent (facts/media-prototype.md 4): stop one before the other."""
        now = self._now.pop(leg.id, None)
        if now is not None and now.sound in (Sound.MUSIC, Sound.RINGBACK):
            await leg.anchor.stop_playing()

    async def _enter_room(self, wanted: Plan, legs: Mapping[LegId, Leg]) -> None:
        if self._room is None:
            if self._rooms is None:
                raise MediaUnavailable("no conference rooms on this gateway")
            assert self._on_room_moved is not None
            self._room = await self._rooms.acquire(self._name, self._on_room_moved)
            await self._moved(self._room.name, "conference")
        room = self._room
        ports: dict[LegId, int] = {}
        for leg in sorted(wanted.room):
            if self._now.get(leg) != Connection(Sound.ROOM):
                anchor = legs[leg].anchor
                ports[leg] = await room.add(leg, anchor.inside_port, str(anchor.codec))
        await room.set_edges(wanted.edges)
        for leg, port in ports.items():
            await self._silence(legs[leg])
            await legs[leg].anchor.patch(port)
            self._now[leg] = Connection(Sound.ROOM)

    async def _leave_room(self, wanted: Plan) -> None:
        if self._room is None:
            return
        for leg in self._room.legs - wanted.room:
            await self._room.remove(leg)
        if not wanted.room:
            await self.close_room()

    async def close_room(self) -> None:
        if self._room is not None:
            room, self._room = self._room, None
            await room.close()
            await self._moved("bridge", "two_parties")
