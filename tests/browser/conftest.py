"""A PKI and the browsers for the session; each test has a gateway of its own.

All tests of this room run in one event loop, because Playwright's driver lives in it: starting one for each
test would take longer than most of the tests.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from tests.browser.chromium import Browsers
from tests.browser.site import Site, open_site
from tests.peers.certs import Pki, make_pki
from tests.support import leaks

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browsers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browsers]:
    async with async_playwright() as playwright:
        browsers = Browsers(playwright, tmp_path_factory.mktemp("tones"))
        yield browsers
        await browsers.close()


@pytest_asyncio.fixture(loop_scope="session")
async def _task_guard() -> AsyncIterator[None]:
    """As in tests/conftest.py, but the session's own tasks (Playwright's) were there before."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=leaks.PATIENCE)
    if left:
        pytest.fail("tasks left behind: " + "; ".join(sorted(map(repr, left))), pytrace=False)


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path, pki: Pki, browsers: Browsers) -> AsyncIterator[Site]:
    async with open_site(tmp_path, pki, browsers) as site:
        yield site
