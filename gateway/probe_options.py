"""The options of `tandem probe`. Light on purpose: the command line is read with this before all else."""

from __future__ import annotations

import argparse


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], *parents: argparse.ArgumentParser
) -> None:
    """`probe` of the command line."""
    text = "call a test number as a synthetic agent and measure the call"
    parser = commands.add_parser("probe", parents=parents, help=text, description=text)
    parser.add_argument("number", nargs="?", default="", metavar="NUMBER", help="default: [probe] number")
    parser.add_argument("--agent", default="", metavar="LOGIN", help="default: [probe] agent")
    parser.add_argument("--trunk", default="", metavar="NAME", help="call over this trunk")
    parser.add_argument("--url", default="", help="of another machine's gateway, with --secret")
    parser.add_argument("--sign-in", action="store_true", help="with the agent's account; --secret: password")
    parser.add_argument("--secret", default="", metavar="env:NAME|file:PATH", help="token or password")
    parser.add_argument(
        "--seconds", type=_listening, default=5.0, metavar="S", help="listen so long; default 5"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="wait so long for an answer; default 30"
    )
    parser.add_argument(
        "--tone", type=float, default=0.0, metavar="HZ", help="the number plays this tone; default: it echoes"
    )
    for name, what in (("setup", "S"), ("delay", "MS"), ("loss", "PERCENT")):
        parser.add_argument(f"--max-{name}", type=float, metavar=what, help="limit; default: [probe]")
    parser.add_argument("--min-mos", type=float, metavar="MOS", help="limit; default: [probe]")
    parser.add_argument("--metrics", action="store_true", help="Prometheus text")


def _listening(text: str) -> float:
    seconds = float(text)
    if not 2 <= seconds <= 60:
        raise argparse.ArgumentTypeError("between 2 and 60: one reference signal a second, and the way back")
    return seconds
