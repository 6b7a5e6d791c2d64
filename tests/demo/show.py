"""The demo from beginning to end; `scripts/demo` sets the machine up and calls this.

Exit codes: 0 everything was heard and every row is there, or the desktop was ended; 1 something was not,
or could not be tried, and the last lines say what; 2 wrong usage; 130 interrupted. No process and no port
is left in any case.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.demo import desktop
from tests.demo import folder as folders
from tests.demo.common import Leave, Ports, get, heading, left_behind, ready, say
from tests.demo.desktop import DEFAULT_PORT
from tests.demo.failure import DemoFailed
from tests.demo.ladder import Ladder, heads
from tests.demo.processes import Standin, gateway, standin, tandem
from tests.demo.scenes import CENTER, HEAD, HOLD_SECONDS, SCENES, TEAMS, Result, Scene, Stage, wrong_with
from tests.demo.settings import AGENT, FQDN, Site, tandem_toml
from tests.demo.speech import Conversation, converse
from tests.peers.certs import load_pki, make_pki

_MEDIA_PORTS = 96
_ROW_LIMIT = 10.0
_METRICS = (
    "tandem_calls_ended",
    "tandem_trunk_up",
    "tandem_rtpengine_sessions",
    "tandem_sip_strangers",
    "tandem_journal_events",
    "tandem_sink_rows",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Calls with real speech through Tandem between two stand-ins, contact center and Teams.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="FOLDER",
        help="recordings, configuration, logs; made anew (default: demo-output)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep an earlier FOLDER: use FOLDER-2, FOLDER-3 ... instead"
    )
    parser.add_argument(
        "--desktop",
        action="store_true",
        help="open the Agent Desktop instead, with a customer and a Teams expert who obey, until Ctrl-C",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help=f"of the desktop's page (default: {DEFAULT_PORT}, or a free one when it is taken)",
    )
    return asyncio.run(_interruptible(parser.parse_args(arguments)))


async def _interruptible(options: argparse.Namespace) -> int:
    """A signal ends the desktop, or cancels, once; the clean-up is bounded and not interrupted."""
    loop = asyncio.get_running_loop()
    leave = Leave()
    demo = loop.create_task(desktop.run(options, leave) if options.desktop else _run(options))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt() -> None:
        if leave.awaited:
            leave.set()
        elif not demo.cancelling():
            say("\ninterrupted: ending the calls and the processes ...")
            demo.cancel()

    for number in numbers:
        loop.add_signal_handler(number, interrupt)
    try:
        return await demo
    except asyncio.CancelledError:
        return 130
    except DemoFailed as error:
        say(f"\ndemo: failed: {error}")
        return 1
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    folder = await folders.make(options.output, keep=options.keep)
    heading("Getting ready")
    _, talks = await asyncio.gather(asyncio.to_thread(make_pki, folder / "pki"), _rehearse(folder / "speech"))
    say("  certificates  one authority; the gateway's and Microsoft's, for mutual TLS       pki/")
    say("  voices        an agent and a Teams expert, spoken by espeak-ng                   speech/")
    results: list[Result] = []
    ladder = Ladder(say)
    where = Ports.choose(_MEDIA_PORTS)
    async with _house(folder, ladder, where) as (center, teams):
        say(await tandem("trunks", "--config", str(folder / "tandem.toml")))
        stage = Stage(center, teams, ladder, folder, say)
        for scene, talk in zip(SCENES, talks, strict=True):
            heading(f"{scene.name[0]}. {scene.title}")
            say(heads())
            ladder.restart()
            results.append(await stage.play(scene, talk))
            say("\n" + "\n".join([HEAD, *results[-1].lines]))
        heading("Call detail (tandem cdr)")
        complaints = await _rows(folder, dict(zip(SCENES, talks, strict=True)))
        heading("Health and metrics")
        await _health(folder / "state")
        parties = (center, teams)
    complaints += [
        f"scene {one.scene.name}: not everything was heard as it should" for one in results if not one.good
    ]
    complaints += [f"Teams' rules: {text}" for party in parties for text in party.violations]
    complaints += left_behind(folder, where)
    return _verdict(folder, complaints, time.monotonic() - began)


async def _rehearse(folder: Path) -> list[Conversation]:
    return [await converse(folder, scene.name, scene.lines) for scene in SCENES]


@contextlib.asynccontextmanager
async def _house(folder: Path, ladder: Ladder, where: Ports) -> AsyncIterator[tuple[Standin, Standin]]:
    """Both stand-ins and the gateway between them, every one a process of its own."""
    common = ("--answer-after", "1.0", "--record", str(folder))
    ladder.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(ladder.stop)
        center = await stack.enter_async_context(
            standin(
                *(CENTER, "tests.peers.contact_center", "--gateway", f"127.0.0.1:{where.plain}"),
                *("--number", AGENT, *common),
                log=folder / "contact-center.log",
                on_event=ladder.add,
            )
        )
        say("  contact center  SIP over UDP, RTP                                   a process of its own")
        teams = await stack.enter_async_context(
            standin(
                *(TEAMS, "tests.peers.teams", "--gateway", f"127.0.0.1:{where.secure}"),
                *("--pki", str(folder / "pki"), "--trunk", FQDN, "--media-address", "127.0.0.1", *common),
                log=folder / "teams.log",
                on_event=ladder.add,
            )
        )
        say("  Teams           sip, sip2, sip3 over mutual TLS, SRTP               a process of its own")
        config = folder / "tandem.toml"
        pki = load_pki(folder / "pki")
        config.write_text(
            tandem_toml(
                Site(
                    plain=where.plain,
                    secure=where.secure,
                    media=where.media,
                    identity=pki["gateway"],
                    roots=pki.roots,
                    proxies=teams.ready["peers"],
                    hosts=teams.ready["hosts"],
                ),
                center=center.ready["peer"],
            )
        )
        started = time.monotonic()
        say(f"  tandem run --config {config.name} ...\n")
        say(heads())
        await stack.enter_async_context(gateway(config, folder / "gateway.log"))
        await ready(folder / "state")
        await ladder.settle()
        say(f"\n  the gateway is ready after {time.monotonic() - started:.1f} s\n")
        yield center, teams


async def _rows(folder: Path, talks: dict[Scene, Conversation]) -> list[str]:
    """Print the rows; what is missing or wrong in them."""
    command = ("cdr", "--config", str(folder / "tandem.toml"))
    deadline = time.monotonic() + _ROW_LIMIT
    while True:
        lines = (await tandem(*command, "--json")).splitlines()
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
        if len(rows) >= len(talks) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    say(await tandem(*command))
    if len(rows) != len(talks):
        return [f"{len(rows)} call-detail rows for {len(talks)} calls"]
    held = rows[0]
    say(
        f"\n  The {HOLD_SECONDS:.0f} s that the Teams expert held are talk time, as a contact center counts:"
        f" talk {held['talk_time']} s,\n  hold {held['hold_time']} s. `tandem cdr --json` has all columns."
    )
    return [
        f"row of scene {scene.name}: {text}"
        for (scene, talk), row in zip(talks.items(), reversed(rows), strict=True)
        for text in wrong_with(scene, row, talk)
    ]


async def _health(state: Path) -> None:
    status, text = await get(state, "/healthz")
    say(f"  GET /healthz  {status}  {text.strip()}")
    status, text = await get(state, "/readyz")
    answer = json.loads(text)
    well = [name for name, part in answer["parts"].items() if part["ok"]]
    say(f"  GET /readyz   {status}  {answer['state']}, {answer['calls']} calls, well: {' '.join(well)}")
    say("  GET /metrics")
    _, text = await get(state, "/metrics")
    for line in text.splitlines():
        if line.startswith(_METRICS) and "_bucket" not in line and "_created" not in line:
            say(f"  {line}")


def _verdict(folder: Path, complaints: list[str], seconds: float) -> int:
    heading("Result")
    for text in complaints:
        say(f"  FAILED: {text}")
    if not complaints:
        say(f"  {len(SCENES)} calls, all heard on both sides, all rows there; no process or port is left.")
    say(f"  {seconds:.0f} s. To listen to: {folder.name}/*-hears.wav; beside them tandem.toml and the logs.")
    if not complaints:
        say(
            "  scripts/demo --desktop opens the Agent Desktop, with a customer and a Teams expert to talk to."
        )
    if complaints:
        say(f"  Look at {folder / 'gateway.log'}, teams.log and contact-center.log.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
