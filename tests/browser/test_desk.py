"""The Agent Desktop in headless Chromium, against a whole gateway with real calls."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.browser.site import ANNA, BERT, BOSS, CUSTOMER, EXPERT, Site
from tests.peers.contact_center_call import CenterCall
from tests.support.waiting import until


async def answered(site: Site, page: Page, number: str = ANNA) -> tuple[CenterCall, CenterCall]:
    """The customer calls the agent, whose page shows it; his telephone answers. Customer, telephone."""
    customer = await site.carrier.call(number)
    telephone = await site.phones.expect_call()
    telephone.ring()
    await expect(page.get_by_role("alert")).to_contain_text(CUSTOMER)
    await expect(page.get_by_text("Answer it on your telephone")).to_be_visible()
    await telephone.answer()
    await customer.answered()
    await expect(page.get_by_role("heading", name=f"Call with {CUSTOMER}")).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)
    return customer, telephone


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()


async def test_a_call_is_taken_held_consulted_merged_and_an_experts_hold_is_shown(site: Site) -> None:
    page = await site.page("anna")
    await page.get_by_label("Change state").select_option(label="Ready")
    await expect(page.locator("#state")).to_contain_text("Ready")
    customer, telephone = await answered(site, page)
    await expect(page.locator("#state")).to_contain_text("Busy")

    await press(page, "Hold")
    await expect(page.get_by_text("On hold by You")).to_be_visible()
    await press(page, "Retrieve")
    await expect(page.get_by_text("On hold by You")).to_have_count(0)
    await press(page, "Mute")
    await expect(page.get_by_text("muted", exact=True)).to_be_visible()
    await press(page, "Unmute")
    await expect(page.get_by_text("muted", exact=True)).to_have_count(0)

    await page.get_by_label("Number to consult, add or transfer to").fill("+1 (555) 123-0000")
    await press(page, "Consult")
    expert = await site.teams.expect_invite()
    await expect(page.get_by_role("heading", name=f"Consultation with {EXPERT}")).to_be_visible()
    await expert.answer()
    await press(page, "Merge")
    await expect(page.get_by_role("heading", name="Conference of 3")).to_be_visible()

    await expert.hold()
    await expect(page.get_by_text(f"On hold by Teams expert {EXPERT}")).to_be_visible()
    await expert.resume()
    await expect(page.get_by_text(f"On hold by Teams expert {EXPERT}")).to_have_count(0)

    await press(page, f"Remove {EXPERT}")
    await expert.expect_end()
    await expect(page.get_by_role("heading", name=f"Call with {CUSTOMER}")).to_be_visible()

    await page.get_by_label("Number to consult, add or transfer to").fill(EXPERT)
    await press(page, "Transfer")
    second = await site.teams.expect_invite()
    await second.answer()
    await telephone.expect_end()
    await expect(page.get_by_text("No call at the moment.")).to_be_visible()
    await expect(page.locator("#state")).to_contain_text("Ready")
    await customer.bye()
    await second.expect_end()
    await until(lambda: not site.gateway.telephony.calls.calls)
    await page.reload()
    history = page.get_by_role("region", name="History")
    await expect(history.get_by_text(CUSTOMER)).to_be_visible()

    await press(page, "Log out")
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert site.gateway.agents.agents.view("anna").state == "logged_out"
    await page.reload()
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_after_a_cut_of_the_network_the_page_says_what_it_missed(site: Site) -> None:
    page = await site.page("anna")
    customer, telephone = await answered(site, page)
    await site.relay.cut()
    await expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible()
    await press(page, "Hold")
    await expect(page.get_by_text("The gateway cannot be reached.")).to_be_visible()
    await customer.bye()
    await telephone.expect_end()
    other = await site.carrier.call(ANNA, caller="+493055502")
    ringing = await site.phones.expect_call()
    ringing.ring()
    site.relay.mend()
    missed = page.locator(".missed")
    await expect(missed).to_contain_text("While you were disconnected", timeout=15_000)
    await expect(missed).to_contain_text(f"The call with {CUSTOMER} ended")
    await expect(missed).to_contain_text("A call from +493055502 came in")
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await press(page, "Decline")
    await ringing.expect_end()
    assert (await other.outcome()).code >= 400
    await expect(page.get_by_text("No call at the moment.")).to_be_visible()


async def test_two_agents_at_once_see_their_own_calls_and_a_supervisor_sees_both(site: Site) -> None:
    anna, bert = await site.page("anna"), await site.page("bert", (390, 844))
    one = await answered(site, anna)
    two = await site.carrier.call(BERT, caller="+493055502")
    telephone = await site.phones.expect_call()
    await telephone.answer()
    await expect(bert.get_by_role("heading", name="Call with +493055502")).to_be_visible()
    await expect(anna.get_by_text("+493055502")).to_have_count(0)
    await expect(bert.get_by_text(CUSTOMER)).to_have_count(0)

    sue = await site.page("sue")
    await expect(sue.get_by_role("row", name=re.compile("Anna Example.*Busy"))).to_be_visible()
    await expect(sue.get_by_role("row", name=re.compile("Bert Example.*Busy"))).to_be_visible()
    await sue.get_by_label("Your telephone number").fill(BOSS)
    await press(sue, "Listen (Anna Example)")
    boss = await site.phones.expect_call()
    await boss.answer()
    await expect(sue.get_by_role("button", name=f"Listen ({BOSS})")).to_have_attribute("aria-pressed", "true")
    await press(sue, f"Whisper ({BOSS})")
    await expect(sue.get_by_role("button", name=f"Whisper ({BOSS})")).to_have_attribute(
        "aria-pressed", "true"
    )
    await press(sue, f"Barge in ({BOSS})")
    await expect(sue.get_by_role("button", name=f"Barge in ({BOSS})")).to_have_attribute(
        "aria-pressed", "true"
    )
    await press(sue, f"Stop ({BOSS})")
    await boss.expect_end()

    await press(bert, "Hang up")
    await telephone.expect_end()
    await two.expect_end()
    await press(anna, "Hang up")
    await one[0].expect_end()
    await until(lambda: not site.gateway.telephony.calls.calls)


async def test_a_click_to_dial_rings_the_agents_telephone_first_and_a_reload_keeps_the_page(
    site: Site,
) -> None:
    page = await site.page("anna")
    await page.get_by_label("New call").fill(EXPERT)
    await page.get_by_label("New call").press("Enter")
    telephone = await site.phones.expect_call()
    await expect(
        page.get_by_text(f"Your telephone rings. Answer it, and {EXPERT} is called.")
    ).to_be_visible()
    await telephone.answer()
    expert = await site.teams.expect_invite()
    await expert.answer()
    await expect(page.get_by_role("heading", name=f"Call with {EXPERT}")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name=f"Call with {EXPERT}")).to_be_visible()
    await press(page, "Keypad")
    await press(page, "Digit 5")
    await expert.rtp.hears_digits("5")
    await press(page, "Hang up")
    await telephone.expect_end()
    await expert.expect_end()
    await expect(page.get_by_text("No call at the moment.")).to_be_visible()


async def test_a_wrong_password_and_an_ended_session_are_told(site: Site) -> None:
    page = await site.page()
    await page.get_by_label("Login").fill("anna")
    await page.get_by_label("Password").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("login or password is wrong")
    await page.get_by_label("Password").fill("correct horse battery")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await site.gateway.agents.accounts.set_disabled("anna", True)
    await page.get_by_label("Change state").select_option(label="Ready")
    await expect(page.get_by_role("alert")).to_contain_text("Your session has ended")
