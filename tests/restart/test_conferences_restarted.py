"""Conferences, consultations and supervision over a restart: everybody hears what he heard before, also while
the gateway is away, and everything goes on afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.cdr.journal import Journal
from gateway.events import (
    Event,
    LegAnswered,
    LegCreated,
    LegJoined,
    LegLeft,
    LegResumed,
)
from gateway.model import CallId, LegId, PartyType, Role
from tests.calls.matrix import AGENT, everybody
from tests.peers.certs import Pki
from tests.restart.plant import ROOT, Plant, open_plant
from tests.restart.scenes import ALL, ASIDE, Scene, Switchboard, switchboard
from tests.support.waiting import until

WHISPERED = {"agent": {"expert", "fourth"}, "expert": {"agent"}, "fourth": {"agent", "expert"}}
HEARD_WITHIN = 20.0


async def by_command(plant: Plant) -> None:
    """`tandem restart`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "restart", "--config", str(plant.config)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said
    assert said.startswith(b"restarted in ")


HOW: dict[str, Callable[[Plant], Awaitable[None]]] = {
    "restart": Plant.restart,
    "command": by_command,
    "kill": Plant.kill_and_start,
}


def rooms(plant: Plant) -> set[int]:
    """Process ids of the rooms that mix."""
    found = set()
    for file in (plant.state / "calls").glob("*.json"):
        room = json.loads(file.read_text())["room"]
        found |= {process["pid"] for process in room["processes"].values()} if room else set()
    return found


async def scene(plot: str, number: int, plant: Plant, board: Switchboard) -> Scene:
    """Up to where it stays as it is; measured."""
    made = Scene(plot, number, plant, board, random.Random(number), pace=0.05)
    await made.act()
    assert made.wanted is not None
    await made.heard(made.wanted, HEARD_WITHIN)
    return made


async def all_hear(scenes: list[Scene]) -> None:
    await asyncio.gather(*(one.heard(one.wanted or {}, HEARD_WITHIN) for one in scenes))


@pytest.mark.parametrize("how", HOW)
async def test_all_hear_what_they_heard_and_everything_goes_on(pki: Pki, tmp_path: Path, how: str) -> None:
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        plots = ("three", "three_held", "supervision", "consult", "transfer")
        scenes = await asyncio.gather(*(scene(plot, i, plant, board) for i, plot in enumerate(plots)))
        three, held, watched, aside, transferred = scenes
        begun = three.stage.peers["agent"].now
        for one in scenes:
            one.restarts()
        if how == "kill":
            await plant.kill()
            await all_hear(scenes)
            await plant.start()
        else:
            await HOW[how](plant)
        await all_hear(scenes)
        quiet = {
            (one.plot, name): one.stage.gap(name, begun)
            for one in scenes
            for name, hears in (one.wanted or {}).items()
            if hears
        }
        assert max(quiet.values()) < 1.0, quiet
        # the transferor that Teams had not hung up yet is let go, and nobody else
        await transferred.called["expert"].expect_end()
        await asyncio.gather(*(one.refreshed() for one in scenes))

        await three.called["third"].hang_up()
        three.now(everybody("agent", "expert"))
        assert held.agent is not None
        assert (await held.agent.resume()).code == 200
        held.now(ALL)
        boss = await watched.leg_path(watched.dialled(1))
        await watched.api("PATCH", boss, {"supervision": "barge"})
        watched.now(everybody("agent", "expert", "fourth"))
        merged = await aside.api("POST", f"/{await aside.call_id()}/consultation/merge")
        assert len(merged["legs"]) == 3
        aside.now(ALL)
        await all_hear(scenes)
        for one in scenes:
            await one.conclude()
        rows = await plant.all_rows(len(plots) + 1)
    assert len(rows) == len(plots) + 1
    found = {one.plot: [row for row in rows if one.key in (row["from_phone"] or "")] for one in scenes}
    assert not [row for row in rows if row["reason"] in ("gateway_restart", "dialog_lost")]
    assert [row["hold_count"] for row in found["three_held"]] == [1]
    primary, consultation = sorted(found["consult"], key=lambda row: row["reason"] == "merged")
    assert primary["global_interaction_id"] == consultation["global_interaction_id"]
    assert primary["hold_count"] == 1
    assert [row["disposition"] for row in found["transfer"]] == ["transferred"]


def found_in(plant: Plant, number: str) -> tuple[CallId, LegId]:
    """The call that has booked this number's leg, and the leg, by the records."""
    for file in (plant.state / "calls").glob("*.json"):
        for leg in json.loads(file.read_text())["legs"]:
            if leg["number"] == number:
                return CallId(file.stem), LegId(leg["id"])
    raise AssertionError(f"{number} is in no record")


@pytest.mark.parametrize("what", ["merge", "transfer"])
async def test_killed_in_a_merge_whose_resume_was_journaled_and_not_recorded(
    pki: Pki, tmp_path: Path, what: str
) -> None:
    """The journal had the agent's hold ended and the third party in, the records had him away in his
    consultation: his speech was to be bridged to a leg that was not there, and the call broke with 500.
    """
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        aside = await scene("consult", 0, plant, board)
        await until(lambda: len(list((plant.state / "calls").glob("*.json"))) == 2, 10)
        await plant.kill()
        primary, expert = found_in(plant, aside.dialled(0))
        consultation, agent = found_in(plant, aside.caller)
        _, third = found_in(plant, aside.dialled(1))
        assert consultation != primary
        journal = Journal()
        await journal.open(plant.state / "journal")
        at = int(time.time() * 1000)
        arrived: list[Event] = [
            LegCreated(
                call=primary,
                at=at,
                leg=third,
                trunk="teams",
                party=PartyType.TEAMS_EXPERT,
                role=Role.PARTICIPANT,
                number=aside.dialled(1),
                host=False,
            ),
            LegAnswered(call=primary, at=at, leg=third, codec="PCMA", srtp=True),
        ]
        over: Event = (
            LegResumed(call=primary, at=at, leg=agent, by=PartyType.AGENT)
            if what == "merge"
            else LegLeft(call=primary, at=at, leg=agent)
        )
        await journal.append(*arrived, over, LegJoined(call=primary, at=at, leg=third))
        await journal.close()
        await plant.start()
        await aside.heard(ASIDE, HEARD_WITHIN)
        await aside.api("POST", f"/{primary}/consultation/merge")
        aside.now(ALL)
        await aside.heard(ALL, HEARD_WITHIN)
        await aside.conclude()
        rows = await plant.all_rows(2)
    assert {row["reason"] for row in rows} == {"hangup", "merged"}
    [row] = [row for row in rows if row["id"] == primary]
    members = [set(segment["members"]) for segment in row["detail"]["segments"]]
    three, two = {agent, expert, third}, {agent, expert}
    first = members.index(three) if what == "merge" else members.index({expert, third})
    # the third was in for what had been journaled, then not, then by the merge that was not cut off
    last = len(members) - 1 - members[::-1].index(three)
    assert two in members[first + 1 : last], members
    # he held until the merge that was cut off, and again from the restart until the one that was not
    assert [hold["by"] for hold in row["detail"]["holds"]] == ["agent", "agent"]


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_the_first_held_caller_of_two_was_hung_up(pki: Pki, tmp_path: Path, how: str) -> None:
    """A consultation within a consultation: who was lent on was not found, and so the call he had lent his
    leg from first seemed to have one party left.
    """
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        twice, halved = await asyncio.gather(*(scene("consult", i, plant, board) for i in range(2)))
        innermost = {"agent": {"fourth"}, "fourth": {"agent"}, "third": {"music"}, "expert": {"music"}}
        for one in (twice, halved):
            aside = (await one.calls())[1]
            leg = next(leg["id"] for leg in aside["legs"] if leg["number"] == one.caller)
            await one.api("POST", f"/{aside['id']}/legs/{leg}/consultation", {"number": one.dialled(2)})
            await one.joins("fourth")
            one.now(innermost)
        # the one held in between has gone: the last consultation is the first call's
        halved.now(None)
        await halved.leave("third")
        del innermost["third"]
        halved.now(innermost)
        await all_hear([twice, halved])
        await HOW[how](plant)
        await all_hear([twice, halved])

        calls = await twice.calls()
        assert [call["consultation_of"] for call in calls] == [None, calls[0]["id"], calls[1]["id"]]
        await twice.api("DELETE", f"/{calls[2]['id']}/consultation")
        twice.must.discard("fourth")
        twice.now(ASIDE)
        await halved.api("POST", f"/{await halved.call_id()}/consultation/merge")
        halved.now(everybody("agent", "expert", "fourth"))
        await all_hear([twice, halved])
        await twice.api("DELETE", f"/{calls[1]['id']}/consultation")
        twice.must.discard("third")
        twice.now(everybody("agent", "expert"))
        await all_hear([twice])
        for one in (twice, halved):
            await one.conclude()
        rows = await plant.all_rows(6)
    assert not [row for row in rows if row["reason"] in ("gateway_restart", "dialog_lost", "call_gone")]


async def test_rooms_are_taken_over_and_not_replaced(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        three = await scene("three", 0, plant, board)
        await until(lambda: len(rooms(plant)) == 1, 10)
        before = rooms(plant)
        for restart in (Plant.kill_and_start, Plant.restart):
            await restart(plant)
            await three.heard(ALL, HEARD_WITHIN)
            assert rooms(plant) == before
        await three.conclude()


async def test_a_room_that_died_with_the_gateway_is_replaced(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        three = await scene("three", 0, plant, board)
        await until(lambda: len(rooms(plant)) == 1, 10)
        [pid] = rooms(plant)
        await plant.kill()
        os.kill(pid, signal.SIGKILL)
        await plant.start()
        await three.heard(ALL, HEARD_WITHIN)
        await three.conclude()


async def test_a_call_lasts_no_longer_for_having_been_restarted(pki: Pki, tmp_path: Path) -> None:
    async with (
        open_plant(pki, tmp_path, teams_extra="max_duration = 12.0") as plant,
        switchboard(plant) as board,
    ):
        talk = await scene("talk", 0, plant, board)
        await plant.kill_and_start()
        assert talk.agent is not None
        await talk.agent.expect_end(30)
        await talk.called["expert"].expect_end()
        [row] = await plant.all_rows(1)
        assert row["reason"] == "max_duration"
        assert 12 <= row["duration"] <= 16
