"""`tandem calls` and `tandem call …`: the control API of the gateway of this machine, from a shell."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from gateway.call_verbs import VERBS, Verb
from gateway.config import load
from gateway.errors import ConfigError
from gateway.exit_codes import ExitCode
from gateway.local_api import Refused, ask
from gateway.tables_text import table

_CALLS = "/api/v1/calls"
_SHORT = 8
"""Characters of an id that are shown; the gateway's are random, so they tell calls apart."""


def calls(path: Path, *, as_json: bool) -> ExitCode:
    """Print the calls that are up, one line each."""

    async def run(state_dir: Path) -> str:
        document = await ask(state_dir, "GET", _CALLS)
        return json.dumps(document, indent=2) if as_json else overview(document["calls"])

    return _through(path, run)


def call(path: Path, options: argparse.Namespace) -> ExitCode:
    """Carry out one verb and print what the gateway answers."""
    verb = next(verb for verb in VERBS if verb.name == options.verb)

    async def run(state_dir: Path) -> str:
        document = await _request(state_dir, verb, options)
        if options.json:
            return json.dumps(document, indent=2)
        if document is None:
            return "done"
        return details(document) if "legs" in document else _legs([document])

    return _through(path, run)


def _through(path: Path, run: Callable[[Path], Coroutine[Any, Any, str]]) -> ExitCode:
    try:
        state_dir = load(path).gateway.state_dir
        text = asyncio.run(run(state_dir))
    except ConfigError as error:
        return _fail(str(error), ExitCode.CONFIG)
    except PermissionError:
        return _fail(f"{state_dir} is not yours: be the gateway's user, or root", ExitCode.NOT_PERMITTED)
    except Refused as error:
        code = {401: ExitCode.NOT_PERMITTED, 403: ExitCode.NOT_PERMITTED, 503: ExitCode.UNAVAILABLE}
        return _fail(str(error), code.get(error.status, ExitCode.REFUSED))
    except (aiohttp.ClientError, TimeoutError, LookupError) as error:
        return _fail(str(error) or "no answer", ExitCode.UNAVAILABLE)
    print(text)
    return ExitCode.OK


def _fail(text: str, code: ExitCode) -> ExitCode:
    print(f"tandem: {text}", file=sys.stderr)
    return code


async def _request(state_dir: Path, verb: Verb, options: argparse.Namespace) -> Any:
    path, names = verb.path, {}
    if "call" in verb.takes:
        found = (await ask(state_dir, "GET", _CALLS))["calls"]
        chosen = find_call(found, options.call)
        names["call"] = chosen["id"]
        if getattr(options, "leg", ""):
            names["leg"] = find_leg(chosen, options.leg)
        if getattr(options, "by", ""):
            options.by = find_leg(chosen, options.by)
    method = verb.method
    if verb.name == "hangup" and "leg" in names:
        method, path = "POST", path + "/legs/{leg}/hangup"
    for name, value in names.items():
        path = path.replace("{" + name + "}", quote(value, safe=""))
    return await ask(state_dir, method, _CALLS + path, verb.body(options))


def find_call(found: list[dict[str, Any]], text: str) -> dict[str, Any]:
    """The one call whose id begins so. Refused when there is none, or more than one."""
    fitting = [one for one in found if text and one["id"].startswith(text.lower())]
    if not fitting:
        raise Refused(404, f"there is no call {text}: `tandem calls` lists them")
    if len(fitting) > 1:
        raise Refused(409, f"{text} begins the ids of {len(fitting)} calls: give more of it")
    return fitting[0]


def find_leg(one: dict[str, Any], text: str) -> str:
    """Id of the leg meant by its id's beginning, number, login, or role. Refused as above."""
    by_word = [leg for leg in one["legs"] if text in (leg["id"], leg["number"], leg["login"], leg["role"])]
    fitting = by_word or [leg for leg in one["legs"] if leg["id"].startswith(text.lower())]
    if not fitting:
        raise Refused(404, f"there is no party {text} in the call: `tandem call show` lists them")
    if len(fitting) > 1:
        raise Refused(409, f"{text} could be {len(fitting)} parties of the call: name one by its id")
    return str(fitting[0]["id"])


def overview(found: list[dict[str, Any]]) -> str:
    """One line a call."""
    if not found:
        return "no calls"
    rows = [
        (
            one["id"][:_SHORT],
            one["state"],
            _clock(one["started_at"]),
            one["from_number"] or "-",
            one["to_number"] or "-",
            str(len(one["legs"])),
            _remarks(one),
        )
        for one in found
    ]
    return table(("CALL", "STATE", "SINCE (UTC)", "FROM", "TO", "PARTIES", ""), rows)


def details(one: dict[str, Any]) -> str:
    """A call with its parties."""
    return "\n".join(
        [
            f"call         {one['id']}",
            f"interaction  {one['interaction']}",
            f"state        {one['state']}{'  ' if _remarks(one) else ''}{_remarks(one)}",
            f"music        {one['music']}",
            "",
            _legs(one["legs"]),
        ]
    )


def _remarks(one: dict[str, Any]) -> str:
    words = ["conference"] if one["in_room"] else []
    if any(leg["holding"] for leg in one["legs"]):
        words.append("on hold")
    if one["consultation_of"]:
        words.append(f"consultation of {one['consultation_of'][:_SHORT]}")
    if one["consultation"]:
        words.append(f"consults in {one['consultation'][:_SHORT]}")
    return ", ".join(words)


def _legs(legs: list[dict[str, Any]]) -> str:
    rows = [
        (
            leg["id"][:_SHORT],
            leg["role"],
            leg["party"],
            leg["number"] or "-",
            leg["login"] or "-",
            leg["trunk"],
            leg["state"],
            _marks(leg),
        )
        for leg in legs
    ]
    return table(("PARTY", "ROLE", "KIND", "NUMBER", "LOGIN", "TRUNK", "STATE", ""), rows)


def _marks(leg: dict[str, Any]) -> str:
    words = [
        word
        for word, so in (
            ("host", leg["host"]),
            ("holds", leg["holding"]),
            ("on hold", leg["on_hold"]),
            ("muted", leg["muted"]),
            ("in the consultation", leg["away"]),
        )
        if so
    ]
    return ", ".join([*words, leg["supervision"]] if leg["supervision"] else words)


def _clock(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%H:%M:%S")
