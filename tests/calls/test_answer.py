"""A telephone that rings is answered by command: by NOTIFY with Event: talk, a browser at its page."""

from __future__ import annotations

import asyncio

import pytest

from gateway.calls.control import ControlError
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House, until
from tests.calls.matrix import AGENT, ANN, Stage, control, everybody, leg_of, only_call
from tests.calls.test_browser import BROWSER_HZ, EXPERT_HZ, NUMBER, desk, page_hears
from tests.peers.contact_center_call import CenterCall
from tests.peers.sipwire_ua import ServerTx
from tests.peers.teams_call import TeamsCall

TALK = [("Allow-Events", "conference, Talk,hold")]


def by_event(call: CenterCall, code: int = 200) -> list[str]:
    """The telephone answers when it is told to; what it was told."""
    told: list[str] = []

    def notified(transaction: ServerTx) -> None:
        request = transaction.request
        told.append(f"{request.get('Event')} {request.get('Subscription-State')} {len(request.body)}")
        transaction.respond(code)
        if code == 200:
            answering.append(asyncio.ensure_future(call.answer()))

    answering: list[asyncio.Future[None]] = []
    call.auto["NOTIFY"] = notified
    return told


async def ringing(h: House, headers: list[tuple[str, str]]) -> tuple[TeamsCall, CenterCall, str, str]:
    """Teams calls the agent, whose telephone rings: both, the call and the agent's leg."""
    expert = await h.teams.invite(CUSTOMER)
    agent = await h.center.expect_call()
    agent.ring(headers=headers)
    await expert.ringing()
    view = only_call(h)
    return expert, agent, view.id, leg_of(view, "agent").id


async def refused(h: House, call: str, leg: str) -> tuple[int, str]:
    # What rings is told before the disk has it.
    await until(lambda: len(h.events) == h.journal.last_seq, "the disk to have all")
    before, events = only_call(h), h.journal.last_seq
    with pytest.raises(ControlError) as raised:
        await control(h).answer(call, leg)
    assert (only_call(h), h.journal.last_seq) == (before, events)
    assert raised.value.text
    return raised.value.status, raised.value.reason


async def test_a_telephone_that_lists_talk_is_answered_by_command(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        expert, agent, call, leg = await ringing(h, TALK)
        told = by_event(agent)
        assert [one.answerable for one in only_call(h).legs] == [False, True]
        caller = next(one.id for one in only_call(h).legs if one.id != leg)
        assert await refused(h, call, caller) == (409, "wrong_state")
        await control(h).answer(call, leg)
        await expert.answered()
        assert told == ["talk active 0"]
        stage = Stage(h)
        stage.add("agent", agent)
        stage.add("expert", expert)
        await stage.hear(everybody("agent", "expert"))
        assert await refused(h, call, leg) == (409, "wrong_state")
        assert told == ["talk active 0"]
        await agent.bye()
        await expert.expect_end()


async def test_a_telephone_that_does_not_is_not_asked(house: OpenHouse) -> None:
    async with house(center_extra=AGENT, extra=ANN) as h:
        expert, agent, call, leg = await ringing(h, [("Allow-Events", "hold, refer")])
        told = by_event(agent)
        assert await refused(h, call, leg) == (409, "not_answerable")
        assert told == []
        await agent.answer()
        await expert.answered()
        await agent.bye()
        await expert.expect_end()


async def test_behind_a_pbx_that_hides_it_the_configuration_says_so(house: OpenHouse) -> None:
    """A call placed: the agent's own telephone is the first that rings. One that refuses rings on."""
    async with house(center_extra=f'{AGENT}\ntalk_event = "always"', extra=ANN) as h:
        view = await control(h).place(agent="ann", number=EXPERT)
        agent = await h.center.expect_call()
        leg = leg_of(only_call(h), "agent").id
        assert await refused(h, view.id, leg) == (409, "wrong_state"), "it does not ring yet"
        agent.ring()
        told = by_event(agent, 489)
        await asyncio.sleep(0.05)
        assert await refused(h, view.id, leg) == (409, "not_answerable")
        by_event(agent)
        await control(h).answer(view.id, leg)
        expert = await h.teams.expect_invite()
        assert len(told) == 1
        await expert.answer()
        await expert.rtp.hears(440)
        await expert.hang_up()
        await agent.expect_end()


async def test_the_page_answers_by_itself_unless_it_is_away(house: OpenHouse) -> None:
    async with desk(house) as d:
        h, gone = d.house, d.page()
        gone.auto = False
        await gone.open()
        expert = await h.teams.invite(NUMBER)
        ring = await gone.expect("ring")
        await gone.vanish()
        await until(lambda: not h.gateway.context.phones.connected("anna"), "the page to be gone")
        assert await refused(h, ring["call"], ring["leg"]) == (409, "not_answerable")
        page = d.page()
        page.auto = False
        await page.open()
        assert not (await page.expect("ring"))["auto_answer"]
        offer = await page.expect("offer")
        await control(h).answer(ring["call"], ring["leg"])
        assert (await page.expect("answer"))["leg"] == ring["leg"]
        await page.take(offer)
        await expert.answered()
        await asyncio.gather(page_hears(page, EXPERT_HZ), expert.rtp.hears(BROWSER_HZ))
        await expert.hang_up()
        await page.expect("ended")
