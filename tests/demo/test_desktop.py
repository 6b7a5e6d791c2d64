"""`scripts/demo --desktop` as its user finds it: sign in, talk, consult the expert, see him hold, end it."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

from playwright.async_api import Page, async_playwright, expect

from tests.demo.processes import ROOT, tandem
from tests.demo.test_demo import _running
from tests.peers.tone import loudness
from tests.peers.voice import read_audio
from tests.support import ports

BROWSER = (
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)


LONG = 20_000
"""Milliseconds for a page on a busy machine."""


class Terminal:
    """What the demo prints, and what is typed."""

    def __init__(self, process: Process) -> None:
        self._process, self.said = process, ""

    async def until(self, pattern: str, within: float = 60.0) -> re.Match[str]:
        """Read until it has been printed behind what was read before."""
        assert self._process.stdout is not None
        text = ""
        async with asyncio.timeout(within):
            while not (found := re.search(pattern, text)):
                line = await self._process.stdout.readline()
                assert line, self.said
                text += line.decode()
                self.said += line.decode()
        return found

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")


async def hears_somebody(page: Page) -> None:
    async with asyncio.timeout(10):
        while await page.locator("#level-in").evaluate("meter => meter.value") < 0.02:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_an_agent_signs_in_takes_a_call_and_sees_the_expert_hold(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.demo", "--desktop", "--output", str(folder)),
        *("--port", str(ports.free_port(also_udp=False))),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
    )
    terminal = Terminal(process)
    try:
        found = await terminal.until(r"(http://\S+)\s+login: (\S+)\s+password: (\S+)")
        expert = (await terminal.until(r"the expert (\+\d+)"))[1]
        await terminal.until("Ctrl-C ends everything")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=[*BROWSER])
            page = await browser.new_page(ignore_https_errors=True)
            await page.goto(found[1])
            await page.get_by_label("Login").fill(found[2])
            await page.get_by_label("Password").fill(found[3])
            await page.get_by_role("button", name="Sign in").click()
            async with page.expect_popup() as opening:
                await page.get_by_role("button", name="Enable Teams", exact=True).click()
            await expect((await opening.value).get_by_text("Teams is enabled.")).to_be_visible(timeout=LONG)
            await (await opening.value).close()
            await expect(page.get_by_role("tab", name="Teams Users")).to_be_visible(timeout=LONG)
            terminal.type("m Do you have a minute?")
            await expect(page.get_by_text("Do you have a minute?").first).to_be_visible(timeout=LONG)
            await page.get_by_label("Use this browser as my telephone").check()
            await expect(page.get_by_text("ready to ring")).to_be_visible(timeout=LONG)
            terminal.type("c")
            await page.get_by_role("button", name="Answer", exact=True).click()
            await terminal.until("customer talks")
            await hears_somebody(page)
            await tandem("restart", "--config", str(folder / "tandem.toml"))
            await expect(page.get_by_text("ready to ring")).to_be_visible(timeout=LONG)
            await hears_somebody(page)
            await page.get_by_label("Number to consult, add or transfer to").fill(expert)
            await page.get_by_role("button", name="Consult", exact=True).click()
            await terminal.until("expert talks")
            await page.get_by_role("button", name="Merge", exact=True).click()
            await expect(page.get_by_role("heading", name="Conference of 3")).to_be_visible(timeout=LONG)
            terminal.type("h")
            await terminal.until("expert holds")
            held = page.get_by_text(f"On hold by Teams expert {expert}")
            await expect(held).to_be_visible(timeout=LONG)
            terminal.type("r")
            await terminal.until("expert is back")
            await expect(held).to_have_count(0, timeout=LONG)
            terminal.type("b")
            heard = await terminal.until(r"customer heard .*: (/.*\.wav)")
            assert loudness(read_audio(Path(heard[1]))) > -60
            terminal.type("what")
            await terminal.until("the customer calls Anna")
            process.send_signal(signal.SIGINT)
            await terminal.until("No process or port is left")
            await browser.close()
        assert await process.wait() == 0, terminal.said
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert "FAILED" not in terminal.said
    # the restart in mid-call asked nothing of the browser
    assert "leg_rebuilt" not in (folder / "gateway.log").read_text()
    assert not [command for command in _running().values() if str(folder) in command]
