"""The site of `site.py` with Microsoft beside it: stand-ins for Graph and Entra ID, Anna in the tenant."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
from playwright.async_api import Page, expect

from gateway.agents.people import UserRole
from gateway.clock import LoopClock
from gateway.teams.room import SIGNED_IN
from tests.browser.chromium import Browsers
from tests.browser.site import PASSWORD, Site, open_site
from tests.peers.certs import Identity, Pki
from tests.peers.graph import CLIENT, TENANT, GraphSim
from tests.peers.graph_chats import Thread
from tests.peers.graph_wire import Json
from tests.support import ports

ANN = "aaaa0000-0000-0000-0000-000000000001"
ERIKA = "eeee0000-0000-0000-0000-000000000002"
MAX = "eeee0000-0000-0000-0000-000000000003"
BERT = "aaaa0000-0000-0000-0000-000000000004"
SUPPORT, GENERAL = "team-support", "19:general@thread.tacv2"
TOKENS = 'tokens = [{ name = "chat-server", secret = "env:TANDEM_TEST_TOKEN" }]'
TOKEN = "a-token-of-the-contact-center"
ATTENDANT = "+15550100"
GRAPH = """
[graph]
tenant = "{tenant}"
client_id = "{client}"
client_secret = "env:TANDEM_TEST_GRAPH"
authority = "{authority}"
root = "{root}"
trusted_roots = "{roots}"
public_url = "http://127.0.0.1:{port}"
attendant = "{attendant}"
attendant_digits = "1{{user}}#"
"""


@dataclass
class TeamsSite:
    """`sim` acts as Microsoft and as the experts."""

    site: Site
    sim: GraphSim

    async def page(
        self, login: str = "anna", size: tuple[int, int] = (1280, 800), *, dark: bool = False
    ) -> Page:
        return await self.site.page(login, size, dark=dark)

    async def enabled(self, size: tuple[int, int] = (1280, 800), *, dark: bool = False) -> Page:
        """Anna's page; she has signed in to Teams, as she does it once."""
        page = await self.page(size=size, dark=dark)
        await self.sign_in(page, "Enable Teams")
        return page

    async def sign_in(self, page: Page, button: str) -> None:
        """With Microsoft, in the window that the button opens; afterwards she closes it."""
        async with page.expect_popup() as opening:
            await page.get_by_role("button", name=button, exact=True).click()
        window = await opening.value
        await expect(window.get_by_text("You can close this window.")).to_be_visible()
        await window.close()
        await expect(page.get_by_role("tab", name="Teams Users")).to_be_visible()

    @property
    def chat(self) -> Thread:
        """Anna's with Erika."""
        return self.sim.conversations.one_to_one(ANN, ERIKA)

    @property
    def searches(self) -> int:
        """How often Graph was asked for users."""
        return sum((one.method, one.path) == ("GET", "/users") for one in self.sim.seen)

    @property
    def channel(self) -> Thread:
        return self.sim.conversations.channels[(SUPPORT, GENERAL)]

    @staticmethod
    def texts(thread: Thread) -> list[str]:
        """What was written there."""
        return [str(one["body"]["content"]) for one in thread.messages.values()]

    async def program(self, method: str, path: str, body: Json | None = None) -> Json:
        """A request of the contact center's, with a token of [http]."""
        host, port = self.site.gateway.http.address
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, f"http://{host}:{port}{path}", json=body) as answer,
        ):
            found: Json = await answer.json()
            assert answer.ok, found
            return found

    def in_days(self, days: int) -> str:
        """A day as the gateway counts them."""
        return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()

    def say(self, thread: Thread, text: str, who: str = ERIKA, **more: object) -> Json:
        """`who` writes in Teams."""
        return self.sim.conversations.post(thread, self.sim.users[who], text, **more)


@contextlib.asynccontextmanager
async def open_teams_site(
    folder: Path, pki: Pki, browsers: Browsers, identity: tuple[Identity, Path]
) -> AsyncIterator[TeamsSite]:
    """TANDEM_TEST_GRAPH must hold SECRET, TANDEM_TEST_TOKEN our TOKEN."""
    port = ports.free_port()
    async with GraphSim(LoopClock(), folder, identity=identity) as sim:
        sim.registration.redirect_uris.add(f"http://127.0.0.1:{port}{SIGNED_IN}")
        populate(sim)
        graph = GRAPH.format(
            tenant=TENANT, client=CLIENT, authority=sim.authority, root=sim.root, roots=sim.roots, port=port,
            attendant=ATTENDANT,
        )  # fmt: skip

        def adjust(text: str) -> str:
            text = text.replace('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{port}"\n{TOKENS}')
            text = text.replace('login = "anna"', 'login = "anna"\nteams_user = "anna.example@contoso.test"')
            return text + graph

        async with open_site(folder, pki, browsers, adjust=adjust) as site:
            accounts = site.gateway.agents.accounts
            await accounts.add("ada", UserRole.ADMINISTRATOR, PASSWORD, name="Ada Example")
            yield TeamsSite(site, sim)


def populate(sim: GraphSim) -> None:
    sim.add_user(ANN, "Anna Example", jobTitle="Agent")
    sim.add_user(
        ERIKA, "Erika Expert", jobTitle="Engineer", department="Pumps", businessPhones=["+1 (555) 123-0000"],
        mobilePhone="+1 555 123 0009",
    )  # fmt: skip
    sim.add_user(
        MAX, "Max Experte", jobTitle="Buyer", department="Purchasing", userPrincipalName="max@contoso.test"
    )
    sim.add_user(BERT, "Bert Example", jobTitle="Agent")
    sim.presence.client(ANN, "Available", "Available")
    sim.presence.client(ERIKA, "Available", "Available")
    sim.presence.client(MAX, "Busy", "InAMeeting")
    sim.conversations.team(SUPPORT, "Support", [ANN, ERIKA, MAX])
    sim.conversations.channel(SUPPORT, GENERAL, "General")
    sim.conversations.channel(SUPPORT, "19:pumps@thread.tacv2", "Pumps")
