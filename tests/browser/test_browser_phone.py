"""The browser as the agent's telephone: heard and hearing, before and after a reload."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.browser.site import ANNA, CUSTOMER, Site
from tests.browser.test_desk import press
from tests.browser.test_look import look
from tests.peers.contact_center_call import CenterCall
from tests.support.waiting import until


async def hears_the_browser(call: CenterCall) -> None:
    """The fake microphone beeps once a second."""
    since = call.rtp.now
    await until(lambda: bool(abs(call.rtp.pcm(since)).max(initial=0) > 500), 10)


async def is_heard(page: Page) -> None:
    await page.wait_for_function("document.getElementById('level-in').value > 0.02")


async def test_a_call_is_answered_in_the_browser_and_a_reload_picks_it_up_again(site: Site) -> None:
    page = await site.page("anna")
    await page.get_by_label("Use this browser as my telephone").check()
    await expect(page.get_by_text("ready to ring")).to_be_visible()
    customer = await site.carrier.call(ANNA, tone=440.0)
    await press(page, "Answer")
    await customer.answered()
    await expect(page.get_by_role("heading", name=f"Call with {CUSTOMER}")).to_be_visible()
    await hears_the_browser(customer)
    await is_heard(page)
    await look(page, "phone-wide")
    await page.reload()
    await expect(page.get_by_role("heading", name=f"Call with {CUSTOMER}")).to_be_visible()
    await hears_the_browser(customer)
    await is_heard(page)
    await press(page, "Hang up")
    await customer.expect_end()
    await site.phones.expect_no_call(0.1)


async def test_a_call_is_declined_in_the_browser(site: Site) -> None:
    page = await site.page("anna")
    await page.get_by_label("Use this browser as my telephone").check()
    await expect(page.get_by_text("ready to ring")).to_be_visible()
    customer = await site.carrier.call(ANNA)
    await press(page, "Decline")
    assert (await customer.outcome()).code == 486
    await expect(page.get_by_text("No call at the moment.")).to_be_visible()


async def test_a_second_page_of_the_same_agent_rings_and_the_first_says_so(site: Site) -> None:
    first, second = await site.page("anna"), await site.page("anna")
    await first.get_by_label("Use this browser as my telephone").check()
    await expect(first.get_by_text("ready to ring")).to_be_visible()
    await second.get_by_label("Use this browser as my telephone").check()
    await expect(second.get_by_text("ready to ring")).to_be_visible()
    await expect(first.get_by_text("Another page of yours rings now.")).to_be_visible()
