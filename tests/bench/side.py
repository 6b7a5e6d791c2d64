"""One side of the load as a process: `python -m tests.bench.side ROLE`; JSON lines in and out.

caller   a plain SIP trunk over UDP with RTP: dials
callee   a TLS peer with SRTP and the certificate of a Teams proxy: rings and answers
parties  no SIP: media alone, for conferences
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.streams import Pacer, cpu_seconds, more_files
from tests.peers.certs import load_pki
from tests.peers.contact_center import ContactCenter
from tests.peers.contact_center_call import CenterCall
from tests.peers.rtp import RtpPeer
from tests.peers.sipwire_net import Record, WireLog

FIRST_NUMBER = 15550100000
_FILES = 4096
_ANSWER_WITHIN = 30.0
_MOMENTS = {("INVITE", 0), ("INVITE", 200)}


class Side:
    """Obeys the orchestrator until `quit`, the end of its standard input, or a signal."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._pacer = Pacer()
        self._media = self._pacer.media()
        self._moments: list[tuple[float, bool, int, str, str]] = []
        self._center: ContactCenter | None = None
        self._calls: list[CenterCall] = []
        self._parties: list[RtpPeer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._verbs: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "gateway": self._gateway,
            "ping": self._ping,
            "dial": self._dial,
            "hangup": self._hang_up,
            "count": self._count,
            "moments": self._take_moments,
            "open": self._open,
            "follow": self._follow,
            "close": self._close_parties,
        }

    async def run(self) -> None:
        ready: dict[str, Any] = {}
        if self._options.role != "parties":
            self._center = await self._start()
            ready = {"port": self._center.port, "tls": self._center.tls_port}
        _say(ready)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        work = asyncio.ensure_future(self._obey(reader))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        await asyncio.gather(work, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._center is not None:
            await self._center.close()
        await self._close_parties({})
        await self._pacer.close()

    async def _start(self) -> ContactCenter:
        log = WireLog(keep=False, on_record=self._note)
        callee = self._options.role == "callee"
        pki = load_pki(self._options.pki)
        if callee:
            pki = replace(pki, identities={**pki.identities, "contact-center": pki["microsoft"]})
        center = ContactCenter(kind="TLS" if callee else "UDP", pki=pki, srtp=callee, log=log)
        center.media = self._media
        await center.start()
        if callee:
            self._spawn(self._serve(center))
        return center

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note(self, record: Record) -> None:
        message = record.message
        if (message.method, message.code) in _MOMENTS and not (message.is_request and message.to_tag):
            number = message.uri.partition(":")[2].partition("@")[0] if message.is_request else ""
            self._moments.append((record.time, record.received, message.code, message.call_id, number))

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            order = json.loads(line)
            if order["do"] == "quit":
                return
            try:
                _say(await self._verbs[order["do"]](order))
            except (AssertionError, TimeoutError, OSError, ValueError) as error:
                _say({"error": f"{type(error).__name__}: {error}"})

    # ---- callee ------------------------------------------------------------------------------------

    async def _serve(self, center: ContactCenter) -> None:
        while True:
            try:
                call = await center.expect_call(3600)
            except AssertionError:
                continue
            self._spawn(self._answer(call))

    async def _answer(self, call: CenterCall) -> None:
        try:
            call.ring()
            await asyncio.sleep(self._options.answer_after)
            if not call.ended:
                await call.answer()
            await call.expect_end(3600)
        except (AssertionError, OSError) as error:
            print(f"callee: {error}", file=sys.stderr)
        finally:
            await self._free(call)

    async def _free(self, call: CenterCall) -> None:
        await call.close()
        call.ua.forget(call.dialog.call_id)
        assert self._center is not None
        if call in self._center.calls:
            self._center.calls.remove(call)

    # ---- caller ------------------------------------------------------------------------------------

    async def _gateway(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._center is not None
        self._center.gateway = (str(order["host"]), int(order["port"]))
        return {}

    async def _ping(self, order: dict[str, Any]) -> dict[str, Any]:
        """Whether OPTIONS is answered, whatever the answer."""
        assert self._center is not None
        try:
            await asyncio.wait_for(self._center.options(), float(order["patience"]))
        except TimeoutError:
            return {"answered": False}
        return {"answered": True}

    async def _dial(self, order: dict[str, Any]) -> dict[str, Any]:
        """`count` calls, `rate` a second, answered or failed when this returns."""
        first, failures = int(order["first"]), dict[str, int]()
        began = time.monotonic()

        async def place(index: int) -> None:
            assert self._center is not None
            await asyncio.sleep(max(0.0, began + index / float(order["rate"]) - time.monotonic()))
            call = await self._center.call(f"+{FIRST_NUMBER + first + index}")
            try:
                await call.answered(_ANSWER_WITHIN)
                self._calls.append(call)
            except AssertionError as error:
                cause = str(error)
                cause = cause.partition("SIP/2.0 ")[2][:40].split("\\r")[0] if "SIP/2.0" in cause else cause
                failures[cause] = failures.get(cause, 0) + 1
                await self._free(call)

        await asyncio.gather(*(place(index) for index in range(int(order["count"]))))
        return {"up": len(self._calls), "failures": failures, "seconds": time.monotonic() - began}

    async def _hang_up(self, order: dict[str, Any]) -> dict[str, Any]:
        """All calls, `rate` a second; those that the other side has ended before are `dropped`."""
        calls, self._calls = self._calls, []
        dropped = sum(call.ended for call in calls)
        began = time.monotonic()
        refused = 0

        async def end(index: int, call: CenterCall) -> None:
            nonlocal refused
            await asyncio.sleep(max(0.0, began + index / float(order["rate"]) - time.monotonic()))
            if not call.ended:
                try:
                    response = await call.bye()
                    refused += response.code != 200
                except TimeoutError:
                    refused += 1
            await self._free(call)

        await asyncio.gather(*(end(index, call) for index, call in enumerate(calls)))
        return {"dropped": dropped, "refused": refused}

    # ---- parties -----------------------------------------------------------------------------------

    async def _open(self, order: dict[str, Any]) -> dict[str, Any]:
        """Parties with RTP (`plain`) and SRTP (`secure`): their offers."""
        kinds = [False] * int(order["plain"]) + [True] * int(order["secure"])
        parties = [await self._media.open(srtp=kind, rtcp_mux=False) for kind in kinds]
        self._parties += parties
        return {"offers": [party.description().decode() for party in parties]}

    async def _follow(self, order: dict[str, Any]) -> dict[str, Any]:
        """The answers to the offers of the last `open`."""
        answers = order["answers"]
        for party, answer in zip(self._parties[-len(answers) :], answers, strict=True):
            party.follow(answer.encode())
        return {}

    async def _close_parties(self, _order: dict[str, Any]) -> dict[str, Any]:
        parties, self._parties = self._parties, []
        for party in parties:
            await party.close()
        return {}

    # ---- figures -----------------------------------------------------------------------------------

    async def _count(self, _order: dict[str, Any]) -> dict[str, Any]:
        """Each stream's packets, our own processor time, how late our clock was since the last question."""
        latest, self._pacer.latest = self._pacer.latest, 0.0
        counts = [(c.sent, c.received, c.lost, c.broken) for c in (s.count() for s in self._pacer.streams)]
        return {"streams": counts, "cpu": cpu_seconds(), "late_ms": round(latest * 1000, 1)}

    async def _take_moments(self, _order: dict[str, Any]) -> dict[str, Any]:
        """When the INVITEs and their 200 came and went: (monotonic, received, code, Call-ID, number)."""
        moments, self._moments = self._moments, []
        return {"moments": moments}


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.side", description=__doc__)
    parser.add_argument("role", choices=("caller", "callee", "parties"))
    parser.add_argument("--pki", type=Path)
    parser.add_argument("--answer-after", type=float, default=0.05, metavar="S")
    more_files(_FILES)
    asyncio.run(Side(parser.parse_args()).run())


if __name__ == "__main__":
    main()
