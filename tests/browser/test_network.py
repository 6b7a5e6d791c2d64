"""The browser's telephone when the network breaks, and with a second agent."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, expect

from tests.browser.actions import NO_CALL, NUMBER, browser_phone, heading, in_call, press, taken
from tests.browser.ears import everybody
from tests.browser.site import ANNA, BERT, BERT_HZ, CUSTOMER, Site
from tests.support.waiting import until

PAIR = everybody("agent", "customer")
CUT = 10.0
SOON = 20_000
OTHER, OTHER_HZ = "+493055502", 1330.0


DISCONNECT = """async () => {
  const { ask, commands } = await import("./api.js");
  const [call] = (await ask("GET", "/api/v1/calls?agent=bert")).calls;
  const leg = call.legs.find((one) => one.login !== "bert").id;
  const of = [call.id, leg];
  const attempts = [commands.endForAll(call.id), commands.remove(...of), commands.hangUp(...of)];
  return (await Promise.allSettled(attempts)).map((one) => one.reason?.reason);
}"""
"""How the gateway refuses Bert's page what it does not offer."""


async def test_a_network_that_is_dead_for_ten_seconds_and_then_bad_costs_no_call(site: Site) -> None:
    """Nothing is closed and nothing arrives, neither by the page's connections nor of its sound."""
    page = await site.page("anna", relayed=True)
    ears, customer = await in_call(site, page)
    site.relay.silent = site.media.silent = True
    begun = asyncio.get_running_loop().time()
    await expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible(timeout=8_000)
    await expect(page.get_by_text("The sound is interrupted.")).to_be_visible(timeout=SOON)
    assert await ears.levels("customer") == {}
    other = await site.carrier.call(ANNA, caller=OTHER)
    await asyncio.sleep(begun + CUT - asyncio.get_running_loop().time())
    site.relay.silent = site.media.silent = False

    missed = page.locator(".missed")
    await expect(missed).to_contain_text("While you were disconnected", timeout=SOON)
    await expect(missed).to_contain_text(f"A call from {OTHER} came in")
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await ears.hear(PAIR, within=20.0)
    await expect(page.get_by_text("The sound is interrupted.")).to_have_count(0, timeout=SOON)
    await press(page, "Decline")
    assert (await other.outcome()).code == 486
    await ears.hear(PAIR)

    trouble = page.get_by_text("Your network has trouble")
    site.media.loss = 0.4
    await expect(trouble).to_contain_text("% of the sound is lost", timeout=SOON)
    [session] = site.gateway.telephony.context.phones.sessions.values()
    await until(lambda: session.trouble)
    site.media.loss = 0.0
    await expect(trouble).to_have_count(0, timeout=SOON)
    await press(page, "Hang up")
    await customer.expect_end()


async def test_two_agents_talk_at_once_and_to_each_other(site: Site) -> None:
    anna, bert = await site.page("anna"), await site.page("bert", hz=BERT_HZ)
    ears, customer = await in_call(site, anna)
    await anna.get_by_label(NUMBER).fill(BERT)
    await press(anna, "Add")
    telephone = await site.phones.expect_call()
    telephone.ring()
    await press(bert, "Decline")
    await telephone.expect_end()
    await expect(bert.get_by_text(NO_CALL)).to_be_visible()
    await heading(anna, f"Call with {CUSTOMER}")
    await ears.hear(PAIR)

    await browser_phone(bert)
    other = await taken(site, bert, BERT, OTHER)
    ears.page("bert", bert, BERT_HZ)
    ears.call("other", other, OTHER_HZ)
    await ears.hear(PAIR | everybody("bert", "other"))
    await expect(anna.get_by_text(OTHER)).to_have_count(0)
    await expect(bert.get_by_text(CUSTOMER)).to_have_count(0)
    await press(bert, "Hang up")
    await other.expect_end()
    ears.gone("other")

    await call(anna, bert, BERT)
    await ears.hear({"agent": {"bert"}, "bert": {"agent"}, "customer": {"music"}})
    await press(anna, "Merge")
    await heading(bert, "Conference of 3")
    await ears.hear(everybody("agent", "bert", "customer"))
    # Anna is the host: Bert may leave, and is not offered to end it for the others
    await expect(anna.get_by_role("button", name="End for all")).to_be_visible()
    await expect(anna.get_by_role("button", name="Remove")).to_have_count(2)
    await expect(bert.get_by_role("button", name="End for all")).to_have_count(0)
    await expect(bert.get_by_role("button", name="Remove")).to_have_count(0)
    assert await bert.evaluate(DISCONNECT) == ["not_host", "not_host", "not_host"]
    await press(anna, "Hang up")
    await heading(bert, f"Call with {CUSTOMER}")
    ears.gone("agent")
    await ears.hear(everybody("bert", "customer"))
    await customer.bye()
    await expect(bert.get_by_text(NO_CALL)).to_be_visible()


async def call(page: Page, colleague: Page, number: str) -> None:
    """The agent consults his colleague, who answers in his browser too."""
    await page.get_by_label(NUMBER).fill(number)
    await press(page, "Consult")
    await press(colleague, "Answer")
    await expect(page.get_by_role("button", name="Merge")).to_be_visible()
