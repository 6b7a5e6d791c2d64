"""Transfers to somebody whose telephone still rings: by REFER and by command, taken, refused, given up."""

from __future__ import annotations

import pytest

from gateway.calls.control import ControlError
from gateway.calls.control_views import CallView
from tests.calls.conftest import OpenHouse
from tests.calls.house import RINGBACK_HZ, House, until
from tests.calls.matrix import (
    AGENT,
    ANN,
    FOURTH,
    THIRD,
    Stage,
    agent_leg,
    control,
    everybody,
    kinds,
    leg_of,
    only_call,
    two,
)
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

PAIR = everybody("agent", "expert")
HZ = 1000.0


async def ringing(h: House) -> tuple[Stage, CenterCall, TeamsCall, CenterCall, TeamsCall]:
    """The agent's telephone holds the call with the expert and hears a third's telephone ring."""
    stage, agent, expert = await two(h)
    stage.tones["ringing"] = RINGBACK_HZ
    agent.rtp.say(1600.0)  # 440 is too near to the ringing
    stage.tones["agent"] = 1600.0
    await agent.hold("sendonly")
    second = await h.center.call(THIRD, tone=0.0)
    third = await h.teams.expect_invite(tone=HZ)
    third.ring()
    second.dialog.confirm(await second.ringing())
    await stage.hear({"expert": {"music"}, "agent": set()})
    return stage, agent, expert, second, third


async def test_refer_to_one_who_rings(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        stage, agent, expert, second, third = await ringing(h)
        assert (await agent.refer("", replaces=second)).code == 202
        assert (await second.outcome()).code == 487
        await stage.hear({"expert": {"ringing"}, "agent": set()})
        assert not third.ended
        await third.answer()
        assert await agent.transferred() == "SIP/2.0 200 OK"
        assert [m.body.decode().split()[1] for m in agent.notifies] == ["100", "180", "200"]
        stage.add("third", third, HZ)
        await stage.hear(everybody("expert", "third") | {"agent": set()})
        await agent.bye()
        await stage.hear(everybody("expert", "third"))
        assert not expert.inbox
        await third.hang_up()
        await expert.expect_end()
        await h.quiet()
        primary, consultation = h.rows()
        assert (primary.disposition, primary.transferred_to_phone) == ("transferred", THIRD)
        assert primary.detail["transfers"][0]["mode"] == "attended"
        assert (consultation.reason, consultation.talk_time) == ("transferred", 0)
        assert consultation.global_interaction_id == primary.global_interaction_id


async def test_refer_to_one_who_rings_and_refuses(house: OpenHouse) -> None:
    """The held call is as it was; so it is when a second REFER comes meanwhile."""
    async with house(center_extra=AGENT, extra=ANN) as h:
        stage, agent, expert, second, third = await ringing(h)
        assert (await agent.refer("", replaces=second)).code == 202
        await stage.hear({"expert": {"ringing"}})
        assert (await agent.refer(FOURTH)).code == 491
        await third.decline(486)
        assert (await agent.transferred()).startswith("SIP/2.0 486")
        await stage.hear({"expert": {"music"}, "agent": set()})
        await agent.resume()
        await stage.hear(PAIR)
        await agent.bye()
        await expert.expect_end()


async def test_refer_to_one_who_rings_and_the_telephone_goes_at_once(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        stage, agent, expert, second, third = await ringing(h)
        assert (await agent.refer("", replaces=second)).code == 202
        await agent.bye()
        await stage.hear({"expert": {"ringing"}})
        await third.answer()
        stage.add("third", third, HZ)
        await stage.hear(everybody("expert", "third"))
        await expert.hang_up()
        await third.expect_end()


@pytest.mark.parametrize("who", ["waiting", "target"])
async def test_refer_to_one_who_rings_and_somebody_has_gone(house: OpenHouse, who: str) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        _, agent, expert, second, third = await ringing(h)
        if who == "waiting":
            assert (await agent.refer("", replaces=second)).code == 202
            await expert.hang_up()
            await agent.expect_end()
            await third.expect_end()
        else:
            await third.decline(480)
            await until(lambda: len(h.gateway.calls.calls) == 1, "the consultation to end")
            assert (await agent.refer("", replaces=second)).code in (481, 603)
            await agent.bye()
            await expert.expect_end()


async def asking(h: House) -> tuple[Stage, CenterCall, TeamsCall, TeamsCall, CallView]:
    """The agent consults by command, and the third's telephone rings."""
    stage, agent, expert = await two(h)
    stage.tones["ringing"] = RINGBACK_HZ
    agent.rtp.say(1600.0)
    stage.tones["agent"] = 1600.0
    aside = await control(h).consult(only_call(h).id, agent_leg(h), THIRD)
    third = await h.teams.expect_invite(tone=HZ)
    third.ring()
    await stage.hear({"agent": {"ringing"}, "expert": {"music"}})
    return stage, agent, expert, third, aside


async def test_a_consultation_that_rings_is_transferred_by_command(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        stage, agent, expert, third, aside = await asking(h)
        await control(h).complete_transfer(aside.id)
        await stage.hear({"agent": set(), "expert": {"ringing"}})
        view = only_call(h)
        assert (view.id, view.consultation) == (aside.consultation_of, None)
        assert leg_of(view, THIRD).state == "ringing"
        with pytest.raises(ControlError) as raised:
            await control(h).complete_transfer(view.id)
        assert raised.value.reason == "no_consultation"
        await third.answer()
        await agent.expect_end()
        stage.add("third", third, HZ)
        await stage.hear(everybody("expert", "third"))
        assert not expert.inbox
        await third.hang_up()
        await expert.expect_end()
        await h.quiet()
        primary, consultation = h.rows()
        assert (primary.disposition, primary.transferred_to_phone) == ("transferred", THIRD)
        assert (consultation.reason, consultation.answer_time) == ("transferred", None)


async def test_the_agent_has_his_held_call_back_when_nobody_answers(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        stage, agent, expert, third, aside = await asking(h)
        await control(h).complete_transfer(aside.id)
        await stage.hear({"expert": {"ringing"}})
        await third.decline(480)
        await stage.hear({"agent": set(), "expert": {"music"}})
        assert leg_of(only_call(h), "agent").holding
        await control(h).resume(only_call(h).id, agent_leg(h))
        await stage.hear(PAIR)
        assert kinds(h, "leg_held", "leg_resumed") == ["leg_held", "leg_resumed"]
        await agent.bye()
        await expert.expect_end()
