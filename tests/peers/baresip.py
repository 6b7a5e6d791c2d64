"""baresip as a peer: a real softphone over UDP, TCP or TLS, with SRTP when told so, without a sound card.

It sends a sine (ausine) and writes what it hears to WAV files (sndfile behind an aubridge sink); both
come with Debian's baresip-core. Its control port speaks JSON in netstrings (ctrl_tcp).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from tests.peers.certs import Pki
from tests.peers.tone import Pcm
from tests.peers.voice import read_audio, whole_wav
from tests.support.ports import free_port

MODULES = "/usr/lib/baresip/modules"
PATIENCE = 15.0

_CONFIG = """\
poll_method epoll
sip_listen 127.0.0.1:{port}
{certificates}
net_interface 127.0.0.1
rtp_ports 20000-40000
rtcp_mux no
call_max_calls 10
audio_player aubridge,sink
audio_alert aubridge,alert
audio_source ausine,{tone}
ausrc_srate 48000
ausrc_channels 2
auplay_srate 8000
ausrc_format s16
auplay_format s16
auenc_format s16
audec_format s16
module_path {modules}
module g711.so
module g722.so
module ausine.so
module aubridge.so
module sndfile.so
module srtp.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control}
snd_path {folder}
"""


def available() -> bool:
    """Whether baresip and its modules are installed."""
    return shutil.which("baresip") is not None and Path(MODULES, "sndfile.so").exists()


class Baresip:
    """One softphone; an async context manager that leaves no process.

    transport  of the calls it places; it listens on UDP and TCP at `port`, on TLS at `port` + 1 (with a PKI)
    srtp       offer and demand SRTP (SDES)
    answer     "auto" answers at once, "manual" waits for `accept`
    """

    def __init__(
        self,
        folder: Path,
        *,
        tone: float = 500.0,
        transport: Literal["udp", "tcp", "tls"] = "udp",
        srtp: bool = False,
        pki: Pki | None = None,
        user: str = "+4930777",
        answer: Literal["auto", "manual"] = "auto",
        codecs: Iterable[str] = ("PCMA", "PCMU"),
    ) -> None:
        self.folder, self.tone, self.transport, self.srtp, self.pki = folder, tone, transport, srtp, pki
        self.user, self.answer, self.codecs = user, answer, tuple(codecs)
        self.port = 0
        self.events: list[dict[str, Any]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._responses: dict[str, dict[str, Any]] = {}
        self._taken = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where it takes calls of its transport."""
        return ("127.0.0.1", self.port + (1 if self.transport == "tls" else 0))

    async def __aenter__(self) -> Baresip:
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            if await self._start():
                return self
            await self._stop()
        raise RuntimeError((self.folder / "output.txt").read_text(errors="replace"))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> bool:
        self.port, control = free_port(), free_port()
        certificates = ""
        if self.pki is not None:
            identity = self.pki["contact-center"]
            both = self.folder / "identity.pem"
            both.write_bytes(identity.chain.read_bytes() + identity.key.read_bytes())
            certificates = f"sip_certificate {both}\nsip_cafile {self.pki.roots}"
        text = _CONFIG.format(
            port=self.port,
            control=control,
            tone=round(self.tone),
            folder=self.folder,
            modules=MODULES,
            certificates=certificates,
        )
        (self.folder / "config").write_text(text)
        encryption = ";mediaenc=srtp-mand" if self.srtp else ""
        codecs = ",".join(f"{name}/{16000 if name == 'G722' else 8000}/1" for name in self.codecs)
        (self.folder / "accounts").write_text(
            f"<sip:{self.user}@127.0.0.1;transport={self.transport}>;regint=0;answermode={self.answer}"
            f";audio_codecs={codecs}{encryption}\n"
        )
        (self.folder / "contacts").touch()
        with (self.folder / "output.txt").open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                "baresip",
                "-f",
                str(self.folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
        for _ in range(200):
            if self._process.returncode is not None:
                return False
            with contextlib.suppress(OSError):
                reader, self._writer = await asyncio.open_connection("127.0.0.1", control)
                self._reading = asyncio.create_task(self._read(reader))
                return await self._ready()
            await asyncio.sleep(0.05)
        return False

    async def _ready(self) -> bool:
        """It started its control port before it failed to listen elsewhere, perhaps: ask for the line."""
        try:
            await self.command("reginfo")
        except (TimeoutError, OSError):
            return False
        return "Address already in use" not in (self.folder / "output.txt").read_text(errors="replace")

    async def _stop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size = int((await reader.readuntil(b":"))[:-1])
                message: dict[str, Any] = json.loads((await reader.readexactly(size + 1))[:-1])
                if message.get("event"):
                    self.events.append(message)
                else:
                    self._responses[str(message.get("token"))] = message
                self._changed.set()

    async def command(self, name: str, parameters: str = "") -> str:
        """Run a command of its menu (`/help` in baresip lists them); its output. TimeoutError."""
        assert self._writer is not None
        token = f"{len(self._responses)}-{name}"
        text = json.dumps({"command": name, "params": parameters, "token": token}).encode()
        self._writer.write(str(len(text)).encode() + b":" + text + b",")
        async with asyncio.timeout(PATIENCE):
            while token not in self._responses:
                self._changed.clear()
                await self._changed.wait()
        return str(self._responses[token].get("data", ""))

    async def expect(self, event: str, within: float = PATIENCE) -> dict[str, Any]:
        """The next event of this type after the last one taken, such as CALL_INCOMING or CALL_CLOSED."""
        try:
            async with asyncio.timeout(within):
                while True:
                    for index in range(self._taken, len(self.events)):
                        if self.events[index]["type"] == event:
                            self._taken = index + 1
                            return self.events[index]
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            seen = [item["type"] for item in self.events]
            raise AssertionError(f"baresip: no {event} within {within} s, only {seen}") from None

    async def dial(self, user: str, gateway: tuple[str, int]) -> None:
        """Call `user` at the gateway's listener of our transport; baresip adds ;transport= itself."""
        await self.command("dial", f"sip:{user}@{gateway[0]}:{gateway[1]}")

    async def accept(self) -> None:
        await self.command("accept")

    async def hang_up(self) -> None:
        await self.command("hangup")

    async def heard(self) -> Pcm:
        """What the newest call sounded like, once CALL_CLOSED was seen: the file is closed right after."""
        files = sorted(self.folder.glob("dump-*-dec.wav"), key=lambda file: file.stat().st_mtime)
        if not files:
            return np.zeros(0, dtype=np.int16)
        for _ in range(100):
            if whole_wav(files[-1]):
                break
            await asyncio.sleep(0.02)
        return read_audio(files[-1])
