"""kill -9 of the gateway at random moments of busy seconds: set-ups, holds, transfers, hang-ups under way.

Not part of every run, because random moments are luck: `TANDEM_KILL_POINTS=50` (and `_SEED`) runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.calls.house import EXPERT
from tests.peers.certs import Pki
from tests.peers.contact_center_call import CenterCall
from tests.peers.sipwire import WireMessage
from tests.peers.sipwire_call import WireCall
from tests.peers.teams_call import TeamsCall
from tests.restart.plant import Plant, open_plant

POINTS = int(os.environ.get("TANDEM_KILL_POINTS", "0"))
SEED = int(os.environ.get("TANDEM_KILL_SEED", "5"))
CALLS = 6
"""Calls a round; they are begun within BUSY seconds, and the gateway dies within these, too."""
BUSY = 2.0
PLOTS = ("talk", "hold", "hold_by_agent", "transfer", "cancel", "agent_leaves", "expert_leaves")
log = logging.getLogger("tests.restart")


@dataclass
class Story:
    """One call and what its parties do. `leaving`: one of them has decided to hang up."""

    number: str
    plot: str
    agent: CenterCall | None = None
    experts: list[TeamsCall] = field(default_factory=list)
    leaving: bool = False
    answered: bool = False
    held: bool = False

    @property
    def alive(self) -> list[WireCall]:
        """Parties that believe to be in a call; one whose 200 gets no ACK hangs up after 32 s by itself."""
        parties: list[WireCall] = [*([self.agent] if self.agent else []), *self.experts]
        there = [party for party in parties if party.established and not party.ended]
        return [party for party in there if party.invited is None or party.acks]


class Switchboard:
    """Teams' end: finds the story an INVITE belongs to by the number it shows."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._calls: dict[str, asyncio.Queue[TeamsCall]] = defaultdict(asyncio.Queue)

    async def run(self) -> None:
        while True:
            call = await self._plant.teams.expect_invite(3600)
            assert call.invited is not None
            found = re.search(r"\+49\d+", call.invited.request.get("From"))
            self._calls[found.group() if found else ""].put_nowait(call)

    async def next(self, story: Story) -> TeamsCall:
        call = await self._calls[story.number].get()
        story.experts.append(call)
        return call

    def rest(self, story: Story) -> list[TeamsCall]:
        """INVITEs that the story did not get to."""
        queue = self._calls[story.number]
        return [queue.get_nowait() for _ in range(queue.qsize())]


@contextlib.asynccontextmanager
async def switchboard(plant: Plant) -> AsyncIterator[Switchboard]:
    board = Switchboard(plant)
    task = asyncio.create_task(board.run())
    try:
        yield board
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def tell(story: Story, plant: Plant, board: Switchboard, dice: random.Random) -> None:
    """Act the plot; waits for ever where the gateway has died, and is cancelled then."""
    await asyncio.sleep(dice.uniform(0, BUSY * 0.7))
    story.agent = agent = await plant.center.call(EXPERT, caller=story.number)
    expert = await board.next(story)
    await asyncio.sleep(dice.uniform(0, 0.3))
    expert.ring()
    await asyncio.sleep(dice.uniform(0, 0.3))
    if story.plot == "cancel":
        story.leaving = True
        await agent.cancel()
        return
    await expert.answer(wait_for_ack=False)
    await agent.answered(60)
    await expert.until(lambda: bool(expert.acks), "ACK", 60)
    story.answered = True
    await asyncio.sleep(dice.uniform(0, 0.4))
    match story.plot:
        case "hold" | "hold_by_agent":
            holder = expert if story.plot == "hold" else agent
            while True:
                story.held = True
                await holder.hold()
                await asyncio.sleep(dice.uniform(0, 0.2))
                await holder.resume()
                story.held = False
                await asyncio.sleep(dice.uniform(0, 0.2))
        case "transfer":
            story.leaving = True
            await expert.refer(bye_after=dice.choice((None, 0.1)))
            colleague = await board.next(story)
            colleague.ring()
            await asyncio.sleep(dice.uniform(0, 0.3))
            await colleague.answer()
        case "agent_leaves":
            await leave(story, agent)
        case "expert_leaves":
            await leave(story, expert)


async def leave(story: Story, party: WireCall) -> None:
    """BYE; as a telephone does, it has forgotten the dialog once the BYE is out, answered or not."""
    story.leaving = True
    saying = asyncio.create_task(party.bye())
    await asyncio.sleep(0)
    dialog = party.dialog
    party.ua.dialogs.pop((dialog.call_id, dialog.local_tag), None)
    party.ended = True
    party.rtp.pause()
    try:
        await saying
    finally:
        saying.cancel()


async def conclude(story: Story, board: Switchboard) -> None:
    """After the restart: whoever is still in a call hears the other and can hang up; nobody is left over."""
    agent = story.agent
    if story.answered and not story.leaving:
        assert len(story.alive) == 2, f"{story.plot}: an established call was lost: {story.alive}"
    for late in board.rest(story):
        story.experts.append(late)
    if agent is not None and not agent.established and not agent.ended and agent.inviting is not None:
        # over UDP the INVITE is repeated until somebody answers, and cancelled only then (RFC 3261 9.1): it
        # may have become a call of the new gateway
        inviting = agent.inviting
        await agent.until(lambda: agent.ended or bool(inviting.seen), "answer", 40)
        if not agent.ended:
            await agent.cancel()
    for expert in [*story.experts, *board.rest(story)]:
        if not expert.established and not expert.ended:
            await expert.expect_end(15)
    if story.plot in ("hold", "hold_by_agent") and story.held and len(story.alive) == 2:
        await _resume(story)
    if len(story.alive) == 2 and agent in story.alive and not story.leaving:
        assert agent is not None
        await asyncio.gather(agent.rtp.hears(700, 10), story.alive[1].rtp.hears(440, 10))
    if len(story.alive) >= 2 and agent in story.alive:
        assert agent is not None
        assert (await agent.bye()).code == 200
    for party in story.alive:
        await party.expect_end(15)


async def _resume(story: Story) -> None:
    holder = story.experts[0] if story.plot == "hold" else story.agent
    assert holder is not None
    for _ in range(20):
        answer: WireMessage = await holder.resume()
        if answer.code == 200:
            return
        assert answer.code in (491, 500), answer.raw
        await asyncio.sleep(0.1)
    raise AssertionError("cannot resume")


@pytest.mark.skipif(POINTS == 0, reason="random moments: set TANDEM_KILL_POINTS to run it")
@pytest.mark.load
async def test_every_call_goes_on_or_ends_with_one_row(pki: Pki, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    stories: list[Story] = []
    async with open_plant(pki, tmp_path, seats=4 * CALLS) as plant, switchboard(plant) as board:
        for point in range(POINTS):
            round_ = [
                Story(f"+4930{point:03}{index:02}", PLOTS[(point + index) % len(PLOTS)])
                for index in range(CALLS)
            ]
            stories += round_
            tasks = [asyncio.create_task(tell(story, plant, board, dice)) for story in round_]
            await asyncio.sleep(dice.uniform(0.2, BUSY))
            await plant.kill_and_start()
            # retransmissions, refreshes and what the new gateway has to tell
            await asyncio.wait(tasks, timeout=1.5)
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.info("story_broken cause=%r", outcome)
            ends = await asyncio.gather(*(conclude(story, board) for story in round_), return_exceptions=True)
            wrong = [(story, end) for story, end in zip(round_, ends, strict=True) if end is not None]
            assert not wrong, f"round {point}: {wrong}"
        await plant.quiet()
        rows = plant.rows()
    for story in stories:
        mine = [row for row in rows if row["from_phone"] == story.number]
        agent = story.agent
        inviting = agent.inviting if agent is not None else None
        codes = [response.code for response in inviting.seen] if inviting is not None else []
        # a call that had not got as far as an INVITE of ours leaves no row (facts/call-detail.md 5, rule 10)
        assert len(mine) == 1 if story.experts else len(mine) <= 1, (story, codes, mine)
        for row in mine:
            assert row["start_time"] <= row["end_time"]
            if story.answered:
                assert row["answer_time"] is not None, row
