"""An agent at his page in mid-call: restart and kill -9 of the gateway, while rtpengine goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.phone.agent_page import AgentPage
from gateway.state_dir import read_note
from media.webrtc import WebRtcPhone, tone
from tests.peers.certs import Pki
from tests.peers.teams_call import TeamsCall
from tests.peers.tone import hears
from tests.restart.plant import MUSIC_HZ, Plant, gap, open_plant
from tests.restart.test_restart_in_place import HOW, refreshed

BROWSER_HZ, EXPERT_HZ = 600.0, 700.0
NUMBER = "+4930123601"
ANNA = f"""
[[agent]]
login = "anna"
numbers = ["{NUMBER}"]

[agent_states]
page_grace = {{grace}}
"""


@dataclass
class Browser:
    """Keeps its telephone over the death of its socket, as a page does."""

    plant: Plant
    http: aiohttp.ClientSession
    phone: WebRtcPhone = field(default_factory=lambda: WebRtcPhone(tone(BROWSER_HZ)))
    page: AgentPage | None = None

    async def connect(self) -> dict[str, Any]:
        """A new socket; the gateway's welcome."""
        note = read_note(self.plant.state)
        assert note is not None
        url = f"http://{note.host}:{note.port}/api/v1/phone?login=anna"
        headers = {"Authorization": f"Bearer {note.token}"}
        self.page = AgentPage(self.http, url, self.phone, headers)
        return await self.page.open()

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A request of the control API, below /api/v1/calls."""
        note = read_note(self.plant.state)
        assert note is not None
        url, headers = f"http://{note.host}:{note.port}", {"Authorization": f"Bearer {note.token}"}
        async with self.http.request(
            method, f"{url}/api/v1/calls{path}", json=body, headers=headers
        ) as answer:
            assert answer.ok, await answer.text()
            return await answer.json() if answer.content_type.endswith("json") else None

    async def reload(self) -> None:
        assert self.page is not None
        await self.page.vanish()

    async def hears(self, hz: float, within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while not hears(self.phone.pcm(time.monotonic() - 0.25), hz):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def gap(self, since: float) -> float:
        """The longest time without sound since then."""
        times = [since, *(at for at, _ in self.phone.heard if at > since), time.monotonic()]
        return max(later - sooner for sooner, later in itertools.pairwise(times))


@contextlib.asynccontextmanager
async def open_desk(pki: Pki, folder: Path, grace: float = 30.0) -> AsyncIterator[tuple[Plant, Browser]]:
    async with (
        open_plant(pki, folder, center_extra='party = "agent"', extra=ANNA.format(grace=grace)) as plant,
        aiohttp.ClientSession() as http,
    ):
        browser = Browser(plant, http)
        try:
            yield plant, browser
        finally:
            if browser.page is not None:
                await browser.page.close()


async def talking(plant: Plant, browser: Browser) -> tuple[TeamsCall, str]:
    """An expert calls, the page answers: his call, and the page's leg."""
    assert (await browser.connect())["calls"] == []
    assert browser.page is not None
    expert = await plant.teams.invite(NUMBER)
    ring = await browser.page.expect("ring")
    await expert.answered()
    await both_hear(browser, expert)
    return expert, str(ring["leg"])


async def both_hear(browser: Browser, expert: TeamsCall) -> None:
    await asyncio.gather(browser.hears(EXPERT_HZ), expert.rtp.hears(BROWSER_HZ))


async def test_the_sound_goes_on_and_the_page_keeps_its_connection(pki: Pki, tmp_path: Path) -> None:
    async with open_desk(pki, tmp_path) as (plant, browser):
        expert, leg = await talking(plant, browser)
        connection = browser.phone.pc
        for how in HOW.values():
            begun, begun_here = expert.rtp.now, time.monotonic()
            await how(plant)
            [known] = (await browser.connect())["calls"]
            assert (known["leg"], known["state"], known["number"]) == (leg, "up", NUMBER)
            await both_hear(browser, expert)
            assert max(gap(expert.rtp, begun), browser.gap(begun_here)) < 1.0
            assert browser.phone.pc is connection
            await refreshed(expert)
        # the new gateway commands the leg as the old one did
        await expert.hold()
        await browser.hears(MUSIC_HZ)
        await expert.resume()
        await both_hear(browser, expert)
        assert browser.page is not None
        await browser.page.say("hangup", leg)
        assert (await browser.page.expect("ended"))["leg"] == leg
        await expert.expect_end()
        [row] = await plant.all_rows(1)
        assert (row["callee_login_id"], row["sip_code"]) == ("anna", 200)


async def test_a_conference_and_a_hold_by_command_and_a_death_of_rtpengine_too(
    pki: Pki, tmp_path: Path
) -> None:
    async with open_desk(pki, tmp_path) as (plant, browser):
        expert, leg = await talking(plant, browser)
        [call] = (await browser.ask("GET", ""))["calls"]
        adding = asyncio.create_task(
            browser.ask("POST", f"/{call['id']}/legs", {"number": "+493055501", "trunk": "center"})
        )
        third = await plant.center.expect_call()
        await third.answer()
        await adding

        async def all_hear() -> None:
            await asyncio.gather(
                both_hear(browser, expert), browser.hears(440.0), third.rtp.hears(BROWSER_HZ)
            )

        await all_hear()
        await browser.ask("PATCH", f"/{call['id']}/legs/{leg}", {"holding": True})
        # at once: the journal has the hold, the record perhaps not
        await plant.kill_and_start()
        await browser.connect()
        await browser.ask("PATCH", f"/{call['id']}/legs/{leg}", {"holding": False})
        await all_hear()

        await plant.kill()
        plant.kill_engine()
        await plant.start()
        await browser.connect()
        assert browser.page is not None
        # DTLS has died with rtpengine: the page is offered a new connection without asking
        await browser.page.expect("offer", 20)
        await all_hear()
        await third.bye()
        await both_hear(browser, expert)
        await expert.hang_up()
        await browser.page.expect("ended")
        await plant.all_rows(1)


async def test_a_page_that_needs_a_new_connection_meanwhile_gets_it(pki: Pki, tmp_path: Path) -> None:
    async with open_desk(pki, tmp_path) as (plant, browser):
        expert, leg = await talking(plant, browser)
        await plant.kill()
        await browser.reload()
        await plant.start()
        [known] = (await browser.connect())["calls"]
        assert browser.page is not None
        for _ in range(3):
            await browser.page.say("again", known["leg"])
        await browser.page.expect("answered")
        await both_hear(browser, expert)

        # killed while it is made: the record has no media of the leg, and the next gateway makes it anew
        await browser.reload()
        [known] = (await browser.connect())["calls"]
        browser.page.auto = False
        await browser.page.say("again", known["leg"])
        await browser.page.expect("offer")
        await plant.kill_and_start()
        [known] = (await browser.connect())["calls"]
        assert known["leg"] == leg
        await both_hear(browser, expert)
        await expert.hang_up()
        assert (await browser.page.expect("ended"))["leg"] == leg
        await plant.all_rows(1)


async def test_a_page_that_does_not_come_back_ends_the_call(pki: Pki, tmp_path: Path) -> None:
    async with open_desk(pki, tmp_path, grace=1.0) as (plant, browser):
        expert, _ = await talking(plant, browser)
        await plant.kill()
        await browser.reload()
        await plant.start()
        await expert.expect_end()
        [row] = await plant.all_rows(1)
        assert row["reason"] == "page_gone"
