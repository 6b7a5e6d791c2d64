"""Who hears whom, measured: every party sends its own tone, the music is another."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

from gateway.calls.control import CallControl
from gateway.calls.control_views import CallView, LegView
from gateway.model import LegId
from tests.calls.house import CUSTOMER, EXPERT, MUSIC_HZ, House
from tests.peers import tone
from tests.peers.contact_center_call import CenterCall
from tests.peers.rtp import RtpPeer
from tests.peers.teams_call import TeamsCall

AGENT = 'party = "agent"'
ANN = f'[[agent]]\nlogin = "ann"\nnumbers = ["{CUSTOMER}"]'
"""The contact-center stand-in's number is this agent's."""
QUIET = -38.0
LISTEN = 0.26
TONES = {"agent": 440.0, "expert": 700.0, "third": 1000.0, "fourth": 1600.0}

Matrix = Mapping[str, set[str]]


class Stage:
    """The parties of a test by name. `await stage.hear({"agent": {"expert"}, …})`: exactly that."""

    def __init__(self, house: House | None = None) -> None:
        self.house = house
        self.peers: dict[str, RtpPeer] = {}
        self.tones: dict[str, float] = {"music": MUSIC_HZ}

    def add(self, name: str, call: CenterCall | TeamsCall, hz: float = 0.0) -> None:
        hz = hz or TONES[name]
        call.rtp.say(hz)
        self.peers[name], self.tones[name] = call.rtp, hz

    async def hear(self, wanted: Matrix, within: float = 4.0) -> None:
        """Wait until everybody named hears exactly these tones; AssertionError says who does not."""
        deadline = asyncio.get_running_loop().time() + within
        while True:
            since = asyncio.get_running_loop().time()
            await asyncio.sleep(LISTEN)
            wrong = [text for name in wanted for text in self._wrong(name, wanted[name], since)]
            if not wrong:
                return
            assert asyncio.get_running_loop().time() < deadline, "; ".join(wrong)

    def _wrong(self, name: str, wanted: set[str], since: float) -> list[str]:
        pcm = self.peers[name].pcm(since)
        if len(pcm) < 8 * tone.PACKET:
            return [f"{name} gets only {len(pcm)} samples"] if wanted else []
        levels = {other: tone.level(pcm, hz) for other, hz in self.tones.items()}
        missing = {other for other in wanted if levels[other] < tone.HEARD}
        extra = {other for other in levels if other not in wanted and levels[other] > QUIET}
        return [f"{name} misses {missing} overhears {extra}"] if missing or extra else []

    def gap(self, name: str, since: float, until: float = float("inf")) -> float:
        """The longest time, in seconds, in which no packet came."""
        times = [packet.at for packet in self.peers[name].heard(since, until)]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=9.0)

    def silence(self, name: str, speaker: str, since: float, until: float, *, window: int = 1) -> float:
        """The longest time, in seconds, in which `speaker` could not be heard, within `window` packets of
        20 ms: five of them tell tones 60 Hz apart.
        """
        packets = self.peers[name].heard(since, until)
        last, longest = since, 0.0
        for index in range(0, len(packets) - window + 1, window):
            part = packets[index : index + window]
            if tone.hears(tone.decode([(p.payload_type, p.payload) for p in part]), self.tones[speaker]):
                longest, last = max(longest, part[0].at - last), part[-1].at
        return max(longest, until - last)

    def deafest(self, wanted: Matrix, since: float) -> tuple[float, str]:
        """The longest time since then, in seconds, in which somebody could not hear one whom he should, and
        who that was."""
        until = asyncio.get_running_loop().time()
        return max(
            (self.silence(name, speaker, since, until, window=5), f"{name} hears {speaker}")
            for name in wanted
            for speaker in wanted[name]
        )


def everybody(*names: str) -> dict[str, set[str]]:
    """All hear all others."""
    return {name: set(names) - {name} for name in names}


def control(h: House) -> CallControl:
    return CallControl(h.gateway.context, h.gateway.calls)


def only_call(h: House) -> CallView:
    [view] = control(h).calls()
    return view


def leg_of(view: CallView, what: str) -> LegView:
    """The participant of that party type, or with that number."""
    found = [leg for leg in view.legs if what in (leg.party.value, leg.number)]
    assert found, f"no {what} among {view.legs}"
    return found[0]


async def two(h: House) -> tuple[Stage, CenterCall, TeamsCall]:
    """An agent has called a Teams user; they hear each other."""
    agent = await h.center.call(EXPERT)
    expert = await h.teams.expect_invite()
    expert.ring()
    await expert.answer()
    await agent.answered()
    stage = Stage(h)
    stage.add("agent", agent)
    stage.add("expert", expert)
    await stage.hear(everybody("agent", "expert"))
    return stage, agent, expert


async def three(h: House) -> tuple[Stage, CenterCall, TeamsCall, TeamsCall]:
    """Agent, expert and a third in Teams, added in one step; all hear all."""
    stage, agent, expert = await two(h)
    view = only_call(h)
    await control(h).add(view.id, THIRD)
    third = await h.teams.expect_invite(tone=TONES["third"])
    await third.answer()
    stage.add("third", third)
    await stage.hear(everybody("agent", "expert", "third"))
    return stage, agent, expert, third


THIRD = "+15551230003"
FOURTH = "+15551230004"


def kinds(h: House, *wanted: str) -> list[str]:
    """The journal's events of these kinds, in order."""
    return [event.kind for event in h.events if event.kind in wanted]


def agent_leg(h: House) -> LegId:
    return leg_of(only_call(h), "agent").id
