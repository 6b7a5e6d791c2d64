"""An expert without a phone licence: the Teams attendant is called, and told by digits whom it is for."""

from __future__ import annotations

import pytest

from gateway.calls.control import ControlError
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import House
from tests.calls.matrix import (
    AGENT,
    ANN,
    THIRD,
    TONES,
    Stage,
    agent_leg,
    control,
    everybody,
    only_call,
    two,
)
from tests.peers.teams_call import TeamsCall

ATTENDANT = THIRD
DIGITS = "16293#"


async def answers(h: House) -> TeamsCall:
    """The attendant rings, is told nothing, answers, and is told then."""
    attendant = await h.teams.expect_invite(tone=TONES["third"])
    attendant.ring()
    assert not attendant.rtp.digits
    await attendant.answer()
    digits = await attendant.rtp.hears_digits(DIGITS)
    assert all(40 <= one.ms <= 500 for one in digits), digits
    return attendant


async def test_a_call_is_placed_through_the_attendant(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        await control(h).place(agent="ann", number=ATTENDANT, digits=f",{DIGITS}")
        agent = await h.center.expect_call()
        await agent.answer()
        attendant = await answers(h)
        stage = Stage(h)
        stage.add("agent", agent)
        stage.add("third", attendant)
        await stage.hear(everybody("agent", "third"))
        assert not agent.rtp.digits
        await attendant.hang_up()
        await agent.expect_end()


async def test_an_attendant_is_consulted(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        _, agent, expert = await two(h)
        await control(h).consult(only_call(h).id, agent_leg(h), ATTENDANT, digits=DIGITS)
        attendant = await answers(h)
        assert not agent.rtp.digits
        assert not expert.rtp.digits
        await attendant.hang_up()
        await agent.bye()
        await expert.expect_end()


async def test_an_attendant_is_called_into_a_conference(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        await control(h).add(only_call(h).id, ATTENDANT, digits=DIGITS)
        attendant = await answers(h)
        stage.add("third", attendant)
        await stage.hear(everybody("agent", "expert", "third"))
        assert not agent.rtp.digits
        assert not expert.rtp.digits
        # A second expert behind the same number is somebody else.
        await control(h).add(only_call(h).id, ATTENDANT, digits="99#")
        second = await h.teams.expect_invite(tone=TONES["fourth"])
        await second.answer()
        await second.rtp.hears_digits("99#")
        assert len(attendant.rtp.digits) == len(DIGITS)
        for one in (attendant, second, expert):
            await one.hang_up()
        await agent.expect_end()


async def test_a_call_is_transferred_to_an_attendant(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        await control(h).transfer(only_call(h).id, agent_leg(h), ATTENDANT, digits=DIGITS)
        attendant = await answers(h)
        await agent.expect_end()
        stage.add("third", attendant)
        await stage.hear(everybody("expert", "third"))
        await expert.hang_up()
        await attendant.expect_end()


async def test_an_attendant_that_does_not_answer_is_told_nothing(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        commands = control(h)
        with pytest.raises(ControlError) as raised:
            await commands.transfer(only_call(h).id, agent_leg(h), ATTENDANT, digits="12;3")
        assert raised.value.reason == "bad_digits"
        await commands.transfer(only_call(h).id, agent_leg(h), ATTENDANT, digits=DIGITS)
        attendant = await h.teams.expect_invite()
        await attendant.decline(486)
        await stage.hear(everybody("agent", "expert"))
        assert commands._after._waiting == {}
        await agent.bye()
        await expert.expect_end()
