"""What agents do at their page, and what tests wait for there."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.browser.ears import Ears
from tests.browser.site import ANNA, ANNA_HZ, CUSTOMER, Site
from tests.peers.contact_center_call import CenterCall

NUMBER = "Number to consult, add or transfer to"
NO_CALL = "No call at the moment."


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()


async def heading(page: Page, text: str) -> None:
    await expect(page.get_by_role("heading", name=text)).to_be_visible()


async def choose_state(page: Page, label: str) -> None:
    await press(page, "Change state")
    await page.get_by_role("menuitem", name=label, exact=True).click()


async def in_state(page: Page, text: str) -> None:
    await expect(page.locator("#state")).to_contain_text(text)


async def browser_phone(page: Page) -> None:
    """The agent makes this page his telephone."""
    await page.get_by_label("Use this browser as my telephone").check()
    await expect(page.get_by_text("ready to ring")).to_be_visible()


async def taken(site: Site, page: Page, number: str = ANNA, caller: str = CUSTOMER) -> CenterCall:
    """The customer calls, and the agent answers in the browser."""
    customer = await site.carrier.call(number, caller=caller)
    await press(page, "Answer")
    await customer.answered()
    await heading(page, f"Call with {caller}")
    return customer


async def in_call(site: Site, page: Page) -> tuple[Ears, CenterCall]:
    """The page is a telephone, and has taken a customer's call: both hear each other."""
    await browser_phone(page)
    customer = await taken(site, page)
    ears = Ears()
    ears.page("agent", page, ANNA_HZ)
    ears.call("customer", customer)
    await ears.hear({"agent": {"customer"}, "customer": {"agent"}})
    return ears, customer
