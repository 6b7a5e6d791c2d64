"""Who hears whom, measured: at pages by what they play, at stand-ins by the packets that they get."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from playwright.async_api import Page

from tests.calls.house import MUSIC_HZ
from tests.peers import tone
from tests.peers.contact_center_call import CenterCall
from tests.peers.rtp import RtpPeer
from tests.peers.teams_call import TeamsCall

QUIET = -38.0
"""dBFS below which a tone is not there."""
LISTEN = 0.3

Matrix = Mapping[str, set[str]]


class Ears:
    """The parties by name, each with a tone of its own. `await hear({"agent": {"customer"}})`: exactly that.

    The music is a speaker, `music`, whom nobody has to add.
    """

    def __init__(self) -> None:
        self.tones: dict[str, float] = {"music": MUSIC_HZ}
        self._peers: dict[str, RtpPeer] = {}
        self._pages: dict[str, Page] = {}

    def page(self, name: str, page: Page, hz: float) -> None:
        """hz: what its microphone hears."""
        self._pages[name], self.tones[name] = page, hz

    def call(self, name: str, call: CenterCall | TeamsCall, hz: float = 0.0) -> None:
        """hz: let it say this from now on, by default what it says already."""
        if hz:
            call.rtp.say(hz)
        self._peers[name], self.tones[name] = call.rtp, call.rtp.tone

    def gone(self, name: str) -> None:
        self._peers.pop(name, None)
        self._pages.pop(name, None)

    async def hear(self, wanted: Matrix, within: float = 10.0) -> None:
        """Wait until everybody named hears exactly these; AssertionError says who does not."""
        deadline = asyncio.get_running_loop().time() + within
        while True:
            found = await asyncio.gather(*(self.levels(name) for name in wanted))
            wrong = [text for name, levels in zip(wanted, found, strict=True)
                     for text in _wrong(name, wanted[name], levels)]  # fmt: skip
            if not wrong:
                return
            assert asyncio.get_running_loop().time() < deadline, "; ".join(wrong)

    async def levels(self, name: str) -> dict[str, float]:
        """dBFS of everybody's tone, and of the music, in what this one hears now; empty: no sound at all."""
        if name in self._pages:
            found = await self._pages[name].evaluate(
                "tones => window.levels(tones)", list(self.tones.values())
            )
            return dict(zip(self.tones, found, strict=True)) if found is not None else {}
        rtp = self._peers[name]
        since = rtp.now
        await asyncio.sleep(LISTEN)
        pcm = rtp.pcm(since)
        if len(pcm) < 8 * tone.PACKET:
            return {}
        return {other: tone.level(pcm, hz) for other, hz in self.tones.items()}


def _wrong(name: str, wanted: set[str], levels: dict[str, float]) -> list[str]:
    missing = sorted(other for other in wanted if levels.get(other, -180.0) < tone.HEARD)
    extra = sorted(other for other, found in levels.items() if other not in wanted and found > QUIET)
    said = {other: round(found) for other, found in levels.items()}
    return [f"{name} misses {missing}, overhears {extra}: {said or 'silence'}"] if missing or extra else []


def everybody(*names: str) -> dict[str, set[str]]:
    """All hear all others."""
    return {name: set(names) - {name} for name in names}
