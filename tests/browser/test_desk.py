"""The Agent Desktop in headless Chromium: all that an agent does with calls, and what he reads meanwhile."""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import urlsplit

from playwright.async_api import Page, Route, expect

from gateway.agents.states import AgentState
from tests.browser.actions import (
    NO_CALL,
    NUMBER,
    browser_phone,
    choose_state,
    heading,
    in_call,
    in_state,
    press,
    taken,
)
from tests.browser.ears import Ears, everybody
from tests.browser.site import ANNA, BERT, BERT_HZ, CUSTOMER, EXPERT, SECOND_HZ, Site, sign_in
from tests.calls.test_answer import TALK, by_event
from tests.peers.contact_center_call import CenterCall
from tests.support.waiting import until

ONE_PAGE = ["/api/v1/me/events", "/api/v1/phone"]
SECOND = "+15551230009"
OTHER, GIVES_UP, LATER = "+493055502", "+493055503", "+493055504"
PAIR = everybody("agent", "customer")
ALL = everybody("agent", "customer", "expert")


async def rings(site: Site, page: Page) -> tuple[CenterCall, CenterCall]:
    """The customer calls the agent, whose SIP telephone rings and whose page shows it. Both calls."""
    customer = await site.carrier.call(ANNA)
    telephone = await site.phones.expect_call()
    await expect(page.get_by_role("alert")).to_contain_text(CUSTOMER)
    return customer, telephone


async def answered(site: Site, page: Page) -> tuple[CenterCall, CenterCall]:
    """And he takes the call at his telephone."""
    customer, telephone = await rings(site, page)
    await telephone.answer()
    await customer.answered()
    await heading(page, f"Call with {CUSTOMER}")
    return customer, telephone


async def test_a_sip_telephone_is_answered_from_the_page_if_it_lets_itself(site: Site) -> None:
    page = await site.page("anna")
    customer, telephone = await rings(site, page)
    telephone.ring()
    await expect(page.get_by_text("it does not let itself be answered from here")).to_be_visible()
    await expect(page.get_by_role("button", name="Answer")).to_have_count(0)
    await press(page, "Decline")
    assert (await customer.outcome()).code >= 400
    await telephone.expect_end()
    await expect(page.get_by_role("alert")).to_have_count(0)

    customer, telephone = await rings(site, page)
    by_event(telephone, 489)
    telephone.ring(headers=TALK)
    await press(page, "Answer")
    await expect(
        page.get_by_text("the telephone does not let itself be answered from here: answer it there")
    ).to_be_visible()
    by_event(telephone)
    await press(page, "Answer")
    await customer.answered()
    ears = Ears()
    ears.call("customer", customer)
    ears.call("agent", telephone)
    await ears.hear(PAIR)
    await heading(page, f"Call with {CUSTOMER}")
    await press(page, "Hang up")
    await telephone.expect_end()
    await customer.expect_end()


async def test_parties_are_added_held_sent_digits_removed_and_ended(site: Site) -> None:
    page = await site.page("anna")
    ears, customer = await in_call(site, page)
    await page.get_by_label(NUMBER).fill(EXPERT)
    await press(page, "Add")
    expert = await site.teams.expect_invite()
    await expert.answer()
    ears.call("expert", expert)
    await heading(page, "Conference of 3")
    await ears.hear(ALL)

    await press(page, f"Put {EXPERT} on hold")
    await ears.hear(PAIR | {"expert": {"music"}})
    await expect(page.get_by_role("listitem").filter(has_text=EXPERT)).to_contain_text("on hold")
    await press(page, f"Take {EXPERT} off hold")
    await ears.hear(ALL)

    await press(page, "Keypad")
    await page.get_by_label("Digits for").select_option(label=f"Teams expert {EXPERT}")
    await press(page, "Digit 5")
    await page.get_by_label("Digits", exact=True).press_sequentially("1x2#")
    await expert.rtp.hears_digits("512#")
    await expect(page.get_by_label("Digits", exact=True)).to_have_value("512#")
    await page.get_by_label("Digits for").select_option(label=f"External {CUSTOMER}")
    await press(page, "Digit 9")
    await customer.rtp.hears_digits("9")

    await page.get_by_label(NUMBER).fill(SECOND)
    await press(page, "Add")
    second = await site.teams.expect_invite(tone=SECOND_HZ)
    await second.answer()
    ears.call("second", second)
    await heading(page, "Conference of 4")
    await ears.hear(everybody("agent", "customer", "expert", "second"))
    await press(page, f"Remove {EXPERT}")
    await expert.expect_end()
    ears.gone("expert")
    await ears.hear(everybody("agent", "customer", "second"))
    await press(page, "End for all")
    await asyncio.gather(customer.expect_end(), second.expect_end())
    await expect(page.get_by_text(NO_CALL)).to_be_visible()


async def test_a_consultation_goes_back_or_becomes_an_attended_transfer(site: Site) -> None:
    page = await site.page("anna")
    ears, customer = await in_call(site, page)
    aside = {"agent": {"expert"}, "expert": {"agent"}, "customer": {"music"}}
    for last in (False, True):
        await page.get_by_label(NUMBER).fill(EXPERT)
        await press(page, "Consult")
        expert = await site.teams.expect_invite()
        await expect(page.get_by_role("button", name="Merge")).to_have_count(0)
        await expert.answer()
        ears.call("expert", expert)
        await ears.hear(aside)
        await press(page, "Log out")
        await expect(page.get_by_text("end or transfer it before you log out")).to_be_visible()
        if not last:
            await press(page, "Back to the caller")
            await expert.expect_end()
            ears.gone("expert")
            await heading(page, f"Call with {CUSTOMER}")
            await ears.hear(PAIR)
    await press(page, "Transfer to the expert")
    await expect(page.get_by_text(NO_CALL)).to_be_visible()
    await ears.hear(everybody("customer", "expert"))
    await customer.bye()
    await expert.expect_end()


async def test_after_a_call_there_is_work_and_a_row_of_history_to_call_back_from(site: Site) -> None:
    page = await site.page("bert", hz=BERT_HZ)
    # The PC's clock is wrong; what has lasted is counted by the gateway's.
    await page.add_init_script("const right = Date.now; Date.now = () => right() + 120_000;")
    await page.reload()
    await choose_state(page, "Ready")
    await browser_phone(page)
    customer = await taken(site, page, BERT)
    await in_state(page, "Busy")
    for place in ("#state", "article"):
        await expect(page.locator(f"{place} .timer")).to_have_text(re.compile(r"^0:0\d$"))
    await choose_state(page, "Not ready")
    await expect(page.get_by_text("then Not ready")).to_be_visible()
    await customer.bye()
    await in_state(page, "After-call work")
    row = page.get_by_role("region", name="History").get_by_role("listitem")
    await expect(row).to_contain_text(CUSTOMER)
    for text in ("Inbound", "caller hung up", "Talk time 0:0"):
        await expect(row).to_contain_text(text)
    await press(page, "Finish")
    await in_state(page, "Ready")
    await press(page, f"Call {CUSTOMER}")
    again = await site.carrier.expect_call()
    await in_state(page, "Busy")
    await again.answer()
    await heading(page, f"Call with {CUSTOMER}")
    await press(page, "Hang up")
    await again.expect_end()


async def test_a_call_pops_up_on_every_view_and_all_is_done_with_keys(site: Site) -> None:
    page = await site.page("anna")
    picker = page.get_by_role("button", name="Change state")
    await picker.focus()
    said = [await page.locator("#state").text_content()]
    for choice in ("Ready", "Not ready", "Not ready: Break"):
        await page.keyboard.press("ArrowDown")
        await expect(page.get_by_role("menuitem", name=choice, exact=True)).to_be_focused()
        said.append(await page.locator("#state").text_content())
    assert {str(text)[:10] for text in said} == {"Logged out"}, "only a choice that is made counts"
    await page.keyboard.press("Escape")
    await expect(picker).to_be_focused()
    await expect(page.get_by_role("menu")).to_have_count(0)
    await in_state(page, "Logged out")
    for key in ("ArrowUp", "Home", "ArrowDown", "ArrowDown", "Enter"):
        await page.keyboard.press(key)
    await in_state(page, "Not ready: Break")
    await expect(picker).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("menu")).to_have_count(0)
    await choose_state(page, "Ready")
    await in_state(page, "Ready")

    await press(page, "Profile")
    await page.keyboard.press("Tab")
    customer, telephone = await rings(site, page)
    by_event(telephone)
    telephone.ring(headers=TALK)
    await expect(page.get_by_role("button", name="Answer")).to_be_visible()
    assert "Incoming call" in await page.title()
    await expect(page.locator("#announce")).to_contain_text(f"A call from {CUSTOMER} came in")
    await page.locator("main").focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Answer")).to_be_focused()
    await page.keyboard.press("Enter")
    await customer.answered()
    await expect(page.get_by_role("button", name="Answer")).to_have_count(0)

    await page.get_by_role("button", name="My desk").focus()
    await page.keyboard.press("Enter")
    # The customer may hear him before the page knows: until then there is nothing but Hang up.
    await expect(page.get_by_role("button", name="Hold", exact=True)).to_be_visible()
    await page.get_by_role("article").focus()
    for name in ("Hang up", "Hold"):
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()
    await page.keyboard.press("Space")
    await expect(page.get_by_text("On hold by You")).to_be_visible()
    await expect(page.get_by_role("button", name="Retrieve")).to_be_focused()
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Enter")
    await telephone.expect_end()
    await customer.expect_end()
    await expect(page.get_by_text(NO_CALL)).to_be_visible()
    assert await page.evaluate("document.activeElement !== document.body"), "the focus is lost"


async def test_what_is_being_typed_outlives_what_happens_and_a_double_click_counts_once(site: Site) -> None:
    page = await site.page("anna")
    customer, telephone = await answered(site, page)
    await page.get_by_label("New call").fill("+4912")
    await page.get_by_label(NUMBER).press_sequentially("+1555")
    await customer.hold()
    await expect(page.get_by_text(f"On hold by External {CUSTOMER}")).to_be_visible()
    await customer.resume()
    await expect(page.get_by_text(f"On hold by External {CUSTOMER}")).to_have_count(0)
    await expect(page.get_by_label(NUMBER)).to_be_focused()
    await page.keyboard.type("1230000")
    await expect(page.get_by_label(NUMBER)).to_have_value(EXPERT)
    await expect(page.get_by_label("New call")).to_have_value("+4912")
    await press(page, "Profile")
    await press(page, "My desk")
    await expect(page.get_by_label(NUMBER)).to_have_value(EXPERT)
    await expect(page.get_by_label("New call")).to_have_value("+4912")
    await page.get_by_role("button", name="Hold", exact=True).dblclick()
    await expect(page.get_by_text("On hold by You")).to_be_visible()
    await expect(page.get_by_role("button", name="Retrieve")).to_have_attribute("aria-pressed", "true")
    await press(page, "Hang up")
    await telephone.expect_end()
    await customer.expect_end()


async def test_after_a_cut_of_the_network_the_page_says_what_it_missed(site: Site) -> None:
    page = await site.page("anna")
    customer, telephone = await answered(site, page)
    await site.relay.cut()
    await expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible()
    await press(page, "Hold")
    await expect(page.get_by_text("The gateway cannot be reached.")).to_be_visible()
    await customer.bye()
    await telephone.expect_end()
    other = await site.carrier.call(ANNA, caller=OTHER)
    ringing = await site.phones.expect_call()
    ringing.ring()
    await comes_and_goes(site, GIVES_UP)
    site.relay.mend()
    missed = page.locator(".missed")
    await expect(missed).to_contain_text("While you were disconnected", timeout=15_000)
    await expect(missed).to_contain_text(f"The call with {CUSTOMER} ended")
    await expect(missed).to_contain_text(f"A call from {OTHER} came in")
    await expect(missed).to_contain_text(f"A call with {GIVES_UP} came and went: abandoned")
    await expect(missed.get_by_role("listitem").filter(has_text=CUSTOMER)).to_have_count(1)
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await press(page, "Decline")
    await ringing.expect_end()
    assert (await other.outcome()).code >= 400
    await expect(page.get_by_text(NO_CALL)).to_be_visible()
    history = page.get_by_role("region", name="History")
    await expect(history.get_by_text(OTHER)).to_be_visible()

    # Loaded anew, the page knows what the one before it has shown.
    await page.goto("about:blank")
    await comes_and_goes(site, LATER)
    await page.goto(site.relay.base)
    await expect(missed).to_contain_text(f"A call with {LATER} came and went: abandoned")
    await expect(missed.get_by_role("listitem")).to_have_count(1)
    await press(page, "Dismiss")
    await page.reload()
    await expect(history.get_by_text(LATER)).to_be_visible()
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await expect(missed).to_have_count(0)


async def comes_and_goes(site: Site, caller: str) -> None:
    """A customer who gives up while the agent's telephone rings."""
    customer = await site.carrier.call(ANNA, caller=caller)
    telephone = await site.phones.expect_call()
    telephone.ring()
    await customer.cancel()
    await telephone.expect_end()


async def test_a_click_to_dial_rings_the_agents_telephone_first_and_a_reload_keeps_the_page(
    site: Site,
) -> None:
    page = await site.page("anna")
    await page.get_by_label("New call").fill(EXPERT)
    await page.get_by_label("New call").press("Enter")
    telephone = await site.phones.expect_call()
    by_event(telephone)
    telephone.ring(headers=TALK)
    await expect(
        page.get_by_text(f"Your telephone rings. Answer it, and {EXPERT} is called.")
    ).to_be_visible()
    await press(page, "Answer")
    expert = await site.teams.expect_invite()
    await expert.answer()
    await heading(page, f"Call with {EXPERT}")
    await page.reload()
    await heading(page, f"Call with {EXPERT}")
    await press(page, "Keypad")
    await press(page, "Digit 5")
    await expert.rtp.hears_digits("5")
    await press(page, "Hang up")
    await telephone.expect_end()
    await expert.expect_end()
    await expect(page.get_by_text(NO_CALL)).to_be_visible()
    await until(lambda: not site.gateway.telephony.calls.calls)


async def test_a_gateway_that_comes_back_while_somebody_signs_in_gets_one_page_of_him(site: Site) -> None:
    """The page tries again by itself, and he signs in: both find that he has."""
    page = await site.page()
    await page.evaluate("localStorage.setItem('tandem.phone_on', '1')")
    asked = 0

    async def slow_at_first(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            await asyncio.sleep(2.0)
        await (route.abort() if asked == 1 else route.continue_())

    await page.route("**/api/v1/me", slow_at_first)
    await page.reload()
    sockets, _ = connections(page)
    await expect(page.get_by_text("The gateway cannot be reached.")).to_be_visible()
    await sign_in(page, "anna")
    await expect(page.get_by_text("ready to ring")).to_be_visible()
    await asyncio.sleep(1.0)
    assert sorted(sockets) == ONE_PAGE


async def test_a_log_out_that_the_gateway_cannot_write_down_leaves_the_agent_signed_in(site: Site) -> None:
    """Else he stays ready, and calls ring at a page that is gone."""
    page = await site.page()
    refused = {"status": 503, "detail": "no space left", "reason": "journal_unavailable"}
    await page.route("**/state", lambda route: route.fulfill(status=503, json=refused))
    await page.route("**/api/v1/me", about_to_end)
    await sign_in(page, "anna")
    await expect(page.get_by_role("alert")).to_contain_text("Your session ends at ")
    await site.gateway.agents.agents.set_state("anna", AgentState.READY, by="anna")
    await in_state(page, "Ready")
    await press(page, "Log out")
    await expect(page.get_by_role("alert")).to_contain_text("the gateway cannot write its journal")
    await in_state(page, "Ready")
    await page.unroute("**/state")
    await press(page, "Log out")
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert site.gateway.agents.agents.view("anna").state is AgentState.LOGGED_OUT


async def about_to_end(route: Route) -> None:
    answer = await route.fetch()
    me = await answer.json()
    assert me["expires_at"] / 1000 > time.time() + 3600
    await route.fulfill(response=answer, json={**me, "expires_at": (time.time() + 600) * 1000})


def connections(page: Page) -> tuple[list[str], list[str]]:
    """The paths of the WebSockets that it opens from now on, and of what it posts."""
    sockets: list[str] = []
    posted: list[str] = []
    page.on("websocket", lambda socket: sockets.append(urlsplit(socket.url).path))
    page.on("request", lambda one: posted.append(one.url) if one.method == "POST" else None)
    return sockets, posted


async def test_a_wrong_password_and_an_ended_session_are_told(site: Site) -> None:
    page = await site.page()
    await page.get_by_label("Login").fill("anna")
    await page.get_by_label("Password").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("login or password is wrong")
    await page.evaluate("localStorage.setItem('tandem.phone_on', '1')")
    sockets, posted = connections(page)
    await page.get_by_label("Password").fill("correct horse battery")
    await page.get_by_role("button", name="Sign in").dblclick()
    await expect(page.get_by_text("ready to ring")).to_be_visible()
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    assert len(posted) == 1
    assert sorted(sockets) == ONE_PAGE
    await site.gateway.agents.accounts.set_disabled("anna", True)
    await choose_state(page, "Ready")
    await expect(page.get_by_role("alert")).to_contain_text("Your session has ended")
