"""The desktop's files over a real socket: what is served, how it is kept, and nothing else of the disk."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.api.web_routes import FOLDER, web_operations
from tests.api.site import Site, open_site

NAMES = sorted(path.name for path in FOLDER.iterdir())


async def test_the_page_may_load_nothing_from_elsewhere() -> None:
    async with open_site(*web_operations()) as site:
        reply = await site.get("/desk/")
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


async def test_every_file_is_served_and_is_not_sent_twice() -> None:
    async with open_site(*web_operations()) as site:
        for name in NAMES:
            reply = await site.get(f"/desk/{name}")
            assert reply.status == 200, name
            assert reply.body == (FOLDER / name).read_bytes()
            assert reply.headers["Cache-Control"] == "no-cache"
            again = await site.get(f"/desk/{name}", headers={"If-None-Match": reply.headers["Etag"]})
            assert (again.status, again.body) == (304, b""), name


async def test_what_the_page_and_its_modules_ask_for_is_there() -> None:
    for name in NAMES:
        text = (FOLDER / name).read_text()
        wanted = re.findall(r'from "\./([^"]+)"', text) + re.findall(r'(?:href|src)="([\w.]+)"', text)
        assert set(wanted) <= set(NAMES), name


async def raw(site: Site, target: str) -> bytes:
    """The status line for a target as it is: clients tidy paths up before they send them."""
    reader, writer = await asyncio.open_connection(*site.api.address)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "target",
    [
        "/desk/../api/server.py",
        "/desk/%2e%2e/api/server.py",
        "/desk/..%2fapi%2fserver.py",
        "/desk/%2e%2e%2fapi%2fserver.py",
        "/desk/..%5cserver.py",
        "/desk//etc/passwd",
        "/desk/%2fetc%2fpasswd",
        "/desk/main.js%00.html",
        "/desk/.",
        "/desk/../desk.py",
    ],
)
async def test_trap_a_path_leads_out_of_the_folder(target: str) -> None:
    async with open_site(*web_operations()) as site:
        answer = await raw(site, target)
        assert answer.split()[1] in (b"404", b"400"), answer[:200]
        assert b"import" not in answer


async def test_the_front_leads_to_the_desktop_and_keeps_why_entra_refused() -> None:
    async with open_site(*web_operations()) as site:
        for path, there in (
            ("/", "/desk/"),
            ("/desk", "/desk/"),
            ("/?refused=expired", "/desk/?refused=expired"),
        ):
            reply = await site.get(path, allow_redirects=False)
            assert (reply.status, reply.headers["Location"]) == (302, there)
