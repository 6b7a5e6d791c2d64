"""A whole gateway with its stand-ins, and headless Chromium at its desktop.

The customer calls over the trunk `carrier`; agents' telephones are behind `phones`; experts are in Teams.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import BrowserContext, Page, expect

from gateway.agents.people import UserRole
from gateway.assembly import Gateway, assemble, prepare_sounds
from gateway.config import load
from gateway.state_dir import StateDir
from tests.browser.chromium import Browsers
from tests.browser.relay import MediaRelay, Relay
from tests.calls.house import configuration, tone_file
from tests.peers.certs import Pki
from tests.peers.contact_center import ContactCenter
from tests.peers.teams import Teams
from tests.support import ports
from tests.support.waiting import until

PASSWORD = "correct horse battery"
CUSTOMER = "+493055501"
EXPERT = "+15551230000"
ANNA, BERT, BOSS = "+49301112201", "+49301112202", "+49301112203"
DESKTOP, PHONE = (1280, 800), (390, 844)
CUSTOMER_HZ, ANNA_HZ, EXPERT_HZ, BERT_HZ, SECOND_HZ = 480.0, 620.0, 780.0, 1010.0, 1650.0
"""What each party says; the music is MUSIC_HZ. No one is a harmonic of another."""
SCRIPT = Path(__file__).with_name("page.js")
"""What a test adds to a page before it loads."""

AGENTS = """
[[agent]]
login = "anna"
name = "Anna Example"
team = "Service"
numbers = ["+49301112201"]

[[agent]]
login = "bert"
name = "Bert Example"
team = "Service"
numbers = ["+49301112202"]
after_call_work = 300.0

[http]
listen = "127.0.0.1:0"

[[trunk]]
name = "carrier"
peers = ["{carrier}"]

[[route]]
from = "carrier"
to = "center"

[[route]]
from = "center"
number = '\\+4930111\\d+'
to = "center"

[[route]]
from = "center"
number = '\\+493055\\d+'
to = "carrier"
"""


@dataclass
class Site:
    """Pages go through `relay`, and through `media` where they ask for it, so that the network can be cut."""

    gateway: Gateway
    carrier: ContactCenter
    phones: ContactCenter
    teams: Teams
    relay: Relay
    browsers: Browsers
    media: MediaRelay = field(default_factory=MediaRelay)
    contexts: list[BrowserContext] = field(default_factory=list)

    async def page(
        self,
        login: str = "",
        size: tuple[int, int] = DESKTOP,
        *,
        dark: bool = False,
        hz: float = ANNA_HZ,
        relayed: bool = False,
    ) -> Page:
        """A page of its own at the desktop, signed in as `login`; nothing may fail in it.

        hz: the tone that its microphone hears; relayed: its media goes through `media`
        """
        browser = await self.browsers.speaking(hz)
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            ignore_https_errors=True,
        )
        context.set_default_timeout(10_000)
        await context.add_init_script(path=SCRIPT)
        if relayed:
            await context.expose_function("via", self.media.via)
        self.contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.failures.append(str(error)))
        await page.goto(self.relay.base + "/")
        if login:
            await sign_in(page, login)
        return page

    failures: list[str] = field(default_factory=list)
    """Exceptions of all pages."""


async def sign_in(page: Page, login: str) -> None:
    await page.get_by_label("Login").fill(login)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()


@contextlib.asynccontextmanager
async def open_site(
    folder: Path, pki: Pki, browsers: Browsers, *, adjust: Callable[[str], str] = str
) -> AsyncIterator[Site]:
    """At the end no call, process or page is left. adjust: the configuration's text as it is to be."""
    media = ports.free_udp_range(200)
    plain, secure = ports.free_port(), ports.free_port()
    carrier = ContactCenter(number=CUSTOMER, tone=CUSTOMER_HZ, owner="carrier", gateway=("127.0.0.1", plain))
    phones = ContactCenter(number=ANNA, tone=560.0, owner="phones", gateway=("127.0.0.1", plain))
    teams = Teams(pki, media_addresses=["127.0.0.1"], tone=EXPERT_HZ)
    teams.gateway = ("127.0.0.1", secure)
    async with carrier, phones, teams, contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running(folder, pki, carrier, phones, teams, plain, secure, media, adjust)
        )
        relay = await stack.enter_async_context(Relay(*gateway.http.address))
        site = Site(gateway, carrier, phones, teams, relay, browsers)
        try:
            yield site
            await until(lambda: not gateway.telephony.calls.calls)
        finally:
            for context in site.contexts:
                await context.close()
            await site.media.close()
        assert site.failures == [], "exceptions in a page"


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    pki: Pki,
    carrier: ContactCenter,
    phones: ContactCenter,
    teams: Teams,
    plain: int,
    secure: int,
    media: tuple[int, int],
    adjust: Callable[[str], str] = str,
) -> AsyncIterator[Gateway]:
    file = folder / "tandem.toml"
    text = configuration(
        state=folder / "state",
        pki=pki,
        center=phones,
        teams=teams,
        listen=[f"udp:127.0.0.1:{plain}", f"tcp:127.0.0.1:{plain}", f"tls:127.0.0.1:{secure}"],
        media_ports=media,
        center_extra='party = "agent"',
        media_extra=f'music = "{tone_file(folder / "music.wav")}"',
        extra=AGENTS.format(carrier=carrier.peer),
    )
    # What agents call goes to Teams when it is a number outside, else to a colleague's telephone.
    text = text.replace("min_free_disk = 1", "min_free_disk = 1\ndrain_timeout = 1.0")
    file.write_text(adjust(text.replace('to = "teams"', "number = '\\+1\\d+'\nto = \"teams\"", 1)))
    config = load(file)
    gateway = assemble(config, await prepare_sounds(config), StateDir(config.gateway.state_dir))
    task = asyncio.create_task(gateway.app.run(signals=False))
    try:
        await until(lambda: gateway.app.ready or task.done(), 20)
        for login, role, name in (
            ("anna", UserRole.AGENT, "Anna Example"),
            ("bert", UserRole.AGENT, "Bert Example"),
            ("sue", UserRole.SUPERVISOR, "Sue Example"),
        ):
            await gateway.agents.accounts.add(login, role, PASSWORD, name=name)
        yield gateway
    finally:
        gateway.app.stop_soon()
        await task
