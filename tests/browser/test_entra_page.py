"""The link to Microsoft on the sign-in page, against the stand-in for Entra ID."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from gateway.clock import LoopClock
from tests.browser.actions import press
from tests.browser.chromium import Browsers
from tests.browser.relay import Relay
from tests.browser.site import Site, open_site
from tests.peers.certs import Pki
from tests.peers.graph import CLIENT, SECRET, TENANT, GraphSim
from tests.support import ports

ANN, EVE = "aaaa0000-0000-0000-0000-000000000001", "eeee0000-0000-0000-0000-000000000009"
SETTINGS = """
[sign_in]
entra = true
public_url = "https://127.0.0.1:{port}"

[graph]
tenant = "{tenant}"
client_id = "{client}"
client_secret = "env:TANDEM_TEST_GRAPH"
authority = "{sim.authority}"
root = "{sim.root}"
trusted_roots = "{sim.roots}"
"""


@dataclass
class Entra:
    site: Site
    sim: GraphSim

    async def follow(self, page: Page, who: str) -> None:
        """Microsoft knows the one at this browser as `who`."""
        self.sim.entra.impostor = who
        await page.get_by_role("link", name="Sign in with Microsoft").click()


@pytest_asyncio.fixture(loop_scope="session")
async def entra(
    tmp_path: Path, pki: Pki, browsers: Browsers, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Entra]:
    monkeypatch.setenv("TANDEM_TEST_GRAPH", SECRET)
    port = ports.free_port()
    async with GraphSim(LoopClock(), tmp_path / "sim") as sim:
        sim.registration.redirect_uris.add(f"https://127.0.0.1:{port}/sign-in/entra/callback")
        sim.registration.scopes.add("User.Read")
        sim.add_user(ANN, "Anna Example", userPrincipalName="anna.example@contoso.test")
        sim.add_user(EVE, "Eve Elsewhere")

        def adjust(text: str) -> str:
            text = text.replace('login = "anna"', 'login = "anna"\nteams_user = "anna.example@contoso.test"')
            return text + SETTINGS.format(port=port, tenant=TENANT, client=CLIENT, sim=sim)

        async with open_site(tmp_path, pki, browsers, adjust=adjust) as site:
            # Entra sends people back to https only: as in life, a proxy with TLS is before the gateway
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(pki["gateway"].chain, pki["gateway"].key)
            async with Relay(*site.gateway.http.address, tls=tls, own_port=port) as relay:
                site.relay = relay
                yield Entra(site, sim)
                for context in site.contexts:
                    await context.close()


async def test_an_agent_signs_in_with_microsoft_and_a_stranger_is_told_why_not(entra: Entra) -> None:
    page = await entra.site.page()
    await entra.follow(page, EVE)
    await expect(page.get_by_role("alert")).to_contain_text("Nobody here knows your Microsoft account")
    assert "refused" not in page.url
    await entra.follow(page, ANN)
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)
    assert "/desk/" in page.url
    await press(page, "Log out")
    await expect(page.get_by_role("link", name="Sign in with Microsoft")).to_be_visible()
    await entra.follow(page, ANN)
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
