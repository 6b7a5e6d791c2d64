"""Teams beside the call, in headless Chromium, against a whole gateway and the Graph and Entra stand-ins."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from tests.browser.actions import choose_state, press
from tests.browser.chromium import Browsers
from tests.browser.site import ANNA, CUSTOMER, DESKTOP, EXPERT, PHONE
from tests.browser.teams_site import ANN, ATTENDANT, ERIKA, MAX, TOKEN, TeamsSite, open_teams_site
from tests.browser.test_look import look
from tests.peers.certs import Identity, Pki
from tests.peers.graph import SECRET, make_identity
from tests.support.waiting import until

FILE = {
    "id": "1", "contentType": "reference", "name": "pump-manual.pdf", "contentUrl": "https://contoso.test/x",
}  # fmt: skip
CARD = {"id": "2", "contentType": "application/vnd.microsoft.card.adaptive", "content": "{}"}
ADAPTIVE = "application/vnd.microsoft.card.adaptive"
TYPE = """(field, texts) => {
    for (const text of texts) { field.value = text; field.dispatchEvent(new Event("input")); }
}"""
MARKUP = "<p>Yes, <b>see</b></p><img src=x onerror=\"document.title='x'\"><script>alert(1)</script>"


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Path]:
    return make_identity(tmp_path_factory.mktemp("graph-ca"))


@pytest_asyncio.fixture(loop_scope="session")
async def teams(
    tmp_path: Path,
    pki: Pki,
    browsers: Browsers,
    identity: tuple[Identity, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[TeamsSite]:
    monkeypatch.setenv("TANDEM_TEST_GRAPH", SECRET)
    monkeypatch.setenv("TANDEM_TEST_TOKEN", TOKEN)
    monkeypatch.setattr("gateway.teams.shown.EVERY", 0.5)
    async with open_teams_site(tmp_path, pki, browsers, identity) as teams:
        yield teams


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


async def find(page: Page, text: str) -> Locator:
    """Search as somebody types; the one who is found."""
    search = page.get_by_role("combobox", name="Search Teams users")
    await search.fill("")
    await search.press_sequentially(text)
    options = page.get_by_role("listbox", name="Teams Users").get_by_role("option")
    await search.press("Enter")
    await expect(options).to_have_count(1)
    await expect(options).to_have_attribute("aria-selected", "true")
    return options


async def write(page: Page, label: str, text: str) -> None:
    field = page.get_by_label(label, exact=True)
    await field.fill(text)
    await field.press("Enter")
    await expect(field).to_have_value("")


async def test_an_expert_is_found_written_to_and_called_and_his_calls_make_the_agent_not_ready(
    teams: TeamsSite,
) -> None:
    page = await teams.enabled()
    await choose_state(page, "Ready")
    state = page.locator("#state")
    await expect(state).to_contain_text("Ready")

    # Busy in the expert system: Not Ready here. Afterwards the state comes back by itself.
    teams.sim.presence.client(ANN, "Busy", "InACall")
    await expect(state).to_contain_text("Not ready: Busy in an External System")
    teams.sim.presence.client(ANN, "Available", "Available")

    await expect(await find(page, "eri")).to_contain_text("Available")
    await press(page, "Chat with Erika Expert")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await write(page, "Message", "Is the <b>pump</b> safe?")
    log = page.get_by_role("log")
    await expect(log).to_contain_text("Is the <b>pump</b> safe?")
    sent = [one["body"] for one in teams.chat.messages.values()]
    assert [(one["contentType"], one["content"]) for one in sent] == [("text", "Is the <b>pump</b> safe?")]

    # What the expert writes comes by itself: text as text, files by name, cards by type; changes follow.
    answer = teams.say(teams.chat, MARKUP, contentType="html", attachments=[FILE, CARD])
    await expect(log).to_contain_text("Yes, see")
    await expect(log.get_by_role("list", name="Attached")).to_contain_text("pump-manual.pdf")
    await expect(log.get_by_role("list", name="Attached")).to_contain_text(ADAPTIVE)
    assert await log.locator("b, img, script, a").count() == 0
    teams.sim.conversations.react(teams.chat, answer["id"], ERIKA, "heart")
    teams.sim.conversations.edit(teams.chat, answer["id"], "<p>No, wait</p>")
    await expect(log).to_contain_text("No, wait")
    await expect(log).to_contain_text("edited")
    await expect(log).not_to_contain_text("Yes, see")
    await expect(log).not_to_contain_text("heart")
    teams.sim.conversations.delete(teams.chat, answer["id"])
    await expect(log).to_contain_text("This message was deleted.")
    await expect(log).not_to_contain_text("pump-manual.pdf")

    # Favourites; group chats are not there.
    await press(page, "Favourite: Erika Expert")
    await expect(button(page, "Favourite: Erika Expert")).to_have_attribute("aria-pressed", "true")
    teams.say(teams.sim.conversations.one_to_one(ANN, MAX), "Lunch?", who=MAX)
    teams.sim.conversations.group("Crowd", ANN, ERIKA, MAX)
    pop = page.get_by_role("region", name="New Teams messages")
    await expect(pop).to_contain_text("Lunch?")
    await press(page, "Back")
    chats = page.get_by_role("list", name="Teams Chats").get_by_role("listitem")
    await expect(chats).to_have_text([re.compile("^Erika Expert.*★"), re.compile("^Max Experte.*1 new")])

    teams.sim.presence.client(ERIKA, "DoNotDisturb", "Presenting")
    await expect(chats.first).to_contain_text("Do not disturb, presenting")

    # The expert is called from the chat; meanwhile Teams shows the agent in a call.
    await expect(state).not_to_contain_text("Not ready", timeout=15_000)
    await chats.first.get_by_role("button").first.click()
    await press(page, "Call: Erika Expert, +1 (555) 123-0000")
    telephone = await teams.site.phones.expect_call()
    await telephone.answer()
    expert = await teams.site.teams.expect_invite()
    await expert.answer()
    await expect(page.get_by_role("heading", name=f"Call with {EXPERT}")).to_be_visible()
    await until(lambda: teams.sim.presence.shown(ANN) == ("Busy", "InACall"))
    await write(page, "Message", "Thank you!")
    await press(page, "Hang up")
    await telephone.expect_end()
    await expert.expect_end()


async def test_experts_are_consulted_added_and_transferred_to_from_the_directory(teams: TeamsSite) -> None:
    page = await teams.enabled()
    customer = await teams.site.carrier.call(ANNA)
    telephone = await teams.site.phones.expect_call()
    await telephone.answer()
    await customer.answered()
    await expect(page.get_by_role("heading", name=f"Call with {CUSTOMER}")).to_be_visible()

    await find(page, "erika expert")
    await press(page, "Consult: Erika Expert, +1 (555) 123-0000")
    expert = await teams.site.teams.expect_invite()
    await expect(page.get_by_text("Finish what rings or is consulted first.")).to_be_visible()
    await expect(button(page, "Consult: Erika Expert, +1 (555) 123-0000")).to_have_count(0)
    await expert.answer()
    await press(page, "Merge")
    await expect(page.get_by_role("heading", name="Conference of 3")).to_be_visible()

    # Max has no telephone in Teams: the attendant gets his name as digits.
    await expect(await find(page, "max")).to_contain_text("Busy, in a meeting")
    await press(page, "Add: Max Experte, Teams attendant")
    attendant = await teams.site.teams.expect_invite()
    assert attendant.invited is not None
    assert ATTENDANT in attendant.invited.request.uri
    await attendant.answer()
    await attendant.rtp.hears_digits("1629#")
    await press(page, f"Remove {ATTENDANT}")
    await attendant.expect_end()
    await press(page, f"Remove {EXPERT}")
    await expert.expect_end()

    await find(page, "eri")
    await press(page, "Transfer: Erika Expert, +1 555 123 0009")
    second = await teams.site.teams.expect_invite()
    await second.answer()
    await telephone.expect_end()
    await expect(button(page, "Call: Erika Expert, +1 555 123 0009")).to_be_visible()
    await customer.bye()
    await second.expect_end()


async def test_a_channel_has_threads_and_one_conversation_at_a_time(teams: TeamsSite) -> None:
    root = teams.say(teams.channel, "Which valve fits?")
    page = await teams.enabled()
    await page.get_by_role("tab", name="Teams Channels").click()
    await button(page, "Favourite: Support, Pumps").click()
    channels = page.get_by_role("list", name="Teams Channels").get_by_role("listitem")
    await expect(channels).to_have_text([re.compile("^PumpsSupport★"), re.compile("^GeneralSupport☆")])
    await channels.nth(1).get_by_role("button").first.click()
    log = page.get_by_role("log")
    await expect(log).to_contain_text("Which valve fits?")
    await page.get_by_label("New thread").fill("By the way")
    await press(page, "Thread of Erika Expert")
    reply = page.get_by_label("Reply in this thread")
    await expect(reply).to_have_value("")
    await reply.fill("The large")
    await press(page, "All threads")
    await expect(page.get_by_label("New thread")).to_have_value("By the way")
    await press(page, "Back")
    await channels.nth(1).get_by_role("button").first.click()
    await expect(page.get_by_label("New thread")).to_have_value("By the way")
    await press(page, "Thread of Erika Expert")
    await expect(reply).to_have_value("The large")
    await write(page, "Reply in this thread", "The small one")
    await expect(log).to_contain_text("The small one")
    assert [one["replyToId"] for one in teams.channel.messages.values()] == [None, root["id"]]
    teams.say(teams.channel, "It leaks", replyToId=root["id"])
    await expect(log).to_contain_text("It leaks")
    await press(page, "All threads")
    await expect(log).not_to_contain_text("It leaks")
    teams.say(teams.channel, "Much", replyToId=root["id"])
    await expect(button(page, "Thread of Erika Expert")).to_contain_text("new reply")
    await write(page, "New thread", "Who is on duty?")

    # A reload goes on with the conversation that is open; ended, nothing pops any more.
    await page.reload()
    await expect(log).to_contain_text("Who is on duty?")
    await press(page, "Back")
    await expect(channels.nth(1)).to_contain_text("open")
    teams.say(teams.channel, "I am", who=MAX)
    await button(page, "Open the message from Max Experte").click()
    await expect(log).to_contain_text("Who is on duty?")
    await expect(log).to_contain_text("I am")
    await press(page, "End conversation")
    await expect(channels.nth(1)).not_to_contain_text("open")
    teams.say(teams.channel, "Nobody hears this", who=MAX)
    teams.say(teams.chat, "But this")
    await expect(page.get_by_role("region", name="New Teams messages")).to_contain_text("But this")
    await expect(page.get_by_role("region", name="New Teams messages")).not_to_contain_text("Nobody")


async def test_what_is_wrong_with_teams_is_said_where_it_is_seen(teams: TeamsSite) -> None:
    page, sim = await teams.page(), teams.sim
    region = page.get_by_role("region", name="Teams", exact=True)
    sim.entra.impostor = ERIKA
    async with page.expect_popup() as opening:
        await press(page, "Enable Teams")
    window = await opening.value
    await expect(window.get_by_text("anna is mapped to another Teams user")).to_be_visible()
    await window.close()
    await expect(region).to_contain_text("Sign in with Microsoft in the other window.")
    await press(page, "Cancel")
    sim.entra.impostor = None
    await teams.sign_in(page, "Enable Teams")
    await find(page, "eri")
    search = page.get_by_role("combobox", name="Search Teams users")
    await search.fill("nobody at all")
    await expect(region).to_contain_text("Nobody found for “nobody at all”.")
    options = page.get_by_role("listbox", name="Teams Users").get_by_role("option")
    searched = teams.searches
    await search.evaluate(TYPE, ["e", "ex", "exp"])
    await expect(options).to_have_count(2)
    assert teams.searches == searched + 1, "one search for what was typed in one go"
    await search.press("ArrowDown")
    await expect(search).to_have_attribute("aria-activedescendant", f"person-{MAX}")
    await search.press("Enter")
    await expect(page.get_by_role("region", name="Max Experte")).to_be_visible()
    await page.get_by_role("tab", name="Teams Users").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tab", name="Teams Chats")).to_be_focused()
    await expect(region).to_contain_text("No chat yet.")

    sim.trouble("/me/chats", 500, count=1)
    await page.get_by_role("tab", name="Teams Chats").click()
    await expect(region.get_by_role("alert")).to_contain_text("Teams cannot be reached at the moment.")
    await page.get_by_role("tab", name="Teams Chats").click()
    await expect(region.get_by_role("alert")).to_have_count(0)

    # What could not be sent stays to be sent again.
    await page.get_by_role("tab", name="Teams Users").click()
    await find(page, "eri")
    await press(page, "Chat with Erika Expert")
    sim.trouble("/messages", 500, method="POST")
    message = page.get_by_label("Message", exact=True)
    await message.fill("Hello?")
    await message.press("Enter")
    await expect(region.get_by_role("alert")).to_contain_text("Not sent.")
    await expect(message).to_have_value("Hello?")
    await message.press("Enter")
    await expect(message).to_have_value("")
    await expect(page.get_by_role("log")).to_contain_text("Hello?")

    # What is written while the page is cut off comes with the connection.
    await teams.site.relay.cut()
    await expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible()
    teams.say(teams.chat, "I was away")
    teams.site.relay.mend()
    await expect(page.get_by_role("log")).to_contain_text("I was away", timeout=15_000)

    # The sign-in is revoked.
    sim.entra.revoked.add(ANN)
    sim.trouble("/me/chats", 401, count=-1)
    await press(page, "Back")
    await expect(region.get_by_role("alert")).to_contain_text("sign in to Teams again")
    sim.entra.revoked.clear()
    sim.troubles.clear()
    await teams.sign_in(page, "Sign in to Teams")
    await expect(page.get_by_role("list", name="Teams Chats")).to_contain_text("Erika Expert")

    # Nobody has mapped Bert; Anna may switch it off.
    bert = await teams.page("bert")
    await expect(bert.get_by_text("an administrator has to assign a Teams user to you")).to_be_visible()
    # Graph is not asked again for ten minutes, so this comes last.
    sim.trouble("/me/chats", 429, count=1, retry_after="600")
    await page.get_by_role("tab", name="Teams Chats").click()
    await expect(region.get_by_role("alert")).to_contain_text("Microsoft asks to wait")
    await press(page, "Profile")
    await expect(page.get_by_text("Teams is enabled. You are Anna Example there.")).to_be_visible()
    await press(page, "Disable Teams")
    await expect(button(page, "Enable Teams")).to_be_visible()


async def test_a_customers_web_chat_is_answered_and_joined_by_an_expert(teams: TeamsSite) -> None:
    page = await teams.enabled()
    begun = {"agent": "anna", "customer_name": "Carla Customer", "reference": "4711"}
    chat = (await teams.program("POST", "/api/v1/web-chats", begun))["id"]
    card = page.get_by_role("article", name="Web chat with Carla Customer")
    await expect(card).to_contain_text("4711")
    said = {"from": "customer", "text": "My <i>pump</i> leaks", "files": ["leak.jpg"]}
    await teams.program("POST", f"/api/v1/web-chats/{chat}/messages", said)
    await expect(card).to_contain_text("My <i>pump</i> leaks")
    await expect(card.get_by_role("list", name="Attached")).to_contain_text("leak.jpg")
    await write(page, "Message to Carla Customer", "I ask an expert.")

    await find(page, "eri")
    await press(page, "Join web chat with Carla Customer")
    await expect(card).to_contain_text("With Erika Expert")
    await until(lambda: any("My <i>pump</i> leaks" in one for one in teams.texts(teams.chat)))
    teams.say(teams.chat, "Close the valve", attachments=[FILE, CARD])
    await expect(card).to_contain_text("Close the valve")
    await expect(card.get_by_role("list", name="Attached").last).to_contain_text(ADAPTIVE)
    read = (await teams.program("GET", f"/api/v1/web-chats/{chat}/messages"))["messages"]
    expert = next(one for one in read if one["from"] == "expert")
    assert (expert["text"], expert["files"], expert["types"]) == (
        "Close the valve", ["pump-manual.pdf"], [ADAPTIVE],
    )  # fmt: skip
    await expect(page.get_by_role("region", name="New Teams messages")).to_have_count(0)
    await look_twice(page, "teams-web-chat", ".web-chat")
    await press(page, "Remove Erika Expert")
    await expect(card).to_contain_text("No expert has joined.")
    await card.get_by_role("button", name="End chat").click()
    await expect(card).to_have_count(0)


async def test_an_administrator_enters_tests_and_deletes_the_integration_account(teams: TeamsSite) -> None:
    page = await teams.enabled()
    ada = await teams.page("ada")
    await press(ada, "Administration")
    secret = ada.get_by_label("Client secret")
    tenant = await ada.get_by_label("Tenant id").input_value()
    await ada.get_by_label("Tenant id").fill("another")
    await press(ada, "Test connection")
    await expect(ada.get_by_role("alert")).to_contain_text("Enter the client secret")
    await ada.get_by_label("Tenant id").fill(tenant)
    await secret.fill("wrong")
    await press(ada, "Test connection")
    await expect(ada.get_by_role("alert")).to_contain_text("client secret is wrong")
    await secret.fill(SECRET)
    await press(ada, "Test connection")
    await expect(ada.get_by_text("The connection works.")).to_be_visible()
    await ada.get_by_label("Secret expires").fill(teams.in_days(12))
    await press(ada, "Save")
    await expect(ada.get_by_text("Saved.")).to_be_visible()
    await expect(secret).to_have_value("")
    await expect(ada.get_by_text("Teams: the client secret expires in 12 days")).to_be_visible()
    assert SECRET not in await ada.content()
    await press(ada, "Delete account")
    await press(ada, "Delete it")
    await expect(ada.get_by_text("Teams is switched off for everybody", exact=False).first).to_be_visible()
    await expect(page.get_by_text("Teams is switched off: an administrator has to enter")).to_be_visible()


async def look_twice(page: Page, name: str, what: str = ".teams") -> None:
    """Large and light, small and dark, its picture with `what` on the screen."""
    await page.emulate_media(color_scheme="dark")
    await page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    await look(page, f"{name}-narrow")
    if folder := os.environ.get("TANDEM_SCREENSHOTS"):
        await page.locator(what).first.evaluate("(element) => element.scrollIntoView()")
        await page.screenshot(path=Path(folder) / f"{name}-narrow.png")
        await page.evaluate("scrollTo(0, 0)")
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    await look(page, f"{name}-wide")


async def test_every_view_of_teams_is_accessible_and_fits(teams: TeamsSite) -> None:
    page = await teams.page()
    await expect(button(page, "Enable Teams")).to_be_visible()
    await look_twice(page, "teams-gate")
    await teams.sign_in(page, "Enable Teams")
    customer = await teams.site.carrier.call(ANNA)
    telephone = await teams.site.phones.expect_call()
    await telephone.answer()
    await customer.answered()
    page_list = page.get_by_role("listbox", name="Teams Users")
    await expect(page_list.get_by_role("option")).to_have_count(4)
    await page_list.get_by_text("Erika Expert").click()
    await expect(button(page, "Consult: Erika Expert, +1 (555) 123-0000")).to_be_visible()
    await look_twice(page, "teams-users")
    await press(page, "Chat with Erika Expert")
    teams.say(teams.chat, "Good morning! The manual is here:", attachments=[FILE])
    await write(page, "Message", "Thank you. Which part of it is about the valves?")
    teams.say(teams.chat, "Page 12. The drawing is on the card.", attachments=[CARD])
    await expect(page.get_by_role("log")).to_contain_text(ADAPTIVE)
    teams.say(teams.sim.conversations.one_to_one(ANN, MAX), "The order is ready.", who=MAX)
    await expect(button(page, "Open the message from Max Experte")).to_be_visible()
    await look_twice(page, "teams-chat")
    await press(page, "Back")
    await expect(page.get_by_role("list", name="Teams Chats")).to_contain_text("Max Experte")
    await look_twice(page, "teams-chats")
    teams.say(teams.channel, "Which valve fits pump 7?")
    await page.get_by_role("tab", name="Teams Channels").click()
    await page.get_by_role("button", name="General", exact=False).first.click()
    await expect(page.get_by_role("log")).to_contain_text("Which valve")
    await look_twice(page, "teams-channel")
    await press(page, "Profile")
    await look_twice(page, "teams-profile", ".narrow")
    await press(page, "My desk")
    await press(page, "Hang up")
    await customer.expect_end()
    await telephone.expect_end()
    ada = await teams.page("ada")
    await press(ada, "Administration")
    await expect(ada.get_by_label("Tenant id")).not_to_have_value("")
    await press(ada, "Test connection")
    await expect(ada.get_by_text("The connection works.")).to_be_visible()
    await look_twice(ada, "teams-account", ".account")
