"""`python -m tests.peers.teams`: the Teams stand-in as a process; see `desk` for what it prints and obeys."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tests.peers import desk
from tests.peers.certs import load_pki, make_pki
from tests.peers.sipwire_call import WireCall
from tests.peers.teams import Teams
from tests.peers.teams_call import TeamsCall
from tests.peers.teams_shapes import Shape
from tests.peers.voice import Voice


def _teams(call: WireCall) -> TeamsCall:
    assert isinstance(call, TeamsCall)
    return call


async def _hold(call: WireCall, _: str) -> None:
    await _teams(call).hold()


async def _resume(call: WireCall, _: str) -> None:
    await _teams(call).resume(new_key=True)


async def _refer(call: WireCall, number: str) -> None:
    referral = await _teams(call).refer("number" if number else "user", number=number)
    desk.say(f"REFERRED {await referral.finished(30)}")


async def _digits(call: WireCall, keys: str) -> None:
    for key in keys:
        await call.rtp.press(key)


async def _bye(call: WireCall, _: str) -> None:
    await _teams(call).hang_up()


COMMANDS: dict[str, desk.Command] = {
    "hold": _hold,
    "resume": _resume,
    "refer": _refer,
    "digits": _digits,
    "bye": _bye,
}


async def run(options: argparse.Namespace) -> int:
    folder: Path = options.pki
    pki = load_pki(folder) if (folder / "roots.pem").exists() else make_pki(folder)
    teams = Teams(
        pki,
        gateway=desk.endpoint(options.gateway),
        trunk=options.trunk,
        trunk_names=options.trunk_name,
        certificate=options.certificate,
        ports=[int(port) for port in options.ports.split(",")],
        media_addresses=options.media_address,
        shape=Shape(codecs=tuple(options.codecs.split(","))),
        tone=options.tone,
        log=desk.make_log(options),
        strict=False,
    )
    teams.media = Voice
    await teams.start()

    async def incoming() -> TeamsCall:
        return await teams.expect_invite(3600)

    async def dial(number: str) -> TeamsCall:
        return await teams.invite(number)

    table = desk.Desk(teams, options, incoming=incoming, dial=dial, commands=COMMANDS)
    code = await table.run({"peers": teams.peers, "hosts": teams.hosts, "roots": str(pki.roots)})
    for text in teams.violations:
        desk.say(f"VIOLATION {text}")
    return code or (3 if teams.violations else 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.peers.teams",
        description="Microsoft Teams' side of a Direct Routing trunk, on the loopback address."
        " Exit code 1: a dialled call failed; 3: the gateway broke one of Teams' rules.",
        epilog=desk.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    desk.add_options(parser)
    parser.add_argument(
        "--pki", type=Path, required=True, metavar="FOLDER", help="certificates; made when missing"
    )
    parser.add_argument(
        "--certificate", default="microsoft", help="identity to present (see tests.peers.certs)"
    )
    parser.add_argument("--ports", default="0,0,0", help="TLS ports of sip, sip2, sip3; 0: a free one")
    parser.add_argument(
        "--trunk", default="sbc.example.test", metavar="FQDN", help="the gateway's trunk name"
    )
    parser.add_argument(
        "--trunk-name", action="append", default=[], metavar="FQDN", help="further tenant names"
    )
    parser.add_argument(
        "--media-address", action="append", default=[], help="addresses the gateway's SDP may name"
    )
    parser.add_argument("--codecs", default="PCMA,PCMU", help="PCMA, PCMU, G722 in the order offered")
    sys.exit(asyncio.run(run(parser.parse_args())))
