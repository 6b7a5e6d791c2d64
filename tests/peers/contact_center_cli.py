"""`python -m tests.peers.contact_center`: the contact-center stand-in as a process; see `desk`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.peers import desk
from tests.peers.contact_center import ContactCenter
from tests.peers.contact_center_call import CenterCall
from tests.peers.sipwire_call import WireCall
from tests.peers.voice import Voice


def _center(call: WireCall) -> CenterCall:
    assert isinstance(call, CenterCall)
    return call


async def _hold(call: WireCall, how: str) -> None:
    assert how in ("", "sendonly", "inactive", "recvonly", "zero", "offerless"), how
    await _center(call).hold(how or "sendonly")  # type: ignore[arg-type]


async def _resume(call: WireCall, _: str) -> None:
    await _center(call).resume()


async def _refer(call: WireCall, target: str) -> None:
    await _center(call).refer(target)
    desk.say(f"REFERRED {await _center(call).transferred(30)}")


async def _digits(call: WireCall, keys: str) -> None:
    await _center(call).digits(keys)


async def _bye(call: WireCall, _: str) -> None:
    await call.bye()


COMMANDS: dict[str, desk.Command] = {
    "hold": _hold,
    "resume": _resume,
    "refer": _refer,
    "digits": _digits,
    "bye": _bye,
}


async def run(options: argparse.Namespace) -> int:
    center = ContactCenter(
        gateway=desk.endpoint(options.gateway),
        kind="TCP" if options.tcp else "UDP",
        port=options.port,
        number=options.number,
        tone=options.tone,
        codecs=tuple(options.codecs.split(",")),
        telephone_event=options.telephone_event or None,
        log=desk.make_log(options),
    )
    center.media = Voice
    await center.start()

    async def incoming() -> CenterCall:
        return await center.expect_call(3600)

    async def dial(number: str) -> CenterCall:
        return await center.call(number)

    table = desk.Desk(center, options, incoming=incoming, dial=dial, commands=COMMANDS)
    return await table.run({"peer": center.peer, "port": center.port})


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.peers.contact_center",
        description="A contact center's SIP trunk, on the loopback address. Exit code 1: a call failed.",
        epilog=desk.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    desk.add_options(parser)
    parser.add_argument("--tcp", action="store_true", help="call the gateway over TCP instead of UDP")
    parser.add_argument("--port", type=int, default=0, help="UDP and TCP port to listen on; 0: a free one")
    parser.add_argument("--number", default="+49301112222", help="our own number")
    parser.add_argument("--codecs", default="PCMA", help="PCMA, PCMU, G722 in the order offered")
    parser.add_argument(
        "--telephone-event", type=int, default=101, metavar="PT", help="payload number, 0 for none"
    )
    sys.exit(asyncio.run(run(parser.parse_args())))
