"""A browser's media: DTLS-SRTP, ICE and Opus outside, and inside a leg like every other one.

The recipes are those of facts/media-prototype.md section 7, with us as the offerer. rtpengine converts
between Opus and what the inside half is connected to, and renumbers digits with it. A new connection of the
page (a reload, a lost network) is a new leg in rtpengine: the browser would know nothing of the old one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.errors import MediaRejected
from gateway.model import LegId
from gateway.sip.sdp import AudioDescription, Codec, Direction
from gateway.sip.sdp_policy import MediaPolicy, Selection
from media.anchor import Anchor
from media.engine_leg import EngineLeg, EngineOptions
from media.engine_sdp import LOOPBACK, OPUS, PARKED, Crossing, Outside, Target, description
from media.engine_sdp import read_outside as read_inside
from media.rtpengine import NgClient, Reply, Value
from media.webrtc_sdp import (
    EVENT_48,
    PROFILE,
    BrowserOutside,
    BrowserParty,
    inside_view,
    read_answer,
    read_outside,
)

if TYPE_CHECKING:
    from media.patchbay import PatchBay

log = logging.getLogger("tandem.media")

_FLAGS: Final = ("port-latching", "strict-source", "endpoint-learning-off", "generate-mid")
_INSIDE: Final = Codec.PCMA
_EVENT: Final = 101
_RESERVED: Final = tuple(range(96, 122))
"""Payload types that rtpengine may not give to Opus: some partner may use them for digits one day."""


class BrowserEngineLeg(EngineLeg):
    """The calls of the ng protocol for a browser's leg; `EngineLeg` where it needs nothing else."""

    def __init__(self, ng: NgClient, leg: LegId, options: EngineOptions) -> None:
        super().__init__(ng, leg, options, srtp=True, learn=False)
        self.browser: BrowserParty | None = None
        self.event = _EVENT

    async def begin(self, telephone_event: int) -> BrowserOutside:
        """Reserve ports, ICE credentials and certificate for an offer of ours."""
        self.event = telephone_event
        reply = await self._send(
            "offer",
            from_tag="int",
            sdp=_inside(Target(PARKED, _INSIDE, telephone_event)),
            **self._toward_browser(None, first=True),
        )
        return read_outside(str(reply["sdp"]), telephone_event)

    async def take(self, browser: BrowserParty) -> None:
        """The browser answered."""
        reply = await self._answer(browser)
        self.browser = browser
        self.inside_port = read_inside(reply).port
        self.established = True

    async def _point(self, target: Target | None) -> Outside:
        browser = self.browser
        if browser is None:
            raise MediaRejected("the browser has not answered yet")
        spoken = target or Target(PARKED, _INSIDE, self.event)
        reply = await self._send(
            "offer",
            from_tag="int",
            to_tag="ext",
            sdp=_inside(spoken),
            **self._toward_browser(spoken.codec, first=False),
        )
        await self._answer(browser)
        return read_inside(reply)

    async def _cross(self, target: Target, crossing: Crossing) -> Outside:
        raise MediaRejected("a browser's leg renumbers digits itself")

    async def rekey(self) -> Outside:
        raise MediaRejected("a browser's keys come from DTLS")

    async def _answer(self, browser: BrowserParty) -> Reply:
        reply = await self._ng.command(
            "answer",
            call_id=self._leg,
            from_tag="int",
            to_tag="ext",
            sdp=browser.text(),
            ICE="remove",
            replace=("origin", "session-connection"),
            flags=(*_FLAGS[:3], *self._more_flags),
        )
        if not reply.get("sdp"):
            raise MediaRejected("rtpengine answer: no description in the answer")
        return reply

    async def _send(self, name: str, **keys: Value | None) -> Reply:
        reply = await self._ng.command(
            name,
            call_id=self._leg,
            replace=("origin", "session-connection"),
            **keys,
        )
        if not reply.get("sdp"):
            raise MediaRejected(f"rtpengine {name}: no description in the answer")
        return reply

    def _toward_browser(self, inside: Codec | None, *, first: bool) -> dict[str, Value | None]:
        browser = self.browser
        codec: dict[str, Value] = {"transcode": [OPUS, EVENT_48]}
        if browser is not None and inside is not None:
            codec = {"mask": [str(inside), "telephone-event"]}
            codec["transcode"] = [OPUS, EVENT_48] if browser.opus else ["PCMA", "telephone-event/8000"]
            if not browser.opus and inside is Codec.PCMA:
                codec = {}
        return {
            "ICE": "force",
            "ICE_lite": "forward",
            "rtcp_mux": ["require"] if first else ["accept"],
            "transport_protocol": PROFILE,
            "SDES": ["off"],
            "direction": self._direction(first, outward=True),
            "codec": codec or None,
            "flags": (*_FLAGS, *self._more_flags),
        }

    async def delete(self) -> Reply:
        tag = "ext" if self.browser is not None else "int"
        return await self._ng.command("delete", call_id=self._leg, from_tag=tag, delete_delay=0)


def _inside(target: Target) -> str:
    reserved = [number for number in _RESERVED if number != target.telephone_event]
    lines = [f"a=rtpmap:{number} X-RESERVED-{number}/8000" for number in reserved]
    return description(
        LOOPBACK, target.port, "RTP/AVP", [target.codec], target.telephone_event, lines, reserved=reserved
    )


class BrowserAnchor(Anchor):
    """As `Anchor`, for a party that is a browser: we always offer, and a description never says "hold".

    away: the page has no connection at the moment, so that its silence means nothing
    """

    renumbers = True

    def __init__(self, bay: PatchBay, leg: LegId, policy: MediaPolicy) -> None:
        super().__init__(bay, leg, policy, srtp=True)
        self.away = False
        self._legs = BrowserEngineLeg(bay.ng, leg, bay.options)
        self._engine = self._legs
        self._ours: BrowserOutside | None = None
        self._offer_text = b""

    @classmethod
    def restored(
        cls, bay: PatchBay, leg: LegId, policy: MediaPolicy, browser: BrowserParty, event: int
    ) -> BrowserAnchor:
        """One whose browser answered the last gateway; its connection with rtpengine knows nothing of us."""
        anchor = cls(bay, leg, policy)
        anchor._legs.browser, anchor._legs.event = browser, event
        return anchor

    @property
    def browser(self) -> BrowserParty | None:
        """The browser's end, None before it has answered."""
        return self._legs.browser

    @property
    def event(self) -> int:
        """Payload number of digits inside."""
        return self._legs.event

    @property
    def opus(self) -> bool:
        """The browser speaks Opus, not PCMA."""
        return self._legs.browser is not None and self._legs.browser.opus

    @property
    def held(self) -> bool:
        return False

    @property
    def expects_media(self) -> bool:
        return self.established and not self.closed and not self.away

    async def start_with_offer(self, codecs: Sequence[Codec], telephone_event: int | None) -> bytes:
        self._ours = ours = await self._legs.begin(telephone_event or _EVENT)
        if ours.address != self._bay.address:
            raise MediaRejected(
                f"rtpengine uses address {ours.address}, [media] address is {self._bay.address}"
            )
        self._offer_text = ours.offer(secrets.randbits(48), 1)
        return self._offer_text

    async def accept_answer(self, body: bytes) -> None:
        """The browser's answer, once."""
        ours = self._ours
        if ours is None:
            raise MediaRejected("there is no offer that could be answered")
        party, described = read_answer(body, ours)
        async with self._turn():
            if self._legs.browser is not None:
                raise MediaRejected("the offer is answered already")
            await self._legs.take(party)
            event = self._legs.event if party.event is not None else None
            remote = inside_view(described, event)
            self.codec = Codec.PCMA
            self._note(remote, Selection((Codec.PCMA,), event, None, Direction.SENDRECV, held=False))
        log.info("browser_connected leg=%s codec=%s digits=%s", self.leg, "opus" if party.opus else "PCMA",
                 party.event is not None)  # fmt: skip

    async def start_from_offer(self, remote: AudioDescription, selection: Selection) -> None:
        raise MediaRejected("a browser is always offered to")

    async def answer(self, codec: Codec | None = None) -> bytes:
        raise MediaRejected("a browser is always offered to")

    async def remote_offer(self, body: bytes) -> bytes:
        raise MediaRejected("a browser is always offered to")

    async def local_offer(self, direction: Direction = Direction.SENDRECV) -> bytes:
        raise MediaRejected("a browser gets a new leg instead of a new offer")

    async def send_digit(self, digit: str, ms: int = 160) -> None:
        """rtpengine says "ok" and puts nothing into Opus (measured); no page is told of telephone-events."""
        raise MediaRejected("a browser takes no digits")

    async def rekey(self) -> bytes:
        raise MediaRejected("a browser's keys come from DTLS")

    async def reconnect(self) -> None:
        """After a restart of rtpengine: DTLS has to be done anew, which takes a new leg."""
        raise MediaRejected("DTLS does not outlive rtpengine")
