"""Headless Chromium whose fake microphone says a tone: one process for each tone, shared by the session."""

from __future__ import annotations

import wave
from pathlib import Path

from playwright.async_api import Browser, Playwright

from tests.peers import tone

EXECUTABLE = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
_RATE = 48000


class Browsers:
    """`await speaking(hz)`: the browser in which every page's microphone hears that tone."""

    def __init__(self, playwright: Playwright, folder: Path) -> None:
        self._playwright, self._folder = playwright, folder
        self._running: dict[float, Browser] = {}

    async def speaking(self, hz: float) -> Browser:
        browser = self._running.get(hz)
        if browser is None or not browser.is_connected():
            file = _tone_file(self._folder / f"{hz:.0f}.wav", hz)
            flags = [*FLAGS, f"--use-file-for-fake-audio-capture={file}"]
            browser = await self._playwright.chromium.launch(executable_path=EXECUTABLE, args=flags)
            self._running[hz] = browser
        return browser

    async def close(self) -> None:
        for browser in self._running.values():
            await browser.close()


def _tone_file(path: Path, hz: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(tone.sine(hz, 10.0, rate=_RATE).astype("<i2").tobytes())
    return path
