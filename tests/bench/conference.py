"""`scripts/bench conference`: what conferences of four cost in room, rtpengine and gateway together.

Half of the parties speak RTP, half SRTP, all of them all the time. This process stands for the gateway: it
anchors, seats and wires as the call layer does and touches no audio; the load comes from another process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.calls.audibility import Participant, audibility
from gateway.model import LegId, PartyType, new_leg_id
from gateway.sip.sdp_policy import MediaPolicy, direct_routing_policy
from media.engine import Engine, EngineSettings
from media.patchbay import Anchor, PatchBay
from media.pool import Room, RoomPool
from tests.bench.measure import Snapshot, machine, others_busy, percent_of_a_core, snapshot, tree
from tests.bench.sides import SideProcess, side
from tests.support.ports import free_udp_range
from tests.support.waiting import until

PARTIES = 4
MAX_CONFERENCES, MAX_SECONDS, MAX_LONG = 20, 300.0, 1000
_PORTS_A_LEG = 4
_SETTLE = 2.0
_WARM_ROOMS = 2
_WARM_WITHIN = 20.0
_WARM_UP = 20
"""Conferences before memory is first looked at in a long run."""


@dataclass(slots=True)
class Figures:
    """Processor in percent of one core for one conference; memory in bytes of all conferences."""

    conferences: int = 0
    idle_core: dict[str, float] = field(default_factory=dict)
    core_per_conference: dict[str, float] = field(default_factory=dict)
    setup_ms: float = 0.0
    pss: dict[str, float] = field(default_factory=dict)
    packets: int = 0
    lost: int = 0
    silent: int = 0
    broken: int = 0
    generator: dict[str, float] = field(default_factory=dict)
    others_percent: float = 0.0
    load_average: float = 0.0


@dataclass(slots=True)
class LongRun:
    """Conferences one after the other; resident bytes after the first twenty and after the last.

    left: sessions and processes that were still there afterwards
    """

    conferences: int = 0
    seconds: float = 0.0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    silent: int = 0
    left: dict[str, int] = field(default_factory=dict)


class House:
    """rtpengine, patch bay and rooms, and the parties' process."""

    def __init__(self, parties: SideProcess, engine: Engine) -> None:
        self.parties, self.engine = parties, engine
        self.bay = PatchBay(engine.ng, "127.0.0.1", engine.options)
        self.pool = RoomPool(size_warm=_WARM_ROOMS)

    async def open(self) -> Conference:
        """Four parties who all hear each other."""
        answer = await self.parties.order("open", plain=PARTIES // 2, secure=PARTIES - PARTIES // 2)
        anchors = [await self._anchor(offer) for offer in answer["offers"]]
        answers = [(await anchor.answer()).decode() for anchor in anchors]
        await self.parties.order("follow", answers=answers)
        room = await self.pool.acquire("bench", _never_moved)
        for anchor in anchors:
            assert anchor.codec is not None
            port = await room.add(anchor.leg, anchor.inside_port, anchor.codec.value)
            await anchor.patch(port, anchor.codec, anchor.telephone_event)
        kinds = [PartyType.AGENT, PartyType.EXTERNAL, PartyType.TEAMS_EXPERT, PartyType.TEAMS_EXPERT]
        people = [Participant(anchor.leg, kind) for anchor, kind in zip(anchors, kinds, strict=True)]
        await room.set_edges(audibility(people))
        return Conference(room, anchors)

    async def _anchor(self, offer: str) -> Anchor:
        policy = direct_routing_policy() if "RTP/SAVP" in offer else MediaPolicy()
        return await self.bay.answer_side(new_leg_id(), offer.encode(), policy)

    def groups(self) -> Mapping[str, list[int]]:
        mine, *children = tree(os.getpid())
        pids = self.engine.processes
        rooms = [pid for pid in children if pid not in (*pids.values(), self.parties.pid)]
        return {"gateway": [mine], **{name: [pid] for name, pid in pids.items()}, "rooms": rooms}

    def look(self) -> Snapshot:
        return snapshot(self.groups())

    async def counts(self) -> dict[str, Any]:
        return await self.parties.order("count")


@dataclass(frozen=True, slots=True)
class Conference:
    room: Room
    anchors: list[Anchor]

    async def close(self) -> None:
        await asyncio.gather(*(anchor.close() for anchor in self.anchors))
        await self.room.close()


def _never_moved(room: Room, ports: Mapping[LegId, int], cause: str) -> None:
    raise AssertionError(f"a room process died: {cause}")


async def measure(conferences: int, seconds: float, folder: Path) -> Figures:
    """So many conferences at once for so many seconds."""
    if not 0 < conferences <= MAX_CONFERENCES or not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"at most {MAX_CONFERENCES} conferences and {MAX_SECONDS:g} seconds")
    figures = Figures(conferences)
    async with side("parties") as parties:
        house = await _house(parties, folder, conferences)
        try:
            empty = house.look()
            await asyncio.sleep(min(seconds, 5.0))
            idle = house.look()
            figures.idle_core = percent_of_a_core(empty, idle)
            began = time.monotonic()
            opened = [await house.open() for _ in range(conferences)]
            figures.setup_ms = 1000 * (time.monotonic() - began) / conferences
            await asyncio.sleep(_SETTLE)
            await _steadily(house, figures, seconds)
            full = house.look()
            for name, used in full.groups.items():
                figures.pss[name] = float(used.pss)
            await asyncio.gather(*(conference.close() for conference in opened))
        finally:
            await _end(house)
    for shares in (figures.idle_core, figures.core_per_conference):
        shares["all"] = sum(shares.values())
    return figures


async def _steadily(house: House, figures: Figures, seconds: float) -> None:
    counts, before, began = await house.counts(), house.look(), machine()
    await asyncio.sleep(seconds)
    after, later = house.look(), await house.counts()
    used = percent_of_a_core(before, after)
    figures.core_per_conference = {name: share / figures.conferences for name, share in used.items()}
    own = later["cpu"] - counts["cpu"]
    figures.generator = {"core_percent": 100 * own / seconds, "late_ms": later["late_ms"]}
    figures.others_percent = others_busy(began, own + sum(used.values()) * (after.at - before.at) / 100)
    figures.load_average = os.getloadavg()[0]
    for a, b in zip(counts["streams"], later["streams"], strict=True):
        figures.packets += b[1] - a[1]
        figures.lost += max(0, b[2] - a[2])
        figures.broken += b[3] - a[3]
        figures.silent += b[1] == a[1]


async def measure_long(conferences: int, folder: Path) -> LongRun:
    """So many conferences one after the other, each until all its parties hear somebody."""
    if not _WARM_UP < conferences <= MAX_LONG:
        raise ValueError(f"a long run has {_WARM_UP + 1} to {MAX_LONG} conferences")
    run = LongRun(conferences)
    async with side("parties") as parties:
        house = await _house(parties, folder, 2)
        try:
            began = time.monotonic()
            for number in range(conferences):
                conference = await house.open()
                run.silent += not await _all_hear(house)
                await conference.close()
                await parties.order("close")
                if number + 1 == _WARM_UP:
                    run.before = _resident(house)
            run.seconds = time.monotonic() - began
            run.after = _resident(house)
            run.left = {
                "rtpengine sessions": len((await house.engine.ng.command("list"))["calls"]),
                "anchors": len(house.bay.anchors),
                "conferences": len(house.pool.rooms),
                "room processes beside the warm ones": len(house.groups()["rooms"]) - house.pool.warm,
            }
        finally:
            await _end(house)
    return run


async def _all_hear(house: House, within: float = 3.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if all(stream[1] > 2 for stream in (await house.counts())["streams"]):
            return True
        await asyncio.sleep(0.02)
    return False


def _resident(house: House) -> dict[str, float]:
    return {
        name: float(used.rss)
        for name, used in house.look().groups.items()
        if name in ("gateway", "rtpengine")
    }


async def _house(parties: SideProcess, folder: Path, conferences: int) -> House:
    ports = free_udp_range(_PORTS_A_LEG * PARTIES * (conferences + 1) + 64)
    engine = Engine(EngineSettings("embedded", "127.0.0.1", ports, folder))
    house = House(parties, engine)
    try:
        await engine.start()
        await house.pool.start()
        await until(lambda: house.pool.warm == _WARM_ROOMS, _WARM_WITHIN)
    except BaseException:
        await _end(house)
        raise
    return house


async def _end(house: House) -> None:
    await house.pool.close()
    await house.engine.stop()


# ---- for people --------------------------------------------------------------------------------------


def table(figures: Figures) -> list[tuple[str, ...]]:
    """Head and lines."""
    return [
        (f"{figures.conferences} conferences of {PARTIES}", "all", *list(figures.pss)),
        ("% of a core a conference", *_shares(figures.core_per_conference, figures.pss)),
        ("% of a core without one", *_shares(figures.idle_core, figures.pss)),
        ("memory in all, MiB fair share", _mib(sum(figures.pss.values())), *map(_mib, figures.pss.values())),
        ("set-up, ms a conference", f"{figures.setup_ms:.0f}", *_rest(figures)),
        (
            "packets / lost / not authentic",
            f"{figures.packets} / {figures.lost} / {figures.broken}",
            *_rest(figures),
        ),
        ("silent streams", str(figures.silent), *_rest(figures)),
        ("generator: % of a core", f"{figures.generator['core_percent']:.0f}", *_rest(figures)),
        ("other processes, % of a core", f"{figures.others_percent:.0f}", *_rest(figures)),
    ]


def long_table(run: LongRun) -> list[tuple[str, ...]]:
    """Head and lines."""
    return [
        (
            f"{run.conferences} conferences in {run.seconds:.0f} s",
            f"after {_WARM_UP}, MiB",
            "at the end, MiB",
        ),
        *((name, _mib(size), _mib(run.after[name])) for name, size in run.before.items()),
        ("with a silent party", "", str(run.silent)),
        *((f"left: {name}", "", str(count)) for name, count in run.left.items()),
    ]


def _shares(values: Mapping[str, float], names: Mapping[str, float]) -> list[str]:
    return [f"{values.get(name, 0.0):.2f}" for name in ("all", *names)]


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f}"


def _rest(figures: Figures) -> list[str]:
    return [""] * len(figures.pss)
