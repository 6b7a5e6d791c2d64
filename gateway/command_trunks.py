"""`tandem trunks`: asks the running gateway of this machine how its trunks are."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

from gateway.config import load
from gateway.errors import ConfigError
from gateway.exit_codes import ExitCode
from gateway.state_dir import read_note
from gateway.tables_text import table

_LIMIT = aiohttp.ClientTimeout(total=10)


def trunks(path: Path, *, as_json: bool) -> ExitCode:
    """Print one line a peer, then what is wrong; UNAVAILABLE when no gateway runs."""
    try:
        state_dir = load(path).gateway.state_dir
    except ConfigError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.CONFIG
    try:
        document = asyncio.run(ask(state_dir, "/api/v1/trunks"))
    except PermissionError:
        print(f"tandem: {state_dir} is not yours: be the gateway's user, or root", file=sys.stderr)
        return ExitCode.NOT_PERMITTED
    except (aiohttp.ClientError, TimeoutError, LookupError) as error:
        print(f"tandem: {str(error) or 'no answer'}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    print(json.dumps(document, indent=2) if as_json else overview(document["trunks"]))
    return ExitCode.OK


async def ask(state_dir: Path, path: str) -> Any:
    """GET from the gateway that runs on `state_dir`.

    LookupError: none runs. PermissionError: not ours to ask. ClientError, TimeoutError: no good answer.
    """
    note = read_note(state_dir)
    if note is None:
        raise LookupError(f"no gateway runs on {state_dir}")
    host = f"[{note.host}]" if ":" in note.host else note.host
    headers = {"Authorization": f"Bearer {note.token}"}
    async with (
        aiohttp.ClientSession(timeout=_LIMIT, headers=headers) as session,
        session.get(f"http://{host}:{note.port}{path}") as response,
    ):
        response.raise_for_status()
        return await response.json()


def overview(trunks: list[dict[str, Any]]) -> str:
    """The table for people: peers, then alarms with their cures."""
    if not trunks:
        return "no trunks"
    rows = []
    for trunk in trunks:
        for peer in trunk["peers"]:
            rtt = f"{peer['rtt_ms']:.0f} ms" if peer["rtt_ms"] is not None else "-"
            answered = peer["answered"] or "-"
            error = peer["last_error"] or "-"
            rows.append((trunk["name"], trunk["kind"], peer["peer"], peer["state"], rtt, answered, error))
    lines = [table(("TRUNK", "KIND", "PEER", "STATE", "RTT", "ANSWERED", "LAST ERROR"), rows)]
    lines += [f"{trunk['name']}: {alarm}" for trunk in trunks for alarm in trunk["alarms"]]
    return "\n".join(lines)
