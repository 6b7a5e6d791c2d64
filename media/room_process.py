"""A room process seen from the gateway: start it, talk to it, notice its end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import MediaError, MediaUnavailable
from media.room_protocol import (
    LINE_LIMIT,
    PRIVATE_DIRECTORY,
    Command,
    Ping,
    RoomProtocolError,
    Shutdown,
    decode_object,
    encode_command,
)

log = logging.getLogger("tandem.rooms")

_REPLY_WITHIN = 3.0
_START_WITHIN = 20.0
_END_WITHIN = 1.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """How room processes are run.

    music:      WAV file (any rate, mono), looped; None: whoever should hear music hears silence
    clock_rate: of the mixer in Hz; 8000 adds 12 to 16 ms delay, 16000 adds 17 to 21 and keeps G.722 wide
    jitter_ms:  0: short adaptive jitter buffers (clean networks); else they may grow to this and start at 20,
                which costs delay and saves words when parties come over the open Internet
    linger:     seconds a room goes on without a gateway, so that a restart does not silence conferences
    directory:  for the rooms' sockets; None: a private temporary directory a room
    """

    music: Path | None = None
    clock_rate: int = 8000
    jitter_ms: int = 0
    linger: float = 30.0
    directory: Path | None = None


class RoomRefused(MediaError):
    """The room answered that it cannot; it is well otherwise."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text)


class RoomProcess:
    """One process, until it ends. `ended` is set exactly once, after which every command raises
    MediaUnavailable; `on_end` is called then, unless the end was asked for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = 0
        self.ended = asyncio.Event()
        self.on_end: Callable[[RoomProcess], None] | None = None
        self.cause = ""
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._handle = -1
        self._socket: Path | None = None

    @classmethod
    async def start(cls, settings: RoomSettings) -> RoomProcess:
        """Start one and wait until it answers; MediaUnavailable when it does not."""
        self = cls(f"room-{secrets.token_hex(4)}")
        try:
            async with asyncio.timeout(_START_WITHIN):
                await self._start(settings)
        except (OSError, TimeoutError, RoomProtocolError) as error:
            await self.kill()
            raise MediaUnavailable(f"{self.name} did not start: {error or 'no answer'}") from error
        except BaseException:
            await self.kill()
            raise
        return self

    @classmethod
    async def adopt(cls, snapshot: Mapping[str, Any]) -> RoomProcess:
        """Take over a process that an earlier gateway started and detached from, by its `snapshot`;
        MediaUnavailable when it is not there any more."""
        self = cls(str(snapshot["name"]))
        self._socket = Path(str(snapshot["socket"]))
        try:
            async with asyncio.timeout(_REPLY_WITHIN):
                reader, self._writer = await asyncio.open_unix_connection(str(self._socket), limit=LINE_LIMIT)
                await self._greet(reader, int(snapshot["pid"]))
        except (OSError, TimeoutError, RoomProtocolError) as error:
            address = self._socket
            await self.detach()
            _unlink(address)
            raise MediaUnavailable(f"{self.name} is not there: {error or 'no answer'}") from error
        return self

    def snapshot(self) -> dict[str, Any]:
        """What `adopt` needs, ready for JSON."""
        return {"name": self.name, "pid": self.pid, "socket": str(self._socket)}

    async def detach(self) -> None:
        """Let go of it and leave it running; it ends by itself unless adopted within `linger` seconds."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        self._socket = None
        self._tidy()

    async def _start(self, settings: RoomSettings) -> None:
        directory = settings.directory or Path(tempfile.mkdtemp(prefix=PRIVATE_DIRECTORY))
        path = self._socket = directory / f"{self.name}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(1)
            self._process = await asyncio.create_subprocess_exec(
                *room_command("--listen-fd", str(listener.fileno())),
                *(("--music", str(settings.music)) if settings.music is not None else ()),
                *("--clock-rate", str(settings.clock_rate), "--jitter-ms", str(settings.jitter_ms)),
                *("--linger", str(settings.linger)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
            self._handle = os.pidfd_open(self._process.pid)
            reader, self._writer = await asyncio.open_unix_connection(str(path), limit=LINE_LIMIT)
        self._tasks.append(asyncio.create_task(self._report()))
        await self._greet(reader, self._process.pid)

    async def _greet(self, reader: asyncio.StreamReader, pid: int) -> None:
        hello = decode_object(await reader.readline() or b"null")
        if hello.get("hello") != pid:
            raise RoomProtocolError(f"greeted by {hello.get('hello')!r} instead of process {pid}")
        log.debug("event=room_ready room=%s pid=%d", self.name, pid)
        self.pid = pid
        if self._handle < 0:
            self._handle = os.pidfd_open(pid)
        self._tasks.append(asyncio.create_task(self._listen(reader)))

    async def command(self, command: Command) -> dict[str, Any]:
        """Send and await the reply. RoomRefused: it said no; MediaUnavailable: it is gone, or hangs (and is
        killed then, so that the conference can go on elsewhere)."""
        if self._writer is None or self.ended.is_set():
            raise MediaUnavailable(f"{self.name} has ended")
        number = next(_numbers)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        try:
            self._writer.write(encode_command(number, command))
            async with asyncio.timeout(_REPLY_WITHIN):
                return await reply
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended.wait()
            raise MediaUnavailable(f"{self.name} does not answer {command.verb}") from None
        except OSError as error:
            await self.ended.wait()
            raise MediaUnavailable(f"{self.name} is gone") from error
        finally:
            self._waiting.pop(number, None)

    async def check(self) -> bool:
        """Whether it answers; a room that hangs is killed, and `on_end` follows."""
        try:
            await self.command(Ping())
        except MediaError:
            return False
        return True

    async def close(self) -> None:
        """End it: by word, else by force. Never raises; when it returns nothing is left."""
        self._closing = True
        if not self.ended.is_set():
            with contextlib.suppress(MediaError):
                await self.command(Shutdown())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _END_WITHIN)
        await self.kill()

    async def kill(self) -> None:
        self._closing = True
        self._signal(signal.SIGKILL)
        await self._exit_code()
        if self._writer is not None:
            self._writer.close()
        for task in self._tasks:
            if task is not asyncio.current_task():
                await asyncio.gather(task, return_exceptions=True)
        self._tidy()

    def _signal(self, number: signal.Signals) -> None:
        """By pidfd: asyncio's own way polls, and may reap the process away from under its child watcher."""
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._replied(line)
        self._signal(signal.SIGKILL)
        assert self._writer is not None
        code = await self._exit_code()
        self._writer.close()
        self.cause = f"signal_{-code}" if code < 0 else f"exit_{code}"
        self.ended.set()
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(MediaUnavailable(f"{self.name} ended: {self.cause}"))
        if not self._closing:
            log.error("event=room_lost room=%s cause=%s", self.name, self.cause)
            self._tidy()
            if self.on_end is not None:
                self.on_end(self)

    async def _exit_code(self) -> int:
        """Wait for the end; -n for signal n, 0 where it is not known (an adopted process has no parent here
        unless we were exec'ed over the gateway that started it, and then must be reaped by us)."""
        if self._process is not None:
            return await self._process.wait()
        if self._handle < 0:
            return 0
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        handle = os.dup(self._handle)
        loop.add_reader(handle, gone.set)
        try:
            await gone.wait()
            return _reap(handle)
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    def _replied(self, line: bytes) -> None:
        try:
            record = decode_object(line)
        except RoomProtocolError as error:
            log.error("event=room_nonsense room=%s problem=%s", self.name, error)
            return
        reply = self._waiting.get(record.get("id", 0))
        if reply is None or reply.done():
            return
        if "error" in record:
            reply.set_exception(RoomRefused(str(record["error"])))
        else:
            reply.set_result(dict(record.get("ok", {})))

    async def _report(self) -> None:
        """pjsua2's last words (an assert's text) belong into our log."""
        assert self._process is not None
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):
            while line := await self._process.stderr.readline():
                text = line.decode("utf-8", "replace").strip()
                log.warning("event=room_says room=%s text=%r", self.name, text[:300])

    def _tidy(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if self._socket is not None:
            _unlink(self._socket)
            self._socket = None


def _unlink(address: Path) -> None:
    with contextlib.suppress(OSError):
        address.unlink(missing_ok=True)
        if address.parent.name.startswith(PRIVATE_DIRECTORY):
            address.parent.rmdir()


def _reap(handle: int) -> int:
    """The exit code of an ended process by its pidfd, -n for signal n; 0 when it was no child of ours."""
    try:
        status = os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return 0
    if status is None:
        return 0
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def room_command(*arguments: str) -> tuple[str, ...]:
    """The command line of a room with this interpreter."""
    return (sys.executable, "-m", "media.room_service", *arguments)


def _environment() -> dict[str, str]:
    """Ours, with this very package on the path wherever the gateway was started from."""
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


async def probe() -> int:
    """How many streams one room can carry, tried out in a process of its own.

    The count it reached before it ended is the answer even if the end was an abort; MediaUnavailable when
    not even one stream worked.
    """
    process = await asyncio.create_subprocess_exec(
        *room_command("--probe"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_environment(),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_START_WITHIN):
            output, _ = await process.communicate()
    except TimeoutError:
        output = b""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    counts = [int(line) for line in output.split(b"\n") if line.strip().isdigit()]
    if not counts:
        raise MediaUnavailable(f"a room cannot carry any stream (probe ended with {process.returncode})")
    return max(counts)
