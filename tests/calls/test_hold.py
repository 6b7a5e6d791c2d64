"""Hold in a call of two: who hears music, whoever holds and however he says so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.calls.audibility import MusicPolicy
from gateway.calls.control import ControlError
from gateway.clock import LoopClock
from tests.calls.conftest import OpenHouse
from tests.calls.matrix import AGENT, agent_leg, control, everybody, kinds, leg_of, only_call, two

BOTH = everybody("agent", "expert")


async def test_teams_holds_and_it_is_no_hold_time(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        assert b"a=inactive" in (await expert.hold()).sdp()
        await stage.hear({"agent": {"music"}, "expert": set()})
        assert (await expert.resume()).code == 200
        await stage.hear(BOTH)
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert (row.hold_time, row.hold_count, row.detail["hold_ms"]) == (0, 0, 0)
        assert row.detail["external_hold"]["ms"] >= 200


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_a_clock_that_is_set_during_a_hold_changes_no_number(
    house: OpenHouse, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        assert (await agent.hold()).code == 200
        monkeypatch.setattr(LoopClock, "wall", lambda self: datetime.now(UTC) + timedelta(minutes=minutes))
        await stage.hear({"agent": set(), "expert": {"music"}})
        assert (await agent.resume()).code == 200
        await stage.hear(BOTH)
        await agent.bye()
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert 200 <= row.detail["hold_ms"] < 60_000
        assert 100 <= row.detail["talk_ms"] < 60_000
        assert row.hold_count == 1


async def test_the_same_hold_again_restarts_nothing(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        await agent.hold("sendonly")
        await stage.hear({"agent": set(), "expert": {"music"}})
        since = expert.rtp.now
        await agent.hold("inactive")
        await agent.hold("inactive", "UPDATE")
        await stage.hear({"agent": set(), "expert": {"music"}})
        assert stage.gap("expert", since) < 0.3
        assert kinds(h, "leg_held", "leg_resumed") == ["leg_held"]
        await agent.resume()
        await agent.resume()
        await stage.hear(BOTH)
        assert kinds(h, "leg_held", "leg_resumed") == ["leg_held", "leg_resumed"]
        await agent.bye()
        await expert.expect_end()


@pytest.mark.parametrize("who", ["agent", "expert"])
async def test_the_holder_hangs_up(house: OpenHouse, who: str) -> None:
    async with house(center_extra=AGENT) as h:
        _, agent, expert = await two(h)
        if who == "agent":
            await agent.hold("sendonly")
            await agent.bye()
            await expert.expect_end()
        else:
            await expert.hold()
            await expert.hang_up()
            await agent.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.talk_time + row.hold_time == round(
            (row.end_time - (row.answer_time or row.end_time)).total_seconds()
        )
        assert (row.detail["hold_ms"] > 0) is (who == "agent")


async def test_retrieve_without_hold_and_refresh_change_nothing(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        await agent.resume()
        await agent.refresh("UPDATE")
        await expert.refresh()
        await stage.hear(BOTH)
        assert kinds(h, "leg_held", "leg_resumed") == []
        await agent.bye()
        await expert.expect_end()


async def test_hold_by_command_is_signalled_to_nobody(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        view, leg = only_call(h), agent_leg(h)
        await control(h).hold(view.id, leg)
        await control(h).hold(view.id, leg)
        await stage.hear({"agent": set(), "expert": {"music"}})
        assert leg_of(only_call(h), "agent").holding
        await agent.refresh()
        await stage.hear({"agent": set(), "expert": {"music"}})
        await control(h).resume(view.id, leg)
        await stage.hear(BOTH)
        assert not agent.inbox
        assert not expert.inbox
        assert kinds(h, "leg_held", "leg_resumed") == ["leg_held", "leg_resumed"]
        await agent.bye()
        await expert.expect_end()


async def test_a_hold_of_the_phone_is_not_retrieved_by_command(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        await agent.hold("sendonly")
        with pytest.raises(ControlError) as raised:
            await control(h).resume(only_call(h).id, agent_leg(h))
        assert (raised.value.status, raised.value.reason) == (409, "held_by_phone")
        await stage.hear({"agent": set(), "expert": {"music"}})
        await agent.bye()
        await expert.expect_end()


async def test_one_party_is_put_on_hold_by_command(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        by, of = leg_of(view, "agent").id, leg_of(view, "teams_expert").id
        await control(h).hold_party(view.id, of, by)
        await stage.hear({"agent": set(), "expert": {"music"}})
        await control(h).resume_party(view.id, of, by)
        await stage.hear(BOTH)
        assert kinds(h, "leg_held", "leg_resumed") == ["leg_held", "leg_resumed"]
        await agent.bye()
        await expert.expect_end()


async def test_no_music_where_the_policy_says_never_and_per_call(house: OpenHouse) -> None:
    async with house(center_extra=AGENT) as h:
        stage, agent, expert = await two(h)
        view = only_call(h)
        await control(h).set_music(view.id, MusicPolicy.NEVER)
        await agent.hold("sendonly")
        await stage.hear({"agent": set(), "expert": set()})
        await control(h).set_music(view.id, MusicPolicy.ALONE)
        await stage.hear({"agent": set(), "expert": {"music"}})
        await agent.bye()
        await expert.expect_end()


async def test_hold_in_the_moment_of_hanging_up(house: OpenHouse) -> None:
    """The hold and the other side's BYE cross: nothing is left, and the records are whole."""
    async with house(center_extra=AGENT) as h:
        _, agent, expert = await two(h)
        await asyncio.gather(agent.hold("sendonly"), expert.hang_up())
        await agent.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert not row.detail.get("incomplete")
