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
from gateway.local_api import Refused, ask
from gateway.tables_text import table


def trunks(path: Path, *, as_json: bool) -> ExitCode:
    """Print one line a peer, then what is wrong; UNAVAILABLE when no gateway runs."""
    try:
        state_dir = load(path).gateway.state_dir
    except ConfigError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.CONFIG
    try:
        document = asyncio.run(ask(state_dir, "GET", "/api/v1/trunks"))
    except PermissionError:
        print(f"tandem: {state_dir} is not yours: be the gateway's user, or root", file=sys.stderr)
        return ExitCode.NOT_PERMITTED
    except (Refused, aiohttp.ClientError, TimeoutError, LookupError) as error:
        print(f"tandem: {str(error) or 'no answer'}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    print(json.dumps(document, indent=2) if as_json else overview(document["trunks"]))
    return ExitCode.OK


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
