"""Commands in every state that they do not fit: refused with a status and a word, and nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import pytest

from gateway.calls.audibility import MusicPolicy, SupervisorMode
from gateway.calls.control import CallControl, ControlError
from gateway.errors import MediaUnavailable
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House, until
from tests.calls.matrix import (
    AGENT,
    ANN,
    FOURTH,
    THIRD,
    TONES,
    agent_leg,
    control,
    everybody,
    leg_of,
    only_call,
    three,
    two,
)

PAIR = everybody("agent", "expert")
IN_THE_CONVERSATION = (
    "hold",
    "resume",
    "hold_party",
    "mute",
    "digits",
    "add by",
    "supervise",
    "supervise_mode",
    "consult",
    "transfer",
)
"""Commands for those who talk."""
Refusals = Mapping[str, str]
"""Command -> "status reason"."""


def commands(c: CallControl, call: str, leg: str, other: str) -> dict[str, Awaitable[object]]:
    """Every command but `place`, on `call` and `leg`; `other` is another leg."""
    return {
        "show": _show(c, call),
        "hang_up leg": c.hang_up(call, leg),
        "answer": c.answer(call, leg),
        "set_music": c.set_music(call, MusicPolicy.ALONE),
        "hold": c.hold(call, leg),
        "resume": c.resume(call, leg),
        "hold_party": c.hold_party(call, leg, other),
        "resume_party": c.resume_party(call, leg, other),
        "mute": c.mute(call, leg, True),
        "digits": c.digits(call, leg, "1"),
        "remove": c.remove(call, leg),
        "add": c.add(call, FOURTH),
        "add by": c.add(call, FOURTH, by=leg),
        "supervise": c.supervise(call, leg, FOURTH, SupervisorMode.LISTEN),
        "supervise_mode": c.supervise_mode(call, leg, SupervisorMode.BARGE),
        "consult": c.consult(call, leg, FOURTH),
        "merge": c.merge(call),
        "back": c.back(call),
        "complete_transfer": c.complete_transfer(call),
        "transfer": c.transfer(call, leg, FOURTH),
    }


async def _show(c: CallControl, call: str) -> None:
    c.show(call)


async def refused(
    h: House, wanted: Refusals, call: str, leg: str, other: str, *, all_of_them: bool = False
) -> None:
    """These commands are refused as said; the calls look the same afterwards, and nothing was recorded.

    all_of_them: the table has to name every command
    """
    c = control(h)
    made = commands(c, call, leg, other)
    assert not all_of_them or made.keys() == wanted.keys()
    for name, command in made.items():
        if name not in wanted:
            command.close()  # type: ignore[attr-defined]
            continue
        before, events = c.calls(), list(h.events)
        with pytest.raises(ControlError) as raised:
            await command
        said = raised.value
        assert f"{said.status} {said.reason}" == wanted[name], f"{name}: {said}"
        assert said.text
        assert (c.calls(), h.events) == (before, events), f"{name} was refused and changed something"


async def settled(h: House) -> None:
    """What has been noticed so far has been dealt with: a command waits for its turn behind it."""
    for view in control(h).calls():
        await control(h).set_music(view.id, view.music)


async def rings(h: House, number: str) -> None:
    """The party of that number is known to ring."""

    def ringing() -> bool:
        return any(
            leg.number == number and leg.state == "ringing" for v in control(h).calls() for leg in v.legs
        )

    await until(ringing, f"ringing of {number}")
    await settled(h)


def every(word: str, **others: str) -> dict[str, str]:
    made = commands(_NONE, "", "", "")
    for command in made.values():
        command.close()  # type: ignore[attr-defined]
    return dict.fromkeys(made, word) | {name.replace("__", " "): said for name, said in others.items()}


_NONE = CallControl.__new__(CallControl)


async def test_of_a_call_or_a_participant_that_is_not_there(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        await settled(h)
        view = only_call(h)
        mine = agent_leg(h)
        await refused(h, every("404 unknown_call"), "nothing", mine, mine, all_of_them=True)
        nobody = every("404 unknown_leg")
        for of_the_call in ("show", "set_music", "add", "merge", "back", "complete_transfer"):
            del nobody[of_the_call]
        await refused(h, nobody, view.id, "nobody", mine)
        await refused(
            h,
            {
                "answer": "409 wrong_state",
                "supervise_mode": "409 no_supervisor",
                "merge": "409 no_consultation",
                "back": "409 no_consultation",
                "complete_transfer": "409 no_consultation",
                "hold_party": "422 own_leg",
                "resume_party": "422 own_leg",
            },
            view.id,
            mine,
            mine,
        )
        c = control(h)
        for attempt, said in (
            (c.add(view.id, EXPERT), "409 already_there"),
            (c.supervise(view.id, mine, EXPERT, SupervisorMode.LISTEN), "409 already_there"),
            (c.add(view.id, "<sip:x>"), "422 bad_number"),
            (c.consult(view.id, mine, ""), "422 bad_number"),
            (c.transfer(view.id, mine, FOURTH, trunk="none"), "422 no_way"),
            (c.consult(view.id, mine, FOURTH, trunk="none"), "422 no_way"),
            (c.digits(view.id, mine, "12x"), "422 bad_digits"),
            (c.digits(view.id, mine, ""), "422 bad_digits"),
            (c.place(agent="nobody", number=EXPERT), "404 unknown_agent"),
        ):
            before, events = c.calls(), list(h.events)
            with pytest.raises(ControlError) as raised:
                await attempt
            assert f"{raised.value.status} {raised.value.reason}" == said
            assert (c.calls(), h.events) == (before, events)
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        await refused(h, every("404 unknown_call"), view.id, mine, mine, all_of_them=True)


async def test_while_nobody_has_answered(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, extra=ANN, rooms=rooms) as h:
        agent = await h.center.call(EXPERT)
        expert = await h.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        await rings(h, EXPERT)
        view = only_call(h)
        caller, callee = (leg.id for leg in view.legs)
        both = {
            "answer": "409 wrong_state",
            "hold": "409 wrong_state",
            "resume": "409 wrong_state",
            "hold_party": "409 wrong_state",
            "resume_party": "409 wrong_state",
            "mute": "409 wrong_state",
            "digits": "409 wrong_state",
            "add": "409 wrong_state",
            "add by": "409 wrong_state",
            "supervise": "409 wrong_state",
            "supervise_mode": "409 wrong_state",
            "consult": "409 wrong_state",
            "merge": "409 no_consultation",
            "back": "409 no_consultation",
            "complete_transfer": "409 no_consultation",
            "transfer": "409 wrong_state",
        }
        await refused(h, both, view.id, caller, callee)
        await refused(h, both | {"answer": "409 not_answerable"}, view.id, callee, caller)
        await expert.answer()
        await agent.answered()
        await agent.bye()
        await expert.expect_end()


async def test_in_a_consultation(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        await settled(h)
        held = only_call(h)
        mine, other = agent_leg(h), leg_of(held, "teams_expert").id
        aside = await control(h).consult(held.id, mine, THIRD)
        third = await h.teams.expect_invite(tone=TONES["third"])
        third.ring()
        await rings(h, THIRD)
        away = "409 in_consultation"
        of_the_held = {
            "hang_up leg": away,
            "answer": away,
            "hold": away,
            "resume": away,
            "hold_party": away,
            "mute": away,
            "digits": away,
            "remove": away,
            "add by": away,
            "supervise": away,
            "supervise_mode": away,
            "consult": away,
            "merge": "409 not_answered",
            "transfer": away,
        }
        await refused(h, of_the_held, held.id, mine, other)
        asked = leg_of(control(h).show(aside.id), THIRD).id
        setup = {
            "answer": "409 not_answerable",
            "add": "409 wrong_state",
            "mute": "409 wrong_state",
            "consult": "409 wrong_state",
            "transfer": "409 wrong_state",
            "merge": "409 not_answered",
        }
        await refused(h, setup, aside.id, asked, mine)
        # the one who waits is no agent: he has nobody to consult as long as the agent does
        await refused(h, {"consult": "409 consultation_open"}, held.id, other, mine)
        await third.answer()
        stage.add("third", third)
        await stage.hear({"agent": {"third"}, "third": {"agent"}, "expert": {"music"}})
        await settled(h)
        del of_the_held["merge"]
        await refused(h, of_the_held, held.id, mine, other)
        await refused(h, {"transfer": "409 failed"}, aside.id, mine, asked)
        await stage.hear({"agent": {"third"}, "third": {"agent"}, "expert": {"music"}})
        await control(h).back(held.id)
        await third.expect_end()
        await agent.bye()
        await expert.expect_end()


async def test_of_one_who_is_being_called_into_a_conference(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        await settled(h)
        view = only_call(h)
        await control(h).add(view.id, THIRD)
        third = await h.teams.expect_invite()
        third.ring()
        await rings(h, THIRD)
        asked = leg_of(only_call(h), THIRD).id
        wrong = dict.fromkeys(
            [
                "hold",
                "resume",
                "hold_party",
                "resume_party",
                "mute",
                "digits",
                "add by",
                "supervise",
                "supervise_mode",
                "consult",
                "transfer",
            ],
            "409 wrong_state",
        )
        await refused(h, wrong | {"answer": "409 not_answerable"}, view.id, asked, agent_leg(h))
        await third.decline(486)
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_a_participant_twice_by_whatever_verb(house: OpenHouse, rooms: RoomPool) -> None:
    """One in the held call could be consulted, and was in it twice after the merge; a transfer to the one
    who waits rang somebody who was talking already.
    """
    async with house(center_extra=AGENT, extra=ANN, rooms=rooms) as h:
        c = control(h)
        stage, agent, expert, third = await three(h)
        await settled(h)
        view, mine = only_call(h), agent_leg(h)
        aside = await c.consult(view.id, mine, FOURTH, digits="16,2")
        fourth = await h.teams.expect_invite(tone=TONES["fourth"])
        await fourth.answer()
        stage.add("fourth", fourth)
        await stage.hear({"agent": {"fourth"}, "fourth": {"agent"}, "expert": {"third", "music"}})
        await settled(h)
        other = leg_of(view, "teams_expert").id
        listen = SupervisorMode.LISTEN
        for attempt in (
            c.add(view.id, FOURTH, digits="162"),
            c.add(view.id, THIRD),
            c.add(view.id, CUSTOMER),
            c.add(aside.id, THIRD),
            c.supervise(aside.id, mine, EXPERT, listen),
            c.consult(aside.id, mine, THIRD),
            c.consult(aside.id, mine, FOURTH, digits="1,62"),
            c.transfer(view.id, other, THIRD, trunk="teams"),
            c.transfer(view.id, other, FOURTH, trunk="teams", digits="162"),
            c.place(agent="ann", number=CUSTOMER),
        ):
            before, events = c.calls(), list(h.events)
            with pytest.raises(ControlError) as raised:
                await attempt
            assert f"{raised.value.status} {raised.value.reason}" == "409 already_there"
            assert (c.calls(), h.events) == (before, events)
        # another one behind the same attendant is another one
        await c.add(aside.id, FOURTH, digits="163")
        fifth = await h.teams.expect_invite(tone=0.0)
        await fifth.decline(486)
        await until(lambda: len(c.show(aside.id).legs) == 2, "fifth to be gone")
        await stage.hear({"agent": {"fourth"}, "fourth": {"agent"}, "expert": {"third", "music"}})
        await c.hang_up(view.id)
        await c.hang_up(aside.id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third, fourth)))


async def test_without_rooms(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        await settled(h)
        view = only_call(h)
        mine, other = agent_leg(h), leg_of(view, "teams_expert").id
        none = dict.fromkeys(("mute", "add", "add by", "supervise"), "409 no_rooms")
        await refused(h, none, view.id, mine, other)
        await stage.hear(PAIR)
        await control(h).hold(view.id, mine)
        await refused(h, none, view.id, mine, other)
        await control(h).resume(view.id, mine)
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_while_no_room_can_be_had(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun is taken back: the call is as it was, and so are those who hear each other."""

    async def acquire(*_: object) -> None:
        raise MediaUnavailable("no room process could be started")

    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        await settled(h)
        view, mine = only_call(h), agent_leg(h)
        monkeypatch.setattr(rooms, "acquire", acquire)
        with pytest.raises(ControlError) as raised:
            await control(h).mute(view.id, mine, True)
        assert (raised.value.status, raised.value.reason) == (409, "failed")
        assert only_call(h) == view
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_while_a_transfer_is_under_way(house: OpenHouse, rooms: RoomPool) -> None:
    """The transferor is away, and so he can do nothing but hang up; the one who waits cannot transfer."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        _, agent, expert, third = await three(h)
        await settled(h)
        view, mine = only_call(h), agent_leg(h)
        await control(h).transfer(view.id, mine, FOURTH)
        fourth = await h.teams.expect_invite()
        fourth.ring()
        await rings(h, FOURTH)
        wrong = dict.fromkeys(
            [
                "hold",
                "resume",
                "hold_party",
                "mute",
                "digits",
                "add by",
                "supervise",
                "supervise_mode",
                "consult",
                "transfer",
                "answer",
            ],
            "409 wrong_state",
        )
        other = leg_of(view, "teams_expert").id
        await refused(h, wrong, view.id, mine, other)
        await refused(h, {"transfer": "409 already_there"}, view.id, other, mine)
        with pytest.raises(ControlError, match="409 failed"):
            await control(h).transfer(view.id, other, "+15551230005", trunk="teams")
        await fourth.decline(486)
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third)))
