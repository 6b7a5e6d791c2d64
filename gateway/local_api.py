"""The HTTP API of the gateway that runs on this machine, for the command line tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from gateway.errors import TandemError
from gateway.state_dir import read_note

_LIMIT = aiohttp.ClientTimeout(total=30)


class Refused(TandemError):
    """The gateway's problem document: `status` and what it says, for people."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(detail)


async def ask(state_dir: Path, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The answer's JSON, None when it has none.

    LookupError: no gateway runs on `state_dir`. PermissionError: not ours to ask. Refused: it said no.
    aiohttp.ClientError, TimeoutError: no good answer.
    """
    note = read_note(state_dir)
    if note is None:
        raise LookupError(f"no gateway runs on {state_dir}")
    host = f"[{note.host}]" if ":" in note.host else note.host
    headers = {"Authorization": f"Bearer {note.token}"}
    async with (
        aiohttp.ClientSession(timeout=_LIMIT, headers=headers) as session,
        session.request(method, f"http://{host}:{note.port}{path}", json=body) as response,
    ):
        document = await response.json() if response.content_type.endswith("json") else None
        if response.status >= 400:
            problem = document if isinstance(document, dict) else {}
            text = problem.get("detail") or problem.get("title") or f"HTTP {response.status}"
            raise Refused(response.status, str(text))
        return document
