"""What the parties of a call hear: the one place that makes rtpengine and the room agree with the rules."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from gateway.calls.audibility import Edges, Hold, Participant, attending, audibility
from gateway.calls.context import CallContext
from gateway.calls.leg import Leg, LegState
from gateway.calls.signals import Command
from gateway.calls.wiring import Wiring, plan
from gateway.clock import TimerHandle
from gateway.errors import MediaError, MediaUnavailable
from gateway.model import LegId
from media.pool import Room

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")

RINGBACK = (425, 1000)
"""Hertz and milliseconds of the tone that tells a conference that somebody is being rung (as the European
ringback, ITU-T E.180 supplement 2), again every RINGBACK_EVERY seconds."""
RINGBACK_EVERY = 5.0
JOINED = (880, 200)
"""The announcement of a new participant, `[media] join_tone`."""


class CallSound:
    """One call's sound. `rewire` after every change of members, holds, mutes, supervision or policy."""

    def __init__(self, context: CallContext, call: Call) -> None:
        self._context, self._call = context, call
        self._wiring = Wiring(context, call.id, call.records.moved)
        self._announced: set[LegId] = set()
        self._cadence: TimerHandle | None = None

    @property
    def in_room(self) -> bool:
        return self._wiring.in_room

    @property
    def room(self) -> Room | None:
        """The call's conference room, if it has one."""
        return self._wiring.room

    async def rewire(self) -> None:
        """MediaError when rtpengine or the rooms cannot do it; the next one goes on where this stopped."""
        call = self._call
        parties, ringing, edges = self._wanted()
        near = {leg: supervision.of for leg, supervision in call.supervisors.items() if leg in parties}
        await self._wiring.apply(
            plan(
                parties,
                edges,
                ringing=ringing,
                mixed=bool(self._announced),
                inactive={leg.id for leg in parties.values() if leg.held},
                near=near,
            ),
            parties,
            ringback=call.ringback & parties.keys(),
            on_room_moved=self._room_moved,
        )

    def would_mix(self, muted: Collection[LegId]) -> bool:
        """Whether the call needs a room if these are muted, now or when nobody holds it any more."""
        parties, ringing, _ = self._wanted()
        edges = audibility(self._participants(parties, ringing), muted=muted, music=self._call.music)
        return bool(plan(parties, edges, ringing=ringing).room)

    def hearers(self, leg: LegId) -> list[LegId]:
        """Who hears this party; mutes are for voices, not for keys."""
        parties, ringing, _ = self._wanted()
        edges = audibility(self._participants(parties, ringing), self._holds(), music=self._call.music)
        return sorted(listener for speaker, listener in edges.speech if speaker == leg)

    def _wanted(self) -> tuple[dict[LegId, Leg], set[LegId], Edges]:
        """Who takes part, who of them is being rung, and who hears whom."""
        call = self._call
        parties = {leg.id: leg for leg in call.legs.values() if self._takes_part(leg)}
        ringing = {leg for leg in parties if leg not in call.joined and leg in call.dialling}
        edges = audibility(
            self._participants(parties, ringing), self._holds(), muted=call.muted, music=call.music
        )
        return parties, ringing, edges

    def _holds(self) -> set[Hold]:
        """Whoever is away in a consultation holds the call, whatever became of his own hold: his leg cannot
        be connected here.
        """
        return self._call.holds | {Hold(leg) for leg in self._call.lent}

    async def adopt(self, snapshot: Mapping[str, Any]) -> None:
        """After a restart: the room that has mixed this call meanwhile. MediaError: it is not to be had."""
        if self._context.rooms is None:
            raise MediaUnavailable("no conference rooms on this gateway")
        _, _, edges = self._wanted()
        self._wiring.adopt(await self._context.rooms.adopt(snapshot, edges, self._room_moved))

    def freeze(self) -> None:
        """The gateway goes, the sound stays."""
        if self._cadence is not None:
            self._cadence.cancel()

    def _participants(self, parties: Mapping[LegId, Leg], ringing: set[LegId]) -> list[Participant]:
        """Those present, and those who are away in a consultation: their hold counts here."""
        call = self._call
        present = [*parties.values(), *(loan.leg for loan in call.lent.values())]
        return [
            Participant(
                leg.id,
                leg.identity.party,
                host=leg.host,
                ringing=leg.id in ringing,
                supervision=call.supervisors.get(leg.id),
            )
            for leg in present
            if leg.id not in call.away
        ]

    def _takes_part(self, leg: Leg) -> bool:
        call = self._call
        return leg.patchable and (leg.id in call.joined or (leg.early and leg.state is not LegState.UP))

    def renew(self, leg: Leg) -> None:
        """The leg's codec changed: connect it anew at the next `rewire`."""
        self._wiring.renew(leg.id)

    async def join_tone(self) -> None:
        """Tell everybody that somebody came, where the configuration wants that."""
        if self._context.config.media.join_tone:
            await self._announce(*JOINED)

    async def _announce(self, hz: int, ms: int) -> None:
        """To those who take part: one who holds or is held hears nothing but what `audibility` gives him."""
        parties, ringing, _ = self._wanted()
        await self._wiring.announce(attending(self._participants(parties, ringing), self._holds()), hz, ms)

    # ---- the progress of a dialled party, for those present ----

    async def announce_ringing(self, leg: Leg) -> None:
        """Everybody present hears ringing, over what they say, until `ringing_over`."""
        self._announced.add(leg.id)
        await self.rewire()
        if self._cadence is None:
            await self._ring_once()

    async def announce_early_media(self, leg: Leg) -> None:
        """Everybody present hears the dialled party's own ringing or announcement."""
        self._announced.add(leg.id)
        await self.rewire()

    def ringing_over(self, leg: Leg) -> None:
        """It was answered, or not: a `rewire` follows."""
        self._announced.discard(leg.id)
        if not self._announced and self._cadence is not None:
            self._cadence.cancel()
            self._cadence = None

    async def _ring_once(self) -> None:
        if not self._announced:
            return
        await self._announce(*RINGBACK)
        self._cadence = self._context.clock.call_later(
            RINGBACK_EVERY, lambda: self._call.post(Command(self._ring_once))
        )

    # ---- rooms ----

    def _room_moved(self, room: Room, ports: Mapping[LegId, int], cause: str) -> None:
        """RoomPool's news: the process of this call's room died, the legs have ports in another one."""

        async def follow() -> None:
            try:
                if not await self._wiring.repatch(room, ports, self._call.legs):
                    return
            except MediaError as error:
                log.error("room_not_followed call=%s cause=%s", self._call.id, error.text)
                await self._call.settle()
            await self._call.records.moved(room.name, cause)

        self._call.post(Command(follow))

    async def close(self) -> None:
        """The end of the call: give the room back."""
        if self._cadence is not None:
            self._cadence.cancel()
        self._announced.clear()
        await self._wiring.close()
