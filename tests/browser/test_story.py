"""An agent's shift in the browser, from sign-in to log-out; who hears whom is measured at each step."""

from __future__ import annotations

from playwright.async_api import expect

from tests.browser.actions import NO_CALL, NUMBER, choose_state, heading, in_call, in_state, press
from tests.browser.ears import everybody
from tests.browser.site import CUSTOMER, EXPERT, SECOND_HZ, Site
from tests.support.waiting import until

SECOND = "+15551230009"
PAIR = everybody("agent", "customer")
ASIDE = {"agent": {"expert"}, "expert": {"agent"}, "customer": {"music"}}
ALL = everybody("agent", "customer", "expert")


async def test_an_agent_takes_holds_consults_merges_and_transfers_a_call(site: Site) -> None:
    page = await site.page("anna")
    await choose_state(page, "Ready")
    await in_state(page, "Ready")
    ears, customer = await in_call(site, page)
    await in_state(page, "Busy")

    await press(page, "Hold")
    await expect(page.get_by_text("On hold by You")).to_be_visible()
    await ears.hear({"agent": set(), "customer": {"music"}})
    await press(page, "Retrieve")
    await expect(page.get_by_text("On hold by You")).to_have_count(0)
    await ears.hear(PAIR)

    await press(page, "Mute")
    await expect(page.get_by_text("muted", exact=True)).to_be_visible()
    await ears.hear({"agent": {"customer"}, "customer": set()})
    await press(page, "Unmute")
    await ears.hear(PAIR)

    await page.get_by_label(NUMBER).fill("+1 (555) 123-0000")
    await press(page, "Consult")
    expert = await site.teams.expect_invite()
    expert.ring()
    await heading(page, f"Consultation with {EXPERT}")
    await ears.hear({"customer": {"music"}})
    await expert.answer()
    ears.call("expert", expert)
    await ears.hear(ASIDE)

    await press(page, "Merge")
    await heading(page, "Conference of 3")
    await ears.hear(ALL)

    await expert.hold()
    await expect(page.get_by_text(f"On hold by Teams expert {EXPERT}")).to_be_visible()
    await ears.hear({"expert": set(), "agent": {"customer", "music"}, "customer": {"agent", "music"}})
    await expert.resume()
    await expect(page.get_by_text(f"On hold by Teams expert {EXPERT}")).to_have_count(0)
    await ears.hear(ALL)

    await press(page, f"Remove {EXPERT}")
    await expert.expect_end()
    ears.gone("expert")
    await heading(page, f"Call with {CUSTOMER}")
    await ears.hear(PAIR)

    await page.get_by_label(NUMBER).fill(SECOND)
    await press(page, "Transfer")
    second = await site.teams.expect_invite(tone=SECOND_HZ)
    await second.answer()
    ears.call("second", second)
    await expect(page.get_by_text(NO_CALL)).to_be_visible()
    ears.gone("agent")
    await ears.hear(everybody("customer", "second"))
    await in_state(page, "Ready")
    await customer.bye()
    await second.expect_end()
    await until(lambda: not site.gateway.telephony.calls.calls)

    history = page.get_by_role("region", name="History")
    await expect(history.get_by_text(CUSTOMER)).to_be_visible()
    await press(page, "Log out")
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert site.gateway.agents.agents.view("anna").state == "logged_out"
    await page.reload()
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    await site.phones.expect_no_call(0.05)
