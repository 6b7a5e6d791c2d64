"""A stand-in as a process of its own: options, commands on stdin, ladder and results on stdout.

Lines on stdout, one event each: `READY {json}` when the ports are open, `RING`, `ANSWERED`, `ENDED` and
`HEARD {json}` per call, ladder lines with --ladder, `WIRE {json}` per message with --wire. Commands on stdin:
dial NUMBER, hold, resume, digits KEYS, refer [NUMBER], bye, quit, each about the newest call; speak FILE is
what calls from now on hear. SIGTERM and the end of --duration hang up and leave.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from tests.peers import tone as tones
from tests.peers.sipwire_call import WireCall
from tests.peers.sipwire_net import Record, WireLog
from tests.peers.sipwire_sdp import audio
from tests.peers.voice import Voice, read_audio, write_wav

Command = Callable[[WireCall, str], Awaitable[object]]


class Party(Protocol):
    """What a desk sits at: a stand-in that is started already."""

    calls: list[Any]

    async def close(self) -> None: ...


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that every desk has."""
    parser.add_argument("--gateway", metavar="HOST:PORT", help="where the gateway listens for this party")
    parser.add_argument("--ring-after", type=float, default=0.2, metavar="S", help="seconds until 180")
    parser.add_argument(
        "--answer-after", type=float, default=1.0, metavar="S", help="seconds until 200, <0 never"
    )
    parser.add_argument("--reject", type=int, metavar="CODE", help="refuse every call with this code")
    parser.add_argument(
        "--hangup-after", type=float, default=0.0, metavar="S", help="hang up S after the answer"
    )
    parser.add_argument("--speak", type=Path, metavar="FILE", help="say this recording instead of a tone")
    parser.add_argument("--tone", type=float, default=440.0, metavar="HZ", help="tone to send; 0 is silence")
    parser.add_argument("--mute", action="store_true", help="send no RTP at all")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="write what is heard, one WAV per call")
    parser.add_argument("--dial", action="append", default=[], metavar="NUMBER", help="call this number")
    parser.add_argument(
        "--dial-after", type=float, default=0.0, metavar="S", help="seconds before the first call"
    )
    parser.add_argument("--count", type=int, default=1, metavar="N", help="calls per --dial number")
    parser.add_argument("--rate", type=float, default=1.0, metavar="R", help="calls a second with --count")
    parser.add_argument("--duration", type=float, default=0.0, metavar="S", help="leave after S seconds")
    parser.add_argument(
        "--exit-when-idle", action="store_true", help="leave when all dialled calls have ended"
    )
    parser.add_argument("--ladder", action="store_true", help="print each SIP message as a line")
    parser.add_argument(
        "--events", type=Path, metavar="FILE", help="append each message's time as a JSON line"
    )
    parser.add_argument("--wire", action="store_true", help="print each SIP message's `event` as JSON")


def make_log(options: argparse.Namespace) -> WireLog:
    """A log that prints and forgets, as --ladder and --events want it."""
    log = WireLog(keep=False)
    if options.ladder:
        log.ladder = say
    if options.events:
        file = options.events.open("a", buffering=1, encoding="utf-8")
        log.on_record = lambda record: file.write(json.dumps(event(record)) + "\n")
    elif options.wire:
        log.on_record = lambda record: say("WIRE " + json.dumps(event(record)))
    return log


def event(record: Record) -> dict[str, object]:
    """A message in figures; `at` is CLOCK_MONOTONIC, comparable between processes of one machine."""
    message = record.message
    described = None
    with contextlib.suppress(ValueError):
        described = audio(message.sdp()) if message.sdp() else None
    return {
        "at": record.time,
        "owner": record.owner,
        "received": record.received,
        "kind": record.kind,
        "method": message.method,
        "code": message.code,
        "phrase": message.phrase,
        "uri": message.uri if message.is_request else "",
        "to": message.get("To"),
        "call_id": message.get("Call-ID"),
        "profile": described.profile if described else "",
        "direction": described.direction if described else "",
    }


def endpoint(text: str | None) -> tuple[str, int] | None:
    if not text:
        return None
    host, _, port = text.rpartition(":")
    return host, int(port)


def say(line: str) -> None:
    print(line, flush=True)


class Desk:
    """Answers, dials and obeys on behalf of one party until told to stop."""

    def __init__(
        self,
        party: Party,
        options: argparse.Namespace,
        *,
        incoming: Callable[[], Awaitable[WireCall]],
        dial: Callable[[str], Awaitable[WireCall]],
        commands: dict[str, Command],
    ) -> None:
        self._party, self._options = party, options
        self._incoming, self._dial, self._commands = incoming, dial, commands
        self._speech = read_audio(options.speak) if options.speak else None
        self._calls: list[WireCall] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._leave = asyncio.Event()
        self._count = 0
        self.failed = 0

    async def run(self, ready: dict[str, object]) -> int:
        """Returns the exit code: 1 when a dialled call failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave.set)
        say("READY " + json.dumps(ready))
        self._spawn(self._take())
        self._spawn(self._obey())
        if self._options.dial:
            self._spawn(self._dial_all())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leave.wait(), self._options.duration or None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for call in list(self._calls):
            await self._finish(call)
        await self._party.close()
        return 1 if self.failed else 0

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self) -> None:
        while True:
            try:
                call = await self._incoming()
            except AssertionError:
                continue
            self._spawn(self._serve(call))

    async def _serve(self, call: WireCall) -> None:
        options = self._options
        self._voice(call)
        assert call.invited is not None
        say(f"RING {call.invited.request.uri}")
        try:
            if options.reject:
                await call.reject(options.reject)
                return
            await asyncio.sleep(options.ring_after)
            call.ring()
            if options.answer_after < 0:
                await call.expect_end(3600)
                return
            await asyncio.sleep(max(0.0, options.answer_after - options.ring_after))
            if call.ended:
                return
            await call.answer()
            await self._talk(call)
        except (AssertionError, TimeoutError, OSError) as error:
            say(f"FAILED {error}")
        finally:
            await self._finish(call)

    async def _dial_all(self) -> None:
        options = self._options
        await asyncio.sleep(options.dial_after)
        mine: list[asyncio.Task[None]] = []
        for number in options.dial:
            for _ in range(options.count):
                task = asyncio.ensure_future(self._place(number))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                mine.append(task)
                await asyncio.sleep(1 / options.rate)
        await asyncio.gather(*mine)
        if options.exit_when_idle:
            self._leave.set()

    async def _place(self, number: str) -> None:
        call: WireCall | None = None
        try:
            call = await self._dial(number)
            self._voice(call)
            await call.answered(60)
            await self._talk(call)
        except (AssertionError, TimeoutError, OSError) as error:
            self.failed += 1
            say(f"FAILED {error}")
        finally:
            if call is not None:
                await self._finish(call)

    async def _talk(self, call: WireCall) -> None:
        say(f"ANSWERED {call.dialog.call_id}")
        if self._speech is not None and isinstance(call.rtp, Voice):
            call.rtp.speak(self._speech)
        if not self._options.hangup_after:
            await call.expect_end(3600)
            return
        with contextlib.suppress(AssertionError):
            await call.expect_end(self._options.hangup_after)
        if not call.ended:
            await call.bye()

    def _voice(self, call: WireCall) -> None:
        self._calls.append(call)
        call.rtp.drop = 1.0 if self._options.mute else 0.0
        if self._speech is not None:
            call.rtp.say(0)

    async def _finish(self, call: WireCall) -> None:
        """Hang up when that is due, report, free."""
        if call not in self._calls:
            return
        self._calls.remove(call)
        if call.established and not call.ended:
            with contextlib.suppress(AssertionError, TimeoutError, OSError):
                await asyncio.wait_for(call.bye(), 5)
        say(f"ENDED {call.dialog.call_id}")
        self._report(call)
        await call.close()
        call.ua.forget(call.dialog.call_id)
        if call in self._party.calls:
            self._party.calls.remove(call)

    def _report(self, call: WireCall) -> None:
        heard = call.rtp.heard()
        result: dict[str, object] = {
            "call": call.dialog.call_id,
            "packets": len(heard),
            "sent": call.rtp.sent,
        }
        if heard and isinstance(call.rtp, Voice):
            pcm = call.rtp.recording()
            result |= {
                "began": call.rtp.began,
                "spoke": call.rtp.spoke_at,
                "seconds": round(len(pcm) / tones.RATE, 2),
                "level_dbfs": round(tones.loudness(pcm), 1),
                "strongest_hz": round(tones.strongest(pcm)),
            }
            if self._options.record:
                self._options.record.mkdir(parents=True, exist_ok=True)
                self._count += 1
                file = self._options.record / f"{call.ua.wire.owner.replace(' ', '-')}-{self._count}.wav"
                write_wav(file, pcm)
                result["file"] = str(file)
        say("HEARD " + json.dumps(result))

    async def _obey(self) -> None:
        """Commands from stdin; its end is no reason to leave."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        except (OSError, ValueError):
            return
        while line := (await reader.readline()).decode().strip():
            word, _, rest = line.partition(" ")
            if word == "quit":
                self._leave.set()
            elif word == "dial":
                self._spawn(self._place(rest))
            elif word == "speak":
                self._speech = read_audio(Path(rest))
            elif word in self._commands and self._calls:
                try:
                    await self._commands[word](self._calls[-1], rest)
                    say(f"DONE {line}")
                except (AssertionError, TimeoutError, OSError) as error:
                    say(f"FAILED {line}: {error}")
            else:
                say(f"FAILED {line}: no such command, or no call")
