"""The tone matrix of every hold, however it is said: sendonly, inactive, 0.0.0.0, by INVITE and by UPDATE."""

from __future__ import annotations

import asyncio
import itertools
from typing import get_args

import pytest

from gateway.calls.audibility import MusicPolicy, SupervisorMode
from gateway.events import LegHeld
from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.matrix import (
    AGENT,
    ANN,
    THIRD,
    TONES,
    Matrix,
    Stage,
    control,
    everybody,
    kinds,
    leg_of,
    only_call,
    three,
    two,
)
from tests.calls.test_supervise import AGENTS, SUPERVISOR
from tests.peers.contact_center_call import CenterCall, Hold, Method
from tests.peers.sipwire_sdp import audio
from tests.peers.teams_call import TeamsCall

HOLDS = [how for how in get_args(Hold) if how in ("sendonly", "inactive", "zero")]
DIALECTS: list[tuple[Hold, Method]] = list(itertools.product(HOLDS, get_args(Method)))


async def teams_holds(expert: TeamsCall, how: Hold, method: Method) -> None:
    """As the agent's telephone does it; Teams itself only ever says inactive, by INVITE."""
    expert.rtp.version += 1
    sdp = expert.offer(how if how != "zero" else "sendrecv")
    if how == "zero":
        sdp = sdp.replace(f"c=IN IP4 {expert.rtp.host}".encode(), b"c=IN IP4 0.0.0.0")
    answer = await expert.reoffer(sdp, method=method)
    assert answer.code == 200
    assert audio(answer.sdp()).direction == "inactive"


async def teams_resumes(expert: TeamsCall, method: Method) -> None:
    expert.rtp.version += 1
    assert (await expert.reoffer(expert.offer(), method=method)).code == 200


async def round_of_holds(
    stage: Stage, agent: CenterCall, expert: TeamsCall, matrices: tuple[Matrix, Matrix, Matrix, Matrix]
) -> None:
    """In each dialect: Teams holds, the agent too, Teams retrieves, the agent retrieves; each is measured."""
    teams, both, only_agent, nobody = matrices
    for how, method in DIALECTS:
        await teams_holds(expert, how, method)
        await stage.hear(teams)
        assert (await agent.hold(how, method)).code == 200
        await stage.hear(both)
        await teams_resumes(expert, method)
        await stage.hear(only_agent)
        assert (await agent.resume(method)).code == 200
        await stage.hear(nobody)


async def test_in_a_call_of_two(house: OpenHouse) -> None:
    """Music belongs to him who remains; when both hold, nobody does."""
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        await round_of_holds(
            stage,
            agent,
            expert,
            (
                {"agent": {"music"}, "expert": set()},
                {"agent": set(), "expert": set()},
                {"agent": set(), "expert": {"music"}},
                everybody("agent", "expert"),
            ),
        )
        assert not expert.inbox, "a local hold was signalled to Teams"
        assert not agent.inbox
        assert kinds(h, "leg_held", "leg_resumed") == [
            *["leg_held", "leg_held", "leg_resumed", "leg_resumed"] * len(DIALECTS)
        ]
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.hold_count == len(DIALECTS)
        assert row.detail["hold_ms"] >= 200 * len(DIALECTS)


async def test_in_a_conference_of_three(house: OpenHouse, rooms: RoomPool) -> None:
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        await round_of_holds(
            stage,
            agent,
            expert,
            (
                {"agent": {"third", "music"}, "expert": set(), "third": {"agent", "music"}},
                {"agent": set(), "expert": set(), "third": {"music"}},
                {"agent": set(), "expert": {"third", "music"}, "third": {"expert", "music"}},
                everybody("agent", "expert", "third"),
            ),
        )
        assert not expert.inbox
        assert not third.inbox
        await control(h).set_music(only_call(h).id, MusicPolicy.ALONE)
        await expert.hold()
        await stage.hear({"agent": {"third"}, "expert": set(), "third": {"agent"}})
        await third.hold()
        await stage.hear({"agent": {"music"}, "expert": set(), "third": set()})
        await expert.resume()
        await third.resume()
        await stage.hear(everybody("agent", "expert", "third"))
        await agent.bye()
        await stage.hear(everybody("expert", "third"))
        await third.hang_up()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.hold_count == len(DIALECTS)
        held = [event.by.value for event in h.events if isinstance(event, LegHeld)]
        assert held[:-2] == ["teams_expert", "agent"] * len(DIALECTS)


@pytest.mark.parametrize(
    ("how", "method"), [("sendonly", "INVITE"), ("inactive", "UPDATE"), ("zero", "INVITE")]
)
async def test_hold_consult_from_the_same_telephone_merge_leave(
    house: OpenHouse, rooms: RoomPool, how: Hold, method: Method
) -> None:
    """The second call inherits the interaction; merge makes one conference, and one leg too many goes."""
    async with house(center_extra=AGENT, extra=ANN, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        await agent.hold(how, method)
        second = await h.center.call(THIRD, tone=TONES["fourth"])
        third = await h.teams.expect_invite(tone=TONES["third"])
        await third.answer()
        await second.answered()
        stage.add("third", third)
        stage.add("second", second, TONES["fourth"])
        await stage.hear({"second": {"third"}, "third": {"second"}, "expert": {"music"}, "agent": set()})
        primary, aside = control(h).calls()
        assert (primary.consultation, aside.consultation_of) == (aside.id, primary.id)
        assert primary.interaction == aside.interaction
        await control(h).merge(primary.id)
        await agent.expect_end()
        await stage.hear(everybody("second", "expert", "third"))
        assert leg_of(only_call(h), "agent").host
        await second.bye()
        await stage.hear(everybody("expert", "third"))
        await expert.hang_up()
        await third.expect_end()
        await h.quiet()
        held, consultation = h.rows()
        assert held.global_interaction_id == consultation.global_interaction_id
        assert consultation.detail["consultation_of"] == held.id
        assert (held.disposition, held.hold_count) == ("conferenced", 1)
        for row in (held, consultation):
            answered = row.detail["answer_ms"]
            assert row.detail["talk_ms"] + row.detail["hold_ms"] == row.detail["end_ms"] - answered


async def test_whispering_while_they_hold(house: OpenHouse, rooms: RoomPool) -> None:
    """The supervisor hears what the conversation hears of it, and no hold of another makes him heard."""
    async with house(center_extra=AGENT, extra=AGENTS, rooms=rooms) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        await control(h).supervise(view.id, leg_of(view, "agent").id, SUPERVISOR, SupervisorMode.WHISPER)
        boss = await h.center.expect_call(tone=TONES["fourth"])
        await boss.answer()
        stage.add("boss", boss, TONES["fourth"])
        everyone = {"agent": {"expert", "boss"}, "expert": {"agent"}, "boss": {"agent", "expert"}}
        await stage.hear(everyone)
        await expert.hold()
        await stage.hear({"agent": {"boss", "music"}, "expert": set(), "boss": {"agent"}})
        await agent.hold("inactive", "UPDATE")
        await stage.hear({"agent": set(), "expert": set(), "boss": set()})
        await expert.resume()
        await stage.hear({"agent": set(), "expert": {"music"}, "boss": {"expert"}})
        await agent.resume()
        await boss.hold("zero", "UPDATE")
        await stage.hear({"agent": {"expert"}, "expert": {"agent"}, "boss": set()})
        await boss.resume()
        await stage.hear(everyone)
        await control(h).hang_up(view.id)
        await asyncio.gather(agent.expect_end(), expert.expect_end(), boss.expect_end())
