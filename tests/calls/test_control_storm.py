"""Commands and hang-ups in random order, some at the same moment: no leg is lost, every row adds up."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest

from gateway.calls.audibility import MusicPolicy, SupervisorMode
from gateway.calls.control import ControlError
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import EXPERT, House
from tests.calls.matrix import AGENT, ANN, control
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

STEPS = 14


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_commands(
    house: OpenHouse, rooms: RoomPool, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    dice = random.Random(seed)
    async with house(center_extra=AGENT, extra=ANN, rooms=rooms) as h:
        there = [
            asyncio.create_task(_pick_up(wait, random.Random(seed)))
            for wait in (h.teams.expect_invite, h.center.expect_call)
        ]
        try:
            for _ in range(STEPS):
                while not control(h).calls():
                    await (await h.center.call(EXPERT)).outcome(within=4)
                moves = [_move(h, dice) for _ in range(dice.randint(1, 2))]
                await asyncio.gather(*(_forgive(move()) for move in moves))
                await asyncio.sleep(dice.choice((0.0, 0.0, 0.05, 0.15)))
            for view in control(h).calls():
                await _forgive(control(h).hang_up(view.id))
            await h.quiet()
        finally:
            for task in there:
                task.cancel()
            await asyncio.gather(*there, return_exceptions=True)
        for row in h.rows():
            assert not row.detail.get("incomplete"), row
            answered = row.detail["answer_ms"]
            if answered is not None:
                total = row.detail["talk_ms"] + row.detail["hold_ms"]
                assert total == row.detail["end_ms"] - answered, row
        assert {event.call for event in h.events if event.kind == "call_started"} == {
            event.call for event in h.events if event.kind == "call_ended"
        }
    said = [record.getMessage() for record in caplog.records]
    assert not [text for text in said if text.startswith(("call_broken", "call_failed"))]


def _move(h: House, dice: random.Random) -> Callable[[], Awaitable[object]]:
    """One thing that somebody does, to parties as they are now."""
    commands, number = control(h), f"+1555123{dice.randint(2000, 2999)}"
    view = dice.choice(commands.calls())
    leg = dice.choice(view.legs).id if view.legs else ""
    other = dice.choice(view.legs).id if view.legs else ""
    peers: list[CenterCall | TeamsCall] = [*h.center.calls, *h.teams.calls]
    peers = [call for call in peers if call.established and not call.ended]
    peer = dice.choice(peers) if peers else None
    return dice.choice(
        [
            lambda: commands.consult(view.id, leg, number),
            lambda: commands.consult(view.id, leg, number),
            lambda: commands.merge(view.id),
            lambda: commands.back(view.id),
            lambda: commands.complete_transfer(view.id),
            lambda: commands.add(view.id, number),
            lambda: commands.add(view.id, number),
            lambda: commands.transfer(view.id, leg, number),
            lambda: commands.supervise(view.id, leg, number, dice.choice(list(SupervisorMode))),
            lambda: commands.hold(view.id, leg),
            lambda: commands.resume(view.id, leg),
            lambda: commands.hold_party(view.id, leg, other),
            lambda: commands.resume_party(view.id, leg, other),
            lambda: commands.mute(view.id, leg, dice.choice((True, False))),
            lambda: commands.set_music(view.id, dice.choice(list(MusicPolicy))),
            lambda: commands.supervise_mode(view.id, leg, dice.choice(list(SupervisorMode))),
            lambda: commands.answer(view.id, leg),
            lambda: commands.remove(view.id, leg),
            lambda: commands.hang_up(view.id, leg),
            lambda: peer.bye() if peer is not None else asyncio.sleep(0),
            lambda: peer.hold() if peer is not None else asyncio.sleep(0),
            lambda: peer.resume() if peer is not None else asyncio.sleep(0),
        ]
    )


async def _forgive(doing: Awaitable[object]) -> None:
    """A command that comes too late is refused, a request on a dialog that ends gets no answer: both fine."""
    with contextlib.suppress(ControlError):
        async with asyncio.timeout(6):
            await doing


async def _pick_up(wait: Callable[..., Awaitable[CenterCall | TeamsCall]], dice: random.Random) -> None:
    """One side answers most calls, refuses some at once and some after a while."""
    while True:
        call = await wait(within=60, tone=0.0)
        with contextlib.suppress(AssertionError, TimeoutError):
            match dice.randint(0, 9):
                case 0:
                    await call.reject(486)
                case 1:
                    call.ring()
                    await asyncio.sleep(0.3)
                    await call.reject(480)
                case 2 | 3:
                    call.ring()
                    await asyncio.sleep(0.2)
                    await call.answer(wait_for_ack=False)
                case _:
                    call.ring()
                    await call.answer(wait_for_ack=False)
