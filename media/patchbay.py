"""The patch bay: every external leg anchored once, and who is connected to whom inside."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.errors import MediaRejected
from gateway.model import LegId
from gateway.sip.sdp import Codec, parse_description
from gateway.sip.sdp_policy import MediaPolicy, admit_offer
from media.anchor import Anchor as Anchor
from media.engine_leg import EngineOptions
from media.engine_sdp import Target, crossing
from media.rtpengine import NgClient
from media.webrtc_leg import BrowserAnchor

log = logging.getLogger("tandem.media")


_ALL = 1_000_000
_AT_ONCE = 8
"""Legs that are seen to at the same time when all of them need it."""
REKEY_AFTER = 600.0
"""Seconds: 30,000 packets of 20 ms, less than half of the sequence numbers there are."""


async def together(*changes: Awaitable[None]) -> None:
    """Change several anchors at the same time, so that none waits for the others in silence.

    Returns when all are done; the first error is raised then.
    """
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


@dataclass(frozen=True, slots=True)
class Restored:
    """What is left to do after a restart of rtpengine.

    lost:  legs that it does not know any more; nothing but ending them helps
    rekey: SRTP legs whose roll-over counter may have been above 0, which is not restored (facts
           media-prototype 10): their party may hear nothing until `rekey` gave it a new key
    """

    lost: tuple[Anchor, ...]
    rekey: tuple[Anchor, ...]


class PatchBay:
    """All anchors of one rtpengine.

    address: what every description of ours says in its c= line, exactly as configured; an engine that uses
             another one is refused, so that no other address can get out
    """

    def __init__(self, ng: NgClient, address: str, options: EngineOptions | None = None) -> None:
        self.ng = ng
        self.address = address
        self.options = options or EngineOptions()
        self.anchors: dict[LegId, Anchor] = {}
        self._bridges: dict[LegId, Anchor] = {}

    async def answer_side(self, leg: LegId, offer: bytes, media: MediaPolicy) -> Anchor:
        """Anchor a party that offers; `answer` follows. SdpError before anything is reserved."""
        remote = parse_description(offer)
        selection = admit_offer(remote, media)
        anchor = Anchor(self, leg, media, srtp=selection.crypto is not None)
        self.anchors[leg] = anchor
        try:
            await anchor.start_from_offer(remote, selection)
        except BaseException:
            await anchor.close()
            raise
        return anchor

    async def offer_side(
        self, leg: LegId, media: MediaPolicy, codecs: Sequence[Codec], telephone_event: int | None
    ) -> tuple[Anchor, bytes]:
        """Anchor a party that we call: its anchor and our offer. `accept_answer` follows."""
        anchor = (
            BrowserAnchor(self, leg, media) if media.webrtc else Anchor(self, leg, media, srtp=media.srtp)
        )
        self.anchors[leg] = anchor
        try:
            offer = await anchor.start_with_offer(codecs, telephone_event)
        except BaseException:
            await anchor.close()
            raise
        return anchor, offer

    async def bridge(self, a: Anchor, b: Anchor) -> None:
        """Let two parties hear each other, also with different codecs (b's side is converted then).

        Also with different telephone-event numbers; that costs both sides a conversion (see Crossing).
        """
        if a.codec is None or b.codec is None:
            raise MediaRejected("a leg without an agreed codec cannot be bridged")
        self.forget_bridge(a)
        self.forget_bridge(b)
        self._bridges[a.leg], self._bridges[b.leg] = b, a
        await self._connect(a, b, after_music=False)

    async def _connect(self, a: Anchor, b: Anchor, *, after_music: bool) -> None:
        if a.codec is None or b.codec is None:
            raise MediaRejected("a leg without an agreed codec cannot be bridged")
        event, other = a.telephone_event, b.telephone_event
        if a.renumbers and other is not None:
            event = other
        elif b.renumbers and event is not None:
            other = event
        numbers = None if event is None or other is None or event == other else crossing(event, other)
        inside = event if event is not None else other
        await a.connect(Target(b.inside_port, a.codec, inside, numbers), after_music=after_music)
        await b.connect(Target(a.inside_port, a.codec, inside, numbers), after_music=after_music)

    async def silent(self, limit: float) -> list[Anchor]:
        """Legs from which nothing came for `limit` seconds though something should; 0.35 ms a leg.

        rtpengine tells nobody of it (facts media-prototype 9). Legs on hold are passed over (T19), and
        after a resume the time begins anew.
        """
        found: list[Anchor] = []
        for anchor in [anchor for anchor in self.anchors.values() if anchor.expects_media]:
            try:
                figures = await anchor.statistics()
            except MediaRejected:
                continue
            silence = min(figures.silence(time.time()), time.time() - anchor.described_at)
            if silence >= limit and anchor.expects_media:
                found.append(anchor)
        return found

    async def restored(
        self,
        *,
        rekey_after: float = REKEY_AFTER,
        on_lost: Callable[[Anchor], None] = lambda anchor: None,
        on_rekey: Callable[[Anchor], None] = lambda anchor: None,
    ) -> Restored:
        """rtpengine was away and is back (Engine.on_restarted): connect every leg, end what is not ours.

        rekey_after: age in seconds from which an SRTP leg may have used up its first 65,536 sequence numbers.
        on_lost, on_rekey: called for each leg of the result as soon as it is known. Whoever may be deaf is
        seen to first, the others hear already and get their source lock back.
        Raises MediaUnavailable when rtpengine is gone again; then it will be called again.
        """
        lost: list[Anchor] = []
        old: list[Anchor] = []
        young: list[Anchor] = []
        rekey: list[Anchor] = []
        now = time.time()

        def gone(anchor: Anchor, error: MediaRejected) -> None:
            if anchor.leg in self.anchors:
                log.error("leg_lost leg=%s cause=%s", anchor.leg, error.text)
                lost.append(anchor)
                on_lost(anchor)

        async def look(anchor: Anchor) -> None:
            try:
                created = await anchor.created()
            except MediaRejected as error:
                gone(anchor, error)
            else:
                (old if anchor.srtp and now - created >= rekey_after else young).append(anchor)

        async def connect(anchor: Anchor) -> None:
            try:
                await anchor.reconnect()
            except MediaRejected as error:
                gone(anchor, error)
                return
            if anchor in old:
                rekey.append(anchor)
                on_rekey(anchor)

        await _each(list(self.anchors.values()), look)
        await _each(old, connect)
        await _each(young, connect)
        strangers = await self.end_strangers()
        log.warning(
            "legs_reconnected legs=%d lost=%d rekey=%d ended=%d",
            len(self.anchors),
            len(lost),
            len(rekey),
            strangers,
        )
        return Restored(tuple(lost), tuple(rekey))

    async def end_strangers(self) -> int:
        """Legs that were closed while rtpengine was away; an engine we only use may serve others too."""
        if self.options.interfaces is None:
            return 0
        calls = (await self.ng.command("list", limit=_ALL)).get("calls", [])
        strangers = [call for call in calls if call not in self.anchors]
        for call in strangers:
            await self.ng.command("delete", call_id=call, delete_delay=0)
        return len(strangers)

    async def renew_bridge(self, anchor: Anchor) -> None:
        """The party agreed on another codec or event number: make both inside halves match again."""
        other = self._bridges.get(anchor.leg)
        if other is not None:
            await self._connect(anchor, other, after_music=True)

    def forget_bridge(self, anchor: Anchor) -> None:
        """It is connected otherwise now; its former partner stays pointed at it until told otherwise."""
        other = self._bridges.pop(anchor.leg, None)
        if other is not None:
            self._bridges.pop(other.leg, None)

    def forget(self, anchor: Anchor) -> None:
        """It is closed."""
        self.forget_bridge(anchor)
        self.anchors.pop(anchor.leg, None)


async def _each(anchors: Sequence[Anchor], work: Callable[[Anchor], Awaitable[None]]) -> None:
    """Some at a time, in their order; what one of them raises ends it for all."""
    waiting = deque(anchors)

    async def turn() -> None:
        while waiting:
            await work(waiting.popleft())

    tasks = [asyncio.create_task(turn(), name="legs") for _ in range(min(_AT_ONCE, len(anchors)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
