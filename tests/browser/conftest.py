"""A PKI for the session; each test has a gateway and a browser of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser.site import Site, open_site
from tests.peers.certs import Pki, make_pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def site(tmp_path: Path, pki: Pki) -> AsyncIterator[Site]:
    async with open_site(tmp_path, pki) as site:
        yield site
