"""Each main view at both sizes: usable without eyes (axe-core), nothing wider than the screen.

With TANDEM_SCREENSHOTS=folder the pictures of docs/desktop are written anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.browser.actions import press
from tests.browser.site import ANNA, CUSTOMER, DESKTOP, EXPERT, PHONE, Site

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


async def look(page: Page, name: str) -> None:
    """No violation of WCAG AA, no control without a name, nothing to scroll sideways for."""
    found = await Axe().run(page, options=RULES)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 10, "axe-core looked at nothing"
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{name} is {wide} pixels wider than the screen"
    folder = os.environ.get("TANDEM_SCREENSHOTS")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize(("size", "suffix"), [(DESKTOP, "wide"), (PHONE, "narrow")])
async def test_every_view_is_accessible_and_fits(site: Site, size: tuple[int, int], suffix: str) -> None:
    dark = suffix == "narrow"
    page = await site.page(size=size, dark=dark)
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    await look(page, f"sign-in-{suffix}")
    await page.get_by_label("Login").focus()
    await page.keyboard.type("anna")
    await page.keyboard.press("Tab")
    await page.keyboard.type("correct horse battery")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await page.get_by_label("Change state").select_option(label="Ready")

    customer = await site.carrier.call(ANNA)
    telephone = await site.phones.expect_call()
    telephone.ring()
    await expect(page.get_by_text("Answer it on your telephone")).to_be_visible()
    await look(page, f"incoming-{suffix}")
    await telephone.answer()
    await customer.answered()
    await expect(page.get_by_role("heading", name=f"Call with {CUSTOMER}")).to_be_visible()
    await page.get_by_label("Number to consult, add or transfer to").fill(EXPERT)
    await press(page, "Consult")
    expert = await site.teams.expect_invite()
    await expert.answer()
    await expect(page.get_by_role("button", name="Merge")).to_be_visible()
    await look(page, f"consultation-{suffix}")
    await press(page, "Merge")
    await expect(page.get_by_role("heading", name="Conference of 3")).to_be_visible()
    await expert.hold()
    await expect(page.get_by_text(f"On hold by Teams expert {EXPERT}")).to_be_visible()
    await press(page, "Keypad")
    await look(page, f"desk-{suffix}")

    boss = await site.page("sue", size, dark=dark)
    await expect(boss.get_by_role("button", name="Listen (Anna Example)")).to_be_visible()
    await look(boss, f"supervisor-{suffix}")
    await press(page, "End for all")
    for party in (customer, telephone, expert):
        await party.expect_end()
