"""pjsua2 as a peer: a softphone in a process of its own, over UDP and TCP, that says and hears WAV files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tests.peers import tone as tones
from tests.peers.tone import Pcm
from tests.peers.voice import read_audio, write_wav
from tests.support.ports import free_udp_range

PATIENCE = 15.0


class Pjsua:
    """One softphone; an async context manager that leaves no process.

    It listens on UDP and TCP; `port` and `tcp_port` are its own choice.
    tone    Hz it sends, looped; `play` a WAV file instead
    answer  "auto": 180 and 200 at once; "manual": wait for `accept`
    """

    def __init__(
        self,
        folder: Path,
        *,
        tone: float = 800.0,
        play: Path | None = None,
        srtp: bool = False,
        user: str = "+4930888",
        answer: Literal["auto", "manual"] = "auto",
        codecs: tuple[str, ...] = ("PCMA", "PCMU"),
    ) -> None:
        self.folder, self.tone, self.play = folder, tone, play
        self.srtp, self.user, self.answer, self.codecs = srtp, user, answer, codecs
        self.port = self.tcp_port = 0
        self.events: list[dict[str, Any]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._taken = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where it takes calls over UDP."""
        return ("127.0.0.1", self.port)

    async def __aenter__(self) -> Pjsua:
        self.folder.mkdir(parents=True, exist_ok=True)
        play = self.play
        if play is None:
            play = self.folder / "tone.wav"
            write_wav(play, tones.sine(self.tone, 1.0))
        options = {
            "folder": str(self.folder),
            "play": str(play),
            "srtp": self.srtp,
            "user": self.user,
            "answer": self.answer,
            "codecs": self.codecs,
            "rtp_port": free_udp_range(20)[0],
        }
        with (self.folder / "output.txt").open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.peers.pjsua_process",
                json.dumps(options),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                cwd=Path(__file__).parents[2],
            )
        self._reading = asyncio.create_task(self._read())
        try:
            ready = await self.expect("ready", 30)
        except BaseException:
            await self._stop()
            raise
        self.port, self.tcp_port = ready["udp"], ready["tcp"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(b"quit\n")
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._reading is not None:
            await self._reading

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.startswith(b"{"):  # pjlib greets on stdout before it can be told not to
                self.events.append(json.loads(line))
            self._changed.set()
        self.events.append({"event": "gone"})
        self._changed.set()

    def order(self, name: str, **facts: Any) -> None:
        """A command to the process: dial, answer, hangup, hold, resume, digits, refer (see pjsua_process)."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **facts}).encode() + b"\n")

    async def expect(self, event: str, within: float = PATIENCE) -> dict[str, Any]:
        """The next event of this name after the last one taken: incoming, media, digit, ended…"""
        try:
            async with asyncio.timeout(within):
                while True:
                    for index in range(self._taken, len(self.events)):
                        if self.events[index]["event"] == event:
                            self._taken = index + 1
                            return self.events[index]
                    assert {"event": "gone"} not in self.events, f"pjsua ended before {event}: {self.events}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"pjsua: no {event} within {within} s, only {self.events}") from None

    def dial(self, user: str, gateway: tuple[str, int], transport: Literal["udp", "tcp"] = "udp") -> None:
        """Call `user` at the gateway's listener of that transport."""
        tail = ";transport=tcp" if transport == "tcp" else ""
        self.order("dial", uri=f"sip:{user}@{gateway[0]}:{gateway[1]}{tail}")

    def accept(self) -> None:
        self.order("answer")

    def hang_up(self) -> None:
        self.order("hangup")

    def heard(self, number: int = 0) -> Pcm:
        """What the n-th call (1, 2, …; 0 the newest) sounded like; complete once `ended` was seen."""
        files = [item["file"] for item in self.events if item["event"] == "recording"]
        return read_audio(Path(files[number - 1] if number else files[-1]))
