"""The command `tandem`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from gateway.call_verbs import add_parsers
from gateway.exit_codes import ExitCode
from gateway.probe_options import add_parser as add_probe

CANDIDATES = (Path("config/tandem.toml"), Path("/etc/tandem/tandem.toml"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is one of `gateway.exit_codes` (argparse's own is 2 as well)."""
    options = _parser().parse_args(arguments)
    if options.command == "version":
        print(f"tandem {metadata.version('tandem')}")
        return ExitCode.OK
    path = options.config or default_config()
    try:
        return _dispatch(options, path)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except KeyboardInterrupt:
        return 130


def _dispatch(options: argparse.Namespace, path: Path) -> ExitCode:
    # Each command imports its own rooms, so that `tandem version` does not load a SIP stack.
    match options.command:
        case "check-config":
            from gateway.command_run import check

            return check(path)
        case "restart":
            from gateway.command_run import restart

            return restart(path)
        case "trunks":
            from gateway.command_trunks import trunks

            return trunks(path, as_json=options.json)
        case "calls":
            from gateway.command_calls import calls

            return calls(path, as_json=options.json)
        case "call":
            from gateway.command_calls import call

            return call(path, options)
        case "account":
            from gateway.command_account import account

            return account(path, options)
        case "probe":
            from gateway.command_probe import probe

            return probe(path, options)
        case "cdr":
            from gateway.cdr.report import Query
            from gateway.command_cdr import cdr

            query = Query(
                start=options.since,
                end=options.until,
                agent=options.agent,
                number=options.number,
                trunk=options.trunk,
                giid=options.giid,
                oldest_first=options.order == "oldest",
            )
            form = "ndjson" if options.json else options.format
            return cdr(path, query, form=form, limit=options.limit, output=options.output)
        case _:
            from gateway.command_run import run

            return run(path)


def default_config() -> Path:
    """`$TANDEM_CONFIG`, else the first of the usual places that exists, else the last of them."""
    named = os.environ.get("TANDEM_CONFIG")
    if named:
        return Path(named)
    return next((path for path in CANDIDATES if path.exists()), CANDIDATES[-1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tandem",
        description="SIP gateway between a contact center and Microsoft Teams Direct Routing.",
        epilog="Exit codes: 0 done, 1 the probe missed a limit, 2 usage, 65 refused by the gateway, "
        "69 something needed is not there, "
        "70 internal error, 73 state_dir cannot be written, 75 port or state_dir taken, 77 not permitted, "
        "78 configuration.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: $TANDEM_CONFIG, config/tandem.toml, /etc/tandem/tandem.toml",
    )
    listing = argparse.ArgumentParser(add_help=False)
    listing.add_argument("--json", action="store_true", help="for machines")

    commands.add_parser("run", parents=[common], help="run the gateway in the foreground")
    commands.add_parser("check-config", parents=[common], help="name every mistake of a configuration")
    commands.add_parser("restart", parents=[common], help="execute the running gateway anew; calls go on")
    commands.add_parser("trunks", parents=[common, listing], help="trunks as the running gateway sees them")
    add_parsers(commands, [common, listing])
    _add_cdr(commands, common)
    add_probe(commands, common, listing)
    _add_account(commands, common, listing)
    commands.add_parser("version", help="print the version")
    return parser


def _add_cdr(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    cdr = commands.add_parser("cdr", parents=[common], help="call detail: filters and forms as of the API")
    cdr.add_argument("--since", type=_time, metavar="TIME", help="2026-01-31[T12:00] UTC; 90m, 24h, 7d ago")
    cdr.add_argument("--until", type=_time, metavar="TIME", help="before this moment")
    cdr.add_argument("--agent", default="", metavar="LOGIN", help="who had a leg in the call")
    cdr.add_argument("--number", default="", help="exactly one of the five phone numbers of a row")
    cdr.add_argument("--trunk", default="", metavar="NAME", help="of the caller or the callee")
    cdr.add_argument(
        "--giid", "--interaction", default="", dest="giid", metavar="ID", help="global interaction id"
    )
    cdr.add_argument("--order", choices=("newest", "oldest"), default="newest", help="which come first")
    cdr.add_argument(
        "--limit", type=_number, metavar="N", help="0 = all; default 100 for a table, all for other forms"
    )
    form = cdr.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the same as --format ndjson")
    form.add_argument(
        "--format",
        default="table",
        choices=("table", "json", "ndjson", "csv", "parquet"),
        help="default: table",
    )
    cdr.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")


def _add_account(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    listing: argparse.ArgumentParser,
) -> None:
    account = commands.add_parser("account", help="accounts of people who sign in")
    actions = account.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", parents=[common, listing], help="all of them")
    for name, text in (
        ("add", "a new one; its password comes on standard input"),
        ("password", "another password, on standard input"),
        ("disable", "it is signed out at once and cannot sign in"),
        ("enable", "it can again"),
        ("sign-out", "end the person's sessions, wherever"),
    ):
        action = actions.add_parser(name, parents=[common], help=text)
        action.add_argument("login", metavar="LOGIN")
        if name == "add":
            action.add_argument("--role", required=True, choices=("agent", "supervisor", "administrator"))
            action.add_argument("--name", default="", help="as others see it; default: the login")


def _time(text: str) -> object:
    from gateway.command_cdr import moment

    return moment(text)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
