"""The verbs of `tandem call`: their arguments, and the request of the control API that each one is.

Light on purpose: the command line is read with this before anything else is loaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verb:
    """`tandem call NAME …`.

    takes:   positional arguments; `leg?` may be left out
    path:    below /api/v1/calls; the part that names a leg is dropped when none is given
    body:    the request's body from the options, None for none
    options: names of the options it knows besides --json and --config
    """

    name: str
    help: str
    takes: tuple[str, ...]
    method: str
    path: str
    body: Callable[[argparse.Namespace], dict[str, Any] | None] = lambda _: None
    options: tuple[str, ...] = ()


_ONE, _LEG = "/{call}", "/{call}/legs/{leg}"


def _dial(options: argparse.Namespace) -> dict[str, Any]:
    return {"number": options.number, "trunk": options.trunk}


def _add(options: argparse.Namespace) -> dict[str, Any]:
    return {**_dial(options), **({"by": options.by} if options.by else {})}


def _hold(on: bool) -> Callable[[argparse.Namespace], dict[str, Any]]:
    return lambda options: {"on_hold": on, "by": options.by} if options.by else {"holding": on}


VERBS = (
    Verb("show", "a call and its parties", ("call",), "GET", _ONE),
    Verb(
        "place",
        "ring an agent, then call a number for him",
        ("agent", "number"),
        "POST",
        "",
        lambda options: {**_dial(options), "agent": options.agent},
        ("trunk",),
    ),
    Verb("answer", "let a telephone that rings answer", ("call", "leg"), "POST", _LEG + "/answer"),
    Verb("hangup", "end a call, or hang up for one party", ("call", "leg?"), "DELETE", _ONE),
    Verb("add", "call a further party into the call", ("call", "number"), "POST", _ONE + "/legs", _add,
         ("trunk", "by")),
    Verb("remove", "disconnect a party; the others go on", ("call", "leg"), "DELETE", _LEG),
    Verb("hold", "a party holds the call; with --by it is put on hold itself", ("call", "leg"), "PATCH", _LEG,
         _hold(True), ("by",)),
    Verb("resume", "take back what `hold` did", ("call", "leg"), "PATCH", _LEG, _hold(False), ("by",)),
    Verb("mute", "let nobody hear a party", ("call", "leg"), "PATCH", _LEG, lambda _: {"muted": True}),
    Verb("unmute", "let it be heard again", ("call", "leg"), "PATCH", _LEG, lambda _: {"muted": False}),
    Verb("consult", "a party holds the call and consults a number", ("call", "leg", "number"), "POST",
         _LEG + "/consultation", _dial, ("trunk",)),
    Verb("merge", "make a conference of call and consultation", ("call",), "POST",
         _ONE + "/consultation/merge"),
    Verb("back", "end the consultation, go back to the call", ("call",), "DELETE", _ONE + "/consultation"),
    Verb("transfer", "blind: a number takes a party's place", ("call", "leg", "number"), "POST",
         _LEG + "/transfer", _dial, ("trunk",)),
    Verb("complete", "attended: the consulted party takes the agent's place", ("call",), "POST",
         _ONE + "/consultation/transfer"),
    Verb("digits", "send DTMF to a party", ("call", "leg", "digits"), "POST", _LEG + "/digits",
         lambda options: {"digits": options.digits}),
    Verb("music", "who hears music while somebody holds", ("call", "policy"), "PATCH", _ONE,
         lambda options: {"music": options.policy}),
    Verb("stage", "tell where the contact center has the caller, for the records", ("call", "stage"), "PATCH",
         _ONE, lambda options: {"stage": options.stage}),
    Verb("supervise", "call a supervisor of a party's conversation", ("call", "leg", "number"), "POST",
         _LEG + "/supervisors", lambda options: {"number": options.number, "mode": options.mode}, ("mode",)),
)  # fmt: skip

_HELP = {
    "call": "id, or how it begins",
    "leg": "id, or how it begins; number; login; caller or callee",
    "number": "telephone number",
    "agent": "login of an agent, or the number to ring",
    "digits": "0-9 * # A-D",
    "policy": "remaining, alone or never",
    "stage": "ivr, queue, ringing or connected",
}


def add_parsers(commands: Any, parents: Iterable[argparse.ArgumentParser]) -> None:
    """`calls` and `call` of the command line."""
    parents = list(parents)
    commands.add_parser("calls", parents=parents, help="calls that are up")
    verbs = commands.add_parser("call", help="command a call").add_subparsers(
        dest="verb", required=True, metavar="VERB"
    )
    for verb in VERBS:
        parser = verbs.add_parser(verb.name, parents=parents, help=verb.help, description=verb.help)
        for name in verb.takes:
            more: dict[str, Any] = {}
            if name == "policy":
                more["choices"] = ("remaining", "alone", "never")
            if name == "stage":
                more["choices"] = ("ivr", "queue", "ringing", "connected")
            if name.endswith("?"):
                more.update(nargs="?", default="")
            name = name.removesuffix("?")
            parser.add_argument(name, metavar=name.upper(), help=_HELP[name], **more)
        if "trunk" in verb.options:
            parser.add_argument("--trunk", default="", metavar="NAME", help="call over this trunk")
        if "by" in verb.options:
            parser.add_argument("--by", default="", metavar="LEG", help="the party that does it")
        if "mode" in verb.options:
            parser.add_argument("--mode", default="listen", choices=("listen", "whisper", "barge"))
