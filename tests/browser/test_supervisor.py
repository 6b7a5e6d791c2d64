"""The supervisor's view: who does what, and listening, whispering and barging in, measured at everybody."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.browser.actions import choose_state, in_call, press
from tests.browser.ears import everybody
from tests.browser.site import BOSS, SECOND_HZ, Site

PAIR = everybody("agent", "customer")
BOTH = {"agent", "customer"}


async def pressed(page: Page, mode: str) -> None:
    await expect(page.get_by_role("button", name=f"{mode} ({BOSS})")).to_have_attribute(
        "aria-pressed", "true"
    )


async def test_a_supervisor_listens_whispers_barges_in_and_leaves(site: Site) -> None:
    anna, bert, sue = await site.page("anna"), await site.page("bert", (390, 844)), await site.page("sue")
    ears, customer = await in_call(site, anna)
    await choose_state(bert, "Ready")
    await expect(sue.get_by_role("row", name=re.compile("Anna Example.*Busy"))).to_be_visible()
    await expect(sue.get_by_role("row", name=re.compile("Bert Example.*Ready"))).to_be_visible()

    await press(sue, "Listen (Anna Example)")
    await expect(sue.get_by_text("First say which telephone of yours shall ring.")).to_be_visible()
    await sue.get_by_label("Your telephone number").fill(BOSS)
    await press(sue, "Listen (Anna Example)")
    boss = await site.phones.expect_call(tone=SECOND_HZ)
    await boss.answer()
    ears.call("boss", boss)
    await pressed(sue, "Listen")
    await ears.hear(PAIR | {"boss": BOTH})
    await expect(anna.get_by_role("heading", name=re.compile("^Call with"))).to_be_visible()

    await press(sue, f"Whisper ({BOSS})")
    await pressed(sue, "Whisper")
    await ears.hear({"agent": {"customer", "boss"}, "customer": {"agent"}, "boss": BOTH})
    await press(sue, f"Barge in ({BOSS})")
    await pressed(sue, "Barge in")
    await ears.hear(everybody("agent", "customer", "boss"))
    await sue.reload()
    await pressed(sue, "Barge in")
    await press(sue, f"Stop ({BOSS})")
    await boss.expect_end()
    ears.gone("boss")
    await ears.hear(PAIR)
    await press(anna, "Hang up")
    await customer.expect_end()
    await expect(sue.get_by_role("button", name="Listen (Anna Example)")).to_have_count(0)
    audited = [(record.who, record.what) for record in await site.gateway.agents.audit.latest()]
    assert ("sue", "supervise") in audited
    assert ("sue", "changeLeg") in audited
