"""`scripts/bench calls | conference | reports`: what Tandem costs on this machine, measured, never assumed.

Everything stays on the loopback address, has an upper bound, ends by itself and leaves nothing behind, also
on Ctrl-C. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import Awaitable
from dataclasses import asdict
from pathlib import Path

from tests.bench import calls, conference, recipes, reports
from tests.bench.report import print_json, print_table
from tests.bench.sides import ROOT, SideFailed
from tests.bench.targets import Command, Gateway, Target, TargetFailed

_INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benches = parser.add_subparsers(dest="bench", required=True)
    _add_calls(benches.add_parser("calls", help="cost, delay and memory of bridged RTP-SRTP calls",
        epilog=Command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))  # fmt: skip
    _add_conference(benches.add_parser("conference", help="cost of conferences of four"))
    _add_reports(benches.add_parser("reports", help="a million call-detail rows"))
    options = parser.parse_args()
    try:
        return asyncio.run(_interruptible(_BENCHES[options.bench](options)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("interrupted; nothing is left running", file=sys.stderr)
        return _INTERRUPTED
    except (ValueError, TargetFailed, SideFailed, TimeoutError) as error:
        print(f"scripts/bench: {error or type(error).__name__}", file=sys.stderr)
        return 1


async def _interruptible(bench: Awaitable[int]) -> int:
    """SIGINT and SIGTERM cancel it once; what it started is ended on the way out."""
    task = asyncio.ensure_future(bench)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await task


# ---- calls -----------------------------------------------------------------------------------------


def _add_calls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calls", type=int, default=50, metavar="N", help="calls at once, up to 500")
    parser.add_argument("--rate", type=float, default=10.0, metavar="R", help="set up a second, up to 100")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="all of them up, up to 300")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="measure this B2BUA as well; see below",
    )
    parser.add_argument(
        "--peer-address",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="where the peer takes INVITEs over UDP (127.0.0.0/8); one for each --peer",
    )
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        dest="recipes",
        metavar="NAME[=ROOT]",
        help="measure a peer that is configured here: asterisk[=root folder of another Debian], baresip,"
        " tandem=CHECKOUT",
    )
    parser.add_argument("--without-tandem", action="store_true", help="measure the peers alone")


async def _calls(options: argparse.Namespace) -> int:
    load = calls.Load(options.calls, options.rate, options.seconds)
    targets = _targets(options)
    results, failed = list[calls.Figures](), dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="tandem-bench-", ignore_cleanup_errors=True) as folder:
        for number, target in enumerate(targets):
            print(
                f"{target.name}: {load.calls} calls, {load.rate:g} a second, {load.seconds:g} s …", flush=True
            )
            try:
                results.append(await calls.measure(target, load, Path(folder, str(number))))
            except (TargetFailed, SideFailed, TimeoutError) as error:
                failed[target.name] = str(error) or type(error).__name__
                print(f"{target.name}: {failed[target.name]}", file=sys.stderr)
    if results:
        print_table(calls.table(results, load))
    print_json("calls", load=asdict(load), results=[asdict(one) for one in results], failed=failed)
    whole = all(one.up == load.calls and not one.failures for one in results)
    return 0 if results and whole and not failed else 1


def _targets(options: argparse.Namespace) -> list[Target]:
    if len(options.peer) != len(options.peer_address):
        raise ValueError("each --peer needs its --peer-address")
    found: list[Target] = [] if options.without_tandem else [Gateway(ROOT)]
    for peer, address in zip(options.peer, options.peer_address, strict=True):
        name, _, command = peer.partition("=")
        host, _, port = address.rpartition(":")
        if not name or not command or not port.isdecimal():
            raise ValueError(f"not NAME=COMMAND with HOST:PORT: {peer} {address}")
        if not host.startswith("127."):
            raise ValueError(f"{address} is not on the loopback address; traffic goes nowhere else")
        found.append(Command(name, command, (host, int(port))))
    found += [recipes.make(text) for text in options.recipes]
    if not found:
        raise ValueError("nothing to measure")
    return found


# ---- conference ------------------------------------------------------------------------------------


def _add_conference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conferences", type=int, default=5, metavar="N", help="at once, up to 20")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="all of them up, up to 300")
    parser.add_argument("--long", action="store_true", help="500 one after the other; look at memory")
    parser.add_argument("--count", type=int, default=500, metavar="N", help="with --long, up to 1000")


async def _conference(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-", ignore_cleanup_errors=True) as name:
        if options.long:
            run = await conference.measure_long(options.count, Path(name))
            print_table(conference.long_table(run))
            print_json("conference-long", **asdict(run))
            return 1 if run.silent or any(run.left.values()) else 0
        figures = await conference.measure(options.conferences, options.seconds, Path(name))
    print_table(conference.table(figures))
    print_json("conference", **asdict(figures))
    return 1 if figures.silent or figures.broken else 0


# ---- reports ---------------------------------------------------------------------------------------


def _add_reports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="up to 2,000,000")
    parser.add_argument("--ask", default="", metavar="TEXT", help="only questions with TEXT in their names")


async def _reports(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-", ignore_cleanup_errors=True) as name:
        figures = await reports.measure(options.rows, Path(name), options.ask)
    print_table(reports.table(figures))
    grown = reports.grown(figures)
    print_json("reports", **asdict(figures), grown=grown)
    for line in grown:
        print(f"memory grows with the rows: {line}", file=sys.stderr)
    return 1 if grown else 0


_BENCHES = {"calls": _calls, "conference": _conference, "reports": _reports}


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
