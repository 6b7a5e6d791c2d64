"""Each main view at both sizes: usable without eyes (axe-core), nothing wider than the screen.

With TANDEM_SCREENSHOTS=folder the pictures of docs/desktop are written anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.browser.actions import NUMBER, browser_phone, heading, press, taken
from tests.browser.site import ANNA, CUSTOMER, DESKTOP, EXPERT, PHONE, Site

RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    # Of what passes only the rules are told, not every element: that took longer than looking.
    "resultTypes": ["violations"],
}


CONTRAST = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}


async def look(page: Page, name: str) -> None:
    """No violation of WCAG AA in light and dark, no unnamed control, nothing wider than the screen.

    The same elements are there at every width: all rules are asked of the wide page, colours of both.
    """
    whole = page.viewport_size is not None and page.viewport_size["width"] >= DESKTOP[0]
    found = await Axe().run(page, options=RULES if whole else CONTRAST)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > (10 if whole else 0), "axe-core looked at nothing"
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{name} is {wide} pixels wider than the screen"
    folder = os.environ.get("TANDEM_SCREENSHOTS")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png")
    if not whole:
        return
    dark = await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    await page.emulate_media(color_scheme="light" if dark else "dark")
    found = await Axe().run(page, options=CONTRAST)
    assert found.violations_count == 0, found.generate_report()
    assert found.response["passes"], "axe-core saw no text"
    await page.emulate_media(color_scheme="dark" if dark else "light")


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
    await press(page, "Change state")
    await expect(page.get_by_role("menuitem", name="Not ready: Break")).to_be_in_viewport(ratio=1.0)
    await look(page, f"states-{suffix}")
    await page.get_by_role("menuitem", name="Ready", exact=True).click()
    await browser_phone(page)
    earlier = await taken(site, page, caller="+493055502")
    await earlier.bye()
    history = page.get_by_role("region", name="History")
    await expect(history.get_by_text("+493055502")).to_be_visible()

    customer = await site.carrier.call(ANNA)
    await expect(page.get_by_role("button", name="Answer")).to_be_visible()
    await look(page, f"incoming-{suffix}")
    await press(page, "Answer")
    await customer.answered()
    await heading(page, f"Call with {CUSTOMER}")
    await page.wait_for_timeout(1000)
    await look(page, f"phone-{suffix}")
    await page.get_by_label(NUMBER).fill(EXPERT)
    await press(page, "Consult")
    expert = await site.teams.expect_invite()
    await expert.answer()
    await expect(page.get_by_role("button", name="Merge")).to_be_visible()
    await look(page, f"consultation-{suffix}")
    await press(page, "Merge")
    await heading(page, "Conference of 3")
    await expert.hold()
    await expect(page.get_by_text(f"On hold by Teams expert {EXPERT}")).to_be_visible()
    await look(page, f"desk-{suffix}")
    await press(page, "Keypad")
    await page.get_by_label("Digits", exact=True).scroll_into_view_if_needed()
    await look(page, f"keypad-{suffix}")

    boss = await site.page("sue", size, dark=dark)
    await expect(boss.get_by_role("button", name="Listen (Anna Example)")).to_be_visible()
    await look(boss, f"supervisor-{suffix}")
    await press(page, "End for all")
    for party in (customer, expert):
        await party.expect_end()
