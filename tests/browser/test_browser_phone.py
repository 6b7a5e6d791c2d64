"""The browser as the agent's telephone: answer, decline, devices, and what else may ring."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.browser.actions import NO_CALL, browser_phone, heading, in_call, press
from tests.browser.ears import Ears
from tests.browser.site import ANNA, ANNA_HZ, CUSTOMER, EXPERT, Site, sign_in

LABEL_OF = "async id => (await navigator.mediaDevices.enumerateDevices()).find(d => d.deviceId === id)?.label"
MICROPHONE = 'connections.at(-1).getSenders()[0].track.label === "Fake Audio Input 2"'
SPEAKER = f'await ({LABEL_OF})(document.querySelector("audio").sinkId) === "Fake Audio Output 2"'
IN_ANOTHER_TAB = "Your telephone is in another tab."
BELL_THERE = f'await ({LABEL_OF})([...contexts.keys()][0].sinkId) === "Fake Audio Output 2"'
SUSPEND = "for (const one of contexts.keys()) void one.suspend()"
LIVE = "connections.flatMap(one => one.getSenders()).filter(one => one.track?.readyState === 'live').length"
PULL_OUT = """() => {
    const { track } = connections.at(-1).getSenders()[0];
    track.stop();
    track.dispatchEvent(new Event("ended"));
}"""
PAIR = {"agent": {"customer"}, "customer": {"agent"}}


async def test_a_reload_in_mid_call_picks_the_call_up_again_with_the_chosen_devices(
    site: Site,
) -> None:
    page = await site.page("anna")
    ears, customer = await in_call(site, page)
    for name, label in (("Microphone", "Fake Audio Input 2"), ("Loudspeaker", "Fake Audio Output 2")):
        await page.get_by_label(name, exact=True).select_option(label=label)
    await until_so(page, MICROPHONE)
    await until_so(page, SPEAKER)
    await until_so(page, BELL_THERE)
    await ears.hear(PAIR)
    await page.evaluate(PULL_OUT)
    await expect(page.get_by_text("You speak through this one now: Fake Audio Input 2")).to_be_visible()
    await until_so(page, f"{LIVE} === 1")
    await ears.hear(PAIR)
    await page.reload()
    await heading(page, f"Call with {CUSTOMER}")
    await ears.hear(PAIR)
    await until_so(page, MICROPHONE)
    await until_so(page, SPEAKER)
    await press(page, "Hang up")
    await customer.expect_end()


async def until_so(page: Page, expression: str) -> None:
    """Wait until the expression, which may await, is true."""
    await page.evaluate(
        f"""async () => {{
            for (let turn = 0; turn < 200; turn += 1) {{
                if ({expression}) return;
                await new Promise((done) => setTimeout(done, 50));
            }}
            throw new Error("never so");
        }}"""
    )


async def test_a_session_that_ends_in_mid_call_leaves_the_call_until_he_has_signed_in_again(
    site: Site,
) -> None:
    page = await site.page("anna")
    ears, customer = await in_call(site, page)
    for last in (False, True):
        await page.context.clear_cookies()
        await press(page, "Hold")
        await expect(page.get_by_role("alert")).to_contain_text("Your session has ended")
        await expect(page.get_by_text("You are still in your call.")).to_be_visible()
        await ears.hear(PAIR)
        if not last:
            await sign_in(page, "anna")
            await heading(page, f"Call with {CUSTOMER}")
            await ears.hear(PAIR)
            assert await page.evaluate("connections.length") == 1
    await press(page, "Hang up")
    await customer.expect_end()
    await expect(page.get_by_text("You are still in your call.")).to_have_count(0)
    assert await page.evaluate(LIVE) == 0


async def test_a_call_that_the_agent_places_is_taken_by_the_page_without_asking(site: Site) -> None:
    page = await site.page("anna")
    await browser_phone(page)
    await page.get_by_label("New call").fill(EXPERT)
    await page.get_by_label("New call").press("Enter")
    expert = await site.teams.expect_invite()
    await expect(page.get_by_role("button", name="Answer")).to_have_count(0)
    await expert.answer()
    ears = Ears()
    ears.page("agent", page, ANNA_HZ)
    ears.call("expert", expert)
    await ears.hear({"agent": {"expert"}, "expert": {"agent"}})
    await heading(page, f"Call with {EXPERT}")
    await press(page, "Hang up")
    await expert.expect_end()


async def test_a_call_that_the_page_does_not_take(site: Site) -> None:
    """It is declined; there is no microphone; another page of the same agent has the telephone."""
    page = await site.page("anna")
    await browser_phone(page)
    customer = await site.carrier.call(ANNA)
    await rings(page)
    # As in a page that nobody has used yet: a browser lets it play nothing.
    await page.evaluate(SUSPEND)
    await expect(page.get_by_text("click anywhere to hear it ring")).to_have_count(2)
    await rings(page, False)
    await page.get_by_role("heading", name="History").click()
    await rings(page)
    await expect(page.get_by_text("click anywhere to hear it ring")).to_have_count(0)
    await press(page, "Decline")
    assert (await customer.outcome()).code == 486
    await rings(page, False)
    await expect(page.get_by_text(NO_CALL)).to_be_visible()

    await page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error('denied'); }; }"
    )
    customer = await site.carrier.call(ANNA)
    await press(page, "Answer")
    await expect(page.get_by_text("The microphone cannot be used: denied")).to_be_visible()
    await expect(page.get_by_role("button", name="Answer")).to_be_visible()
    await rings(page)
    await customer.cancel()
    await expect(page.get_by_role("button", name="Answer")).to_have_count(0)
    await rings(page, False)

    second = await site.page("anna")
    await browser_phone(second)
    await expect(page.get_by_text(IN_ANOTHER_TAB)).to_be_visible()
    await press(page, "Ring here")
    await expect(page.get_by_text("ready to ring")).to_be_visible()
    await expect(second.get_by_text(IN_ANOTHER_TAB)).to_be_visible()


async def test_a_second_tab_takes_the_call_that_rings_or_is_up_and_leaves_the_first_silent(
    site: Site,
) -> None:
    first = await site.page("anna")
    await browser_phone(first)
    customer = await site.carrier.call(ANNA)
    await expect(first.get_by_role("button", name="Answer")).to_be_visible()
    await rings(first)
    second = await another_tab(first)
    await rings(second)
    await rings(first, False)
    # Not this page's own any more: pressed here, the other answers.
    await press(first, "Answer")
    await customer.answered()
    ears = Ears()
    ears.page("agent", second, ANNA_HZ)
    ears.call("customer", customer)
    await ears.hear(PAIR)
    await rings(second, False)
    assert await first.evaluate(LIVE) == 0

    await press(first, "Ring here")
    await expect(second.get_by_text(IN_ANOTHER_TAB)).to_be_visible()
    ears.page("agent", first, ANNA_HZ)
    await ears.hear(PAIR)
    assert await second.evaluate(LIVE) == 0
    assert await ears_of(second) is None
    await expect(second.get_by_text("The sound is interrupted.")).to_have_count(0)
    await press(second, "Hang up")
    await customer.expect_end()


async def another_tab(page: Page) -> Page:
    """One more of the same browser, which takes the telephone by itself."""
    tab = await page.context.new_page()
    await tab.goto(page.url)
    await expect(tab.get_by_text("ready to ring")).to_be_visible()
    await expect(page.get_by_text(IN_ANOTHER_TAB)).to_be_visible()
    return tab


async def rings(page: Page, wanted: bool = True) -> None:
    """What the page plays besides the call: the bell's tone, or silence."""
    await until_so(page, f"(await bell() > -40) === {str(wanted).lower()}")


async def ears_of(page: Page) -> object:
    """null: it plays nothing of a call."""
    return await page.evaluate("levels([425])")
