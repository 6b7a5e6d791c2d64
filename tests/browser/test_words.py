"""Every word that the page says is in texts.js, so that a further language is a further table there."""

from __future__ import annotations

import re

from playwright.async_api import Page, Route, expect

from gateway.api.web_routes import FOLDER
from tests.browser.actions import NUMBER
from tests.browser.site import ANNA, CUSTOMER, EXPERT, Site
from tests.support.waiting import until

SCRIPTS = {path.name: path.read_text() for path in FOLDER.glob("*.js")}
KEYS = re.findall(r"^  (\w+): ", SCRIPTS["texts.js"].split("const languages")[0], re.M)
DATA = {ANNA, CUSTOMER, EXPERT, "Tandem", "Anna Example", "Service", "⟦Tandem⟧"}
"""What no language translates: numbers, names."""
SAID = """() => {
  const said = [document.title];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const { parentElement, nodeValue } = walk.currentNode;
    if (!parentElement.closest("script, noscript")) said.push(nodeValue);
  }
  for (const name of ["aria-label", "placeholder", "title", "alt"])
    for (const node of document.querySelectorAll(`[${name}]`)) said.push(node.getAttribute(name));
  return said;
}"""


def test_every_word_that_is_asked_for_is_there_and_each_once() -> None:
    assert len(KEYS) == len(set(KEYS))
    for name, text in SCRIPTS.items():
        asked = set(re.findall(r'\bt\("(\w+)"', text))
        assert asked <= set(KEYS), f"{name}: {sorted(asked - set(KEYS))}"


def test_no_word_is_there_that_nobody_asks_for() -> None:
    used = "\n".join(text for name, text in SCRIPTS.items() if name != "texts.js")
    words = set(re.findall(r"\w+", used))
    stems = set(re.findall(r"t\(`(\w+?)\$\{", used))
    told = {  # by the gateway: states, party types, roles, how calls ended
        "ready", "not_ready", "busy", "supervising", "agent", "teams_expert", "external",
    }  # fmt: skip
    dispositions = set(KEYS[KEYS.index("Inbound") : KEYS.index("browser_phone")])
    stale = [k for k in KEYS if k not in words | told | dispositions and not any(map(k.startswith, stems))]
    assert stale == []


async def foreign(route: Route) -> None:
    """The table, every text in brackets."""
    table, rest = SCRIPTS["texts.js"].split("const languages", 1)
    table = re.sub(r'^(  \w+: ")(.*)(",)$', r"\1⟦\2⟧\3", table, flags=re.M)
    await route.fulfill(body=f"{table}const languages{rest}", content_type="text/javascript")


async def look(page: Page) -> None:
    said = {" ".join(text.split()) for text in await page.evaluate(SAID)}
    plain = {text for text in said if re.search(r"[^\W\d_]", re.sub(r"⟦[^⟧]*⟧", "", text))}
    # A name within a text leaves its bracket open on either side; dates are the browser's own.
    left = {text for text in plain if not any(name in text for name in DATA) and "⟦" not in text}
    assert {text for text in left if not re.fullmatch(r"[\d/:,\sAPM]+", text)} == set()


async def test_another_language_leaves_no_english_word_on_the_page(site: Site) -> None:
    page = await site.page()
    await page.route("**/desk/texts.js", foreign)
    await page.reload()
    await expect(page.get_by_text("⟦Sign in⟧")).to_be_visible()
    await look(page)
    await page.get_by_label("⟦Login⟧").fill("anna")
    await page.get_by_label("⟦Password⟧").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("⟦That did not work: ⟦login or password is wrong⟧⟧")
    await page.get_by_label("⟦Password⟧").fill("correct horse battery")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("⟦Connected⟧")).to_be_visible()
    customer = await site.carrier.call(ANNA)
    telephone = await site.phones.expect_call()
    telephone.ring()
    await expect(page.get_by_role("alert")).to_contain_text(CUSTOMER)
    await look(page)
    await telephone.answer()
    await page.get_by_label(f"⟦{NUMBER}⟧").fill(EXPERT)
    await page.get_by_role("button", name="⟦Keypad⟧").click()
    await look(page)
    await page.get_by_role("button", name="⟦Consult⟧").click()
    expert = await site.teams.expect_invite()
    await expert.answer()
    await expect(page.get_by_role("button", name="⟦Merge⟧")).to_be_visible()
    await look(page)
    await page.get_by_role("button", name="⟦Merge⟧").click()
    await expert.hold()
    await expect(page.get_by_text("⟦holds⟧")).to_be_visible()
    await look(page)
    await page.get_by_role("button", name="⟦End for all⟧").click()
    for party in (customer, telephone, expert):
        await party.expect_end()
    await expect(page.get_by_role("region", name="⟦History⟧").get_by_role("listitem")).not_to_have_count(0)
    await look(page)
    await until(lambda: not site.gateway.telephony.calls.calls)
