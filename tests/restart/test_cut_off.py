"""Killed half-way: what the parties have seen the end of is finished, all else is as it was before.

Journal and records are put into the state of one moment by hand, while no gateway runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from gateway.cdr.journal import Journal
from gateway.events import Event, LegAnswered, LegCreated, LegEnded, LegJoined, LegLeft, LegTransferred
from gateway.model import CallId, LegId, PartyType, ReleasedBy, Result, Role, Termination
from tests.calls.matrix import AGENT, everybody
from tests.peers.certs import Pki
from tests.restart.plant import Plant, open_plant
from tests.restart.scenes import ALL, ASIDE, PAIR, Scene, switchboard
from tests.restart.test_conferences_restarted import HEARD_WITHIN, WHISPERED, all_hear, found_in, scene


def row_of(rows: list[dict[str, Any]], one: Scene) -> dict[str, Any]:
    """That of its first call."""
    [row] = [
        row for row in rows if row["from_phone"] == one.caller and not row["detail"].get("consultation_of")
    ]
    return row


def together(row: dict[str, Any]) -> int:
    """How many were in the call at most."""
    return max(len(segment["members"]) for segment in row["detail"]["segments"])


class Told:
    """What one call's journal is to say in addition, a millisecond apart."""

    def __init__(self, call: CallId) -> None:
        self._call, self._at = call, int(time.time() * 1000)
        self.events: list[Event] = []

    @property
    def _now(self) -> int:
        return self._at + len(self.events)

    def left(self, leg: LegId) -> None:
        self.events.append(LegLeft(call=self._call, at=self._now, leg=leg))

    def joined(self, leg: LegId) -> None:
        self.events.append(LegJoined(call=self._call, at=self._now, leg=leg))

    def ended(self, leg: LegId) -> None:
        over = Termination(Result.COMPLETED, "hangup", 200, 16, ReleasedBy.PARTICIPANT)
        self.events.append(LegEnded(call=self._call, at=self._now, leg=leg, termination=over, correlation=""))

    def arrived(self, leg: LegId, number: str) -> None:
        expert, role = PartyType.TEAMS_EXPERT, Role.PARTICIPANT
        made = LegCreated(
            call=self._call, at=self._now, leg=leg, trunk="teams", party=expert, role=role, number=number
        )
        self.events.append(made)
        self.events.append(LegAnswered(call=self._call, at=self._now, leg=leg, codec="PCMA", srtp=True))

    def transferred(self, leg: LegId, outcome: str, mode: str = "blind") -> None:
        self.events.append(
            LegTransferred(
                call=self._call, at=self._now, leg=leg, mode=mode, target="somebody", outcome=outcome
            )
        )


@contextlib.contextmanager
def record_of(plant: Plant, call: CallId) -> Iterator[dict[str, Any]]:
    """To be changed."""
    path = plant.state / "calls" / f"{call}.json"
    record = json.loads(path.read_text())
    yield record
    path.write_text(json.dumps(record))


@contextlib.asynccontextmanager
async def told(plant: Plant) -> AsyncIterator[list[Told]]:
    """Added to the journal."""
    more: list[Told] = []
    yield more
    journal = Journal()
    await journal.open(plant.state / "journal")
    for one in more:
        await journal.append(*one.events)
    await journal.close()


async def concluded(plant: Plant, scenes: list[Scene], count: int) -> list[dict[str, Any]]:
    """All hear what they should, hang up, and have their rows."""
    await all_hear(scenes)
    for one in scenes:
        await one.conclude()
    found = await plant.all_rows(count)
    assert len(found) == count
    main = [row["reason"] for row in found if not row["detail"].get("consultation_of")]
    assert not {"gateway_restart", "internal_error"} & set(main), main
    return found


async def test_a_hidden_supervisor_is_no_newcomer_to_the_journal(pki: Pki, tmp_path: Path) -> None:
    """He is in no entry of it, and was taken for a party who had just answered: the call for a conference,
    and he, while a transfer rang, for the one to whom it went, so that both parties were lost.
    """
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        scenes = await asyncio.gather(*(scene("supervision", i, plant, board) for i in range(2)))
        _, transferring = scenes
        leg = await transferring.leg_path(transferring.dialled(0))
        await transferring.api(
            "POST", f"{leg}/transfer", {"number": transferring.dialled(2), "trunk": "teams"}
        )
        target = await transferring.ring("third")
        await plant.kill()
        await plant.start()
        await target.expect_end(HEARD_WITHIN)
        transferring.now(WHISPERED)
        rows = await concluded(plant, scenes, len(scenes))
    assert [together(row) for row in rows] == [2, 2]
    assert {row["disposition"] for row in rows} <= {"caller_terminated", "callee_terminated"}


async def test_transfers_and_takeovers_are_done_or_have_not_been(pki: Pki, tmp_path: Path) -> None:
    """The journal and the record of each were one step apart: a transfer that had failed lost both parties,
    one whose target had been heard was taken back, who had been replaced talked on, and an agent who had
    transferred his held call was put back into it.
    """
    plots = ("talk", "three", "three", "consult", "consult")
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        scenes = await asyncio.gather(*(scene(plot, i, plant, board) for i, plot in enumerate(plots)))
        failed, heard, replaced, done, begun = scenes
        leg = await failed.leg_path(failed.dialled(0))
        await failed.api("POST", f"{leg}/transfer", {"number": failed.dialled(1), "trunk": "teams"})
        target = await failed.ring("third")
        await asyncio.sleep(0.1)
        await plant.kill()
        async with told(plant) as more:
            more += [
                _failed(plant, failed),
                _heard(plant, heard),
                _replaced(plant, replaced),
                *_done(plant, done),
                *_begun(plant, begun),
            ]
        await plant.start()
        await target.expect_end(HEARD_WITHIN)
        for one, name in ((heard, "expert"), (replaced, "expert"), (done, "agent")):
            await one.parties[name].expect_end(HEARD_WITHIN)
        failed.now(PAIR)
        heard.now(everybody("agent", "third"))
        replaced.now(everybody("agent", "third"))
        done.now(everybody("expert", "third"))
        begun.now(ASIDE)
        await all_hear(scenes)
        await begun.api("POST", f"/{await begun.call_id()}/consultation/merge")
        begun.now(ALL)
        rows = await concluded(plant, scenes, len(scenes) + 2)
    transfers = {
        one: [(t["mode"], t["outcome"]) for t in row_of(rows, one)["detail"].get("transfers", [])]
        for one in scenes
    }
    assert transfers == {
        failed: [("blind", "failed")],
        heard: [("blind", "completed")],
        replaced: [("replaces", "completed")],
        done: [("attended", "completed")],
        begun: [],
    }
    asides = [row["reason"] for row in rows if row["detail"].get("consultation_of")]
    assert sorted(asides) == ["merged", "transferred"]


def _failed(plant: Plant, one: Scene) -> Told:
    """The record still has the transferor away."""
    call, expert = found_in(plant, one.dialled(0))
    with record_of(plant, call) as record:
        assert record["away"] == [expert]
    more = Told(call)
    more.transferred(expert, "failed")
    return more


def _heard(plant: Plant, one: Scene) -> Told:
    """The target is a member for the journal, which does not say yet that this was the transfer's end."""
    call, expert = found_in(plant, one.dialled(0))
    _, third = found_in(plant, one.dialled(1))
    with record_of(plant, call) as record:
        record["away"] = [expert]
        record["joined"].remove(expert)
    more = Told(call)
    more.left(third)
    more.transferred(expert, "started")
    more.left(expert)
    more.joined(third)
    return more


def _replaced(plant: Plant, one: Scene) -> Told:
    """The peer has the 200 to its Replaces."""
    call, expert = found_in(plant, one.dialled(0))
    _, third = found_in(plant, one.dialled(1))
    with record_of(plant, call) as record:
        record["replacing"] = {third: expert}
    more = Told(call)
    more.left(third)
    return more


def _done(plant: Plant, one: Scene) -> list[Told]:
    """The consultation's other party has taken the agent's place; the agent has not been hung up yet."""
    primary, _ = found_in(plant, one.dialled(0))
    aside, agent = found_in(plant, one.caller)
    _, third = found_in(plant, one.dialled(1))
    with record_of(plant, aside) as record:
        [moved] = [leg for leg in record["legs"] if leg["id"] == third]
        record["legs"].remove(moved)
        record["joined"].remove(third)
    with record_of(plant, primary) as record:
        record["legs"].append(moved | {"moves": moved["moves"] + 1, "role": "participant"})
        record["joined"] = [leg for leg in [*record["joined"], third] if leg != agent]
        record["away"], record["holds"], record["held_at"] = [agent], [], {}
    there, here = Told(aside), Told(primary)
    there.left(third)
    here.left(agent)
    here.arrived(third, one.dialled(1))
    here.joined(third)
    here.transferred(agent, "completed", "attended")
    return [there, here]


def _begun(plant: Plant, one: Scene) -> list[Told]:
    """The agent has stepped down for the other party, who is in neither call."""
    primary, _ = found_in(plant, one.dialled(0))
    aside, agent = found_in(plant, one.caller)
    _, third = found_in(plant, one.dialled(1))
    with record_of(plant, aside) as record:
        record["passing"] = [leg for leg in record["legs"] if leg["id"] == third]
        record["legs"] = [leg for leg in record["legs"] if leg["id"] != third]
        record["joined"].remove(third)
    with record_of(plant, primary) as record:
        record["joined"].remove(agent)
        record["away"], record["holds"], record["held_at"] = [agent], [], {}
    there, here = Told(aside), Told(primary)
    there.left(third)
    here.left(agent)
    return [there, here]


def hangs_up_unheard(one: Scene, name: str) -> None:
    """As a telephone does while no gateway runs: it has forgotten the dialog."""
    party = one.parties[name]
    one.must.discard(name)
    party.ua.dialogs.pop((party.dialog.call_id, party.dialog.local_tag), None)
    party.ended = True
    party.rtp.pause()


async def test_a_hold_of_one_party_ends_with_him_and_legs_that_come_back_are_asked(
    pki: Pki, tmp_path: Path
) -> None:
    """It had gone on in the journal, so that after a restart the agent held the whole call and nobody heard
    him; and whoever came back from a consultation that was cut off was not asked whether he is there.
    """
    plots = ("three", "three", "talk")
    async with open_plant(pki, tmp_path, center_extra=AGENT) as plant, switchboard(plant) as board:
        scenes = await asyncio.gather(*(scene(plot, i, plant, board) for i, plot in enumerate(plots)))
        left, unwritten, gone = scenes
        for one in (left, unwritten):
            await one.hold_third()
        await left.leave("third")
        left.now(PAIR)
        leg = await gone.leg_path(gone.caller)
        await gone.api("POST", f"{leg}/consultation", {"number": gone.dialled(1)})
        target = await gone.ring("third")
        await asyncio.sleep(0.1)
        await plant.kill()
        hangs_up_unheard(gone, "agent")
        hangs_up_unheard(unwritten, "third")
        async with told(plant) as more:
            call, third = found_in(plant, unwritten.dialled(1))
            more.append(Told(call))
            more[0].ended(third)
        await plant.start()
        await target.expect_end(HEARD_WITHIN)
        await gone.called["expert"].expect_end(5)
        for one in (left, unwritten):
            one.now(PAIR)
        gone.must, gone.wanted = set(), None
        rows = await concluded(plant, scenes, len(scenes) + 1)
    for one in (left, unwritten):
        [hold] = row_of(rows, one)["detail"]["holds"]
        assert hold["end_ms"] < row_of(rows, one)["detail"]["end_ms"] - 500, hold
