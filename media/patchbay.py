"""The patch bay: every external leg anchored once, and who is connected to whom inside."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gateway.model import LegId
from gateway.sip.sdp import Codec, parse_description
from gateway.sip.sdp_policy import MediaPolicy, admit_offer
from media.anchor import Anchor as Anchor
from media.engine_leg import EngineOptions
from media.rtpengine import NgClient

log = logging.getLogger("tandem.media")


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
        await anchor.start_from_offer(remote, selection)
        self.anchors[leg] = anchor
        return anchor

    async def offer_side(
        self, leg: LegId, media: MediaPolicy, codecs: Sequence[Codec], telephone_event: int | None
    ) -> tuple[Anchor, bytes]:
        """Anchor a party that we call: its anchor and our offer. `accept_answer` follows."""
        anchor = Anchor(self, leg, media, srtp=media.srtp)
        offer = await anchor.start_with_offer(codecs, telephone_event)
        self.anchors[leg] = anchor
        return anchor, offer

    async def bridge(self, a: Anchor, b: Anchor) -> None:
        """Let two parties hear each other. With different codecs b's side is converted."""
        self.forget_bridge(a)
        self.forget_bridge(b)
        self._bridges[a.leg], self._bridges[b.leg] = b, a
        codec, event = a.codec, a.telephone_event
        await a.connect(b.inside_port, codec, event)
        await b.connect(a.inside_port, codec, event)

    async def renew_bridge(self, anchor: Anchor) -> None:
        """The party agreed on another codec or event number: make both inside halves match again."""
        other = self._bridges.get(anchor.leg)
        if other is not None:
            await self.bridge(anchor, other)

    def forget_bridge(self, anchor: Anchor) -> None:
        """It is connected otherwise now; its former partner stays pointed at it until told otherwise."""
        other = self._bridges.pop(anchor.leg, None)
        if other is not None:
            self._bridges.pop(other.leg, None)

    def forget(self, anchor: Anchor) -> None:
        """It is closed."""
        self.forget_bridge(anchor)
        self.anchors.pop(anchor.leg, None)
