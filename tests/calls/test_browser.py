"""Agents at their page: whole calls with aiortc as the browser, over the WebSocket of the API."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import pytest

from gateway.api.phone_routes import REPLACED, PhoneRoutes
from gateway.events import LegAnswered
from gateway.phone.agent_page import AgentPage
from media.pool import RoomPool
from media.webrtc import WebRtcPhone, tone
from tests.api.site import READER, TOKEN, Site, open_site
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, MUSIC_HZ, House, until
from tests.calls.matrix import control, only_call
from tests.peers.tone import hears

BROWSER_HZ, EXPERT_HZ, CENTER_HZ = 600.0, 700.0, 440.0
NUMBER = "+4930123601"
ANNA = f"""
[[agent]]
login = "anna"
numbers = ["{NUMBER}"]

[agent_states]
page_grace = 1.5
"""


@dataclass
class Desk:
    house: House
    site: Site
    page: Callable[[], AgentPage]


@contextlib.asynccontextmanager
async def desk(house: OpenHouse, **more: object) -> AsyncIterator[Desk]:
    """A house with an HTTP side; `page()` makes a page of anna, ended with the test."""
    async with house(extra=ANNA, **more) as h:
        routes = PhoneRoutes(h.gateway.context.phones, readers=["board"])
        async with open_site(routes.operation(), stopping=[routes.close]) as site:
            pages: list[AgentPage] = []

            def page() -> AgentPage:
                url = site.url("/api/v1/phone?login=anna")
                pages.append(AgentPage(site.session, url, WebRtcPhone(tone(BROWSER_HZ)), TOKEN))
                return pages[-1]

            try:
                yield Desk(h, site, page)
            finally:
                for one in pages:
                    await one.close()


async def page_hears(page: AgentPage, *wanted: float, not_: float | None = None) -> None:
    deadline = time.monotonic() + 8
    while True:
        pcm = page.phone.pcm(time.monotonic() - 0.25)
        if all(hears(pcm, hz) for hz in wanted) and not (not_ and hears(pcm, not_)):
            return
        assert time.monotonic() < deadline, f"the page does not hear {wanted}"
        await asyncio.sleep(0.05)


async def test_a_call_placed_rings_the_page_and_goes_on_as_any_other(
    house: OpenHouse, rooms: RoomPool
) -> None:
    """Set-up, hold by command, a third party, the end by the page; the row is the agent's."""
    async with desk(house, rooms=rooms) as d:
        h, page = d.house, d.page()
        assert await page.open() == {"type": "welcome", "login": "anna", "ice_servers": [], "calls": []}
        view = await control(h).place(agent="anna", number=EXPERT)
        ring = await page.expect("ring")
        assert (ring["call"], ring["direction"], ring["number"]) == (view.id, "out", EXPERT)
        assert ring["auto_answer"]
        await page.expect("answered")
        expert = await h.teams.expect_invite()
        expert.ring()
        await page_hears(page, 425.0)
        await expert.answer()
        await asyncio.gather(page_hears(page, EXPERT_HZ), expert.rtp.hears(BROWSER_HZ))
        await h.center.expect_no_call(0.05)
        leg = next(one for one in only_call(h).legs if one.login == "anna")
        assert (leg.party, leg.trunk, leg.state, leg.codec) == ("agent", "browser", "up", "PCMA")

        await control(h).hold(view.id, leg.id)
        await expert.rtp.hears(MUSIC_HZ)
        await control(h).resume(view.id, leg.id)
        await asyncio.gather(page_hears(page, EXPERT_HZ), expert.rtp.hears(BROWSER_HZ))

        await control(h).add(view.id, CUSTOMER, trunk="center")
        third = await h.center.expect_call()
        await third.answer()
        await asyncio.gather(page_hears(page, EXPERT_HZ, CENTER_HZ), third.rtp.hears(BROWSER_HZ))
        await third.bye()
        await page_hears(page, EXPERT_HZ, not_=CENTER_HZ)

        await page.say("hangup", leg.id)
        ended = await page.expect("ended")
        assert (ended["reason"], ended["code"]) == ("hangup", 200)
        await expert.expect_end()
        await h.quiet()
        [answered] = [e for e in h.events if isinstance(e, LegAnswered) and e.leg == leg.id]
        assert answered.srtp
        row = h.rows()[0]
        assert (row.caller_login_id, row.connected_to_phone) == ("anna", EXPERT)


async def test_a_reload_in_mid_call_picks_the_call_up_again(house: OpenHouse) -> None:
    async with desk(house) as d:
        h, page = d.house, d.page()
        await page.open()
        expert = await h.teams.invite(NUMBER)
        ring = await page.expect("ring")
        assert (ring["direction"], ring["number"], ring["auto_answer"]) == ("in", NUMBER, False)
        await expert.answered()
        await asyncio.gather(page_hears(page, EXPERT_HZ), expert.rtp.hears(BROWSER_HZ))
        await page.vanish()

        again = d.page()
        [known] = (await again.open())["calls"]
        assert (known["leg"], known["state"], known["direction"]) == (ring["leg"], "up", "in")
        await again.say("again", known["leg"])
        await again.expect("answered")
        since = expert.rtp.now
        await page_hears(again, EXPERT_HZ)
        await until(lambda: expert.rtp.first_heard(BROWSER_HZ, since) is not None, "sound after the reload")
        assert expert.rtp.undecodable == 0
        await expert.hang_up()
        assert (await again.expect("ended"))["leg"] == ring["leg"]


async def test_a_page_that_is_gone_for_good_ends_its_leg(house: OpenHouse) -> None:
    async with desk(house) as d:
        h, page = d.house, d.page()
        await page.open()
        expert = await h.teams.invite(NUMBER)
        await expert.answered()
        await page.expect("answered")
        begun = time.monotonic()
        await page.vanish()
        await expert.expect_end()
        assert time.monotonic() - begun > 1.0
        await h.quiet()
        assert h.rows()[0].reason == "page_gone"


@pytest.mark.parametrize("code", [486, 603])
async def test_the_page_refuses_and_the_caller_hears_why(house: OpenHouse, code: int) -> None:
    async with desk(house) as d:
        page = d.page()
        page.auto = False
        await page.open()
        expert = await d.house.teams.invite(NUMBER)
        ring = await page.expect("ring")
        await page.say("reject", ring["leg"], code=code)
        assert (await expert.outcome()).code == code


async def test_a_caller_gives_up_while_the_page_rings_and_a_page_that_comes_late_still_rings(
    house: OpenHouse,
) -> None:
    async with desk(house) as d:
        page = d.page()
        page.auto = False
        await page.open()
        expert = await d.house.teams.invite(NUMBER)
        await page.expect("offer")
        await page.vanish()
        late = d.page()
        late.auto = False
        assert (await late.open())["calls"][0]["state"] == "ringing"
        ring = await late.expect("ring")
        await expert.cancel()
        assert (await late.expect("ended"))["leg"] == ring["leg"]


async def test_without_a_page_the_agents_number_is_called(house: OpenHouse) -> None:
    async with desk(house) as d:
        expert = await d.house.teams.invite(NUMBER)
        agent = await d.house.center.expect_call()
        await agent.answer()
        await expert.answered()
        await agent.bye()
        await expert.expect_end()


async def test_an_answer_that_cannot_be_used_fails_the_leg_and_nothing_else(house: OpenHouse) -> None:
    async with desk(house) as d:
        page = d.page()
        page.auto = False
        await page.open()
        expert = await d.house.teams.invite(NUMBER)
        ring = await page.expect("ring")
        await page.say("accept", ring["leg"], sdp="v=0\r\n")
        assert (await expert.outcome()).code >= 400
        await page.expect("ended")
        await page.say("hangup", ring["leg"])
        assert (await page.expect("error"))["reason"] == "unknown_leg"


async def test_who_may_have_a_telephone_and_what_it_may_say(house: OpenHouse) -> None:
    async with desk(house) as d:
        for path, headers, status in (
            ("/api/v1/phone?login=anna", {"Authorization": "Bearer wrong"}, 401),
            ("/api/v1/phone?login=anna", READER, 403),
            ("/api/v1/phone", TOKEN, 422),
            ("/api/v1/phone?login=anna", TOKEN, 426),
        ):
            async with d.site.session.get(d.site.url(path), headers=headers) as response:
                assert response.status == status
        first, second = d.page(), d.page()
        await first.open()
        await second.open()
        await first.expect("replaced")
        with pytest.raises(ConnectionError):
            await first.expect("anything more")
        assert first.close_code == REPLACED
        socket = second._socket
        assert isinstance(socket, aiohttp.ClientWebSocketResponse)
        for text in (
            "{",
            "[]",
            '{"type": "dance", "leg": "x"}',
            '{"type": "reject", "leg": "x", "code": 200}',
        ):
            await socket.send_str(text)
            assert (await second.expect("error"))["reason"] == "invalid"
        assert d.house.gateway.context.phones.connected("anna")
