"""The conference room as a process: takes the gateway's commands and lets the mixer obey.

python -m media.room_service --listen-fd 3 --music hold.wav   serve one conference (room_process.py does so)
python -m media.room_service --probe                          print how many streams one room can carry
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from media.room import Mixer, RoomFault, Wanted
from media.room_protocol import (
    LINE_LIMIT,
    PRIVATE_DIRECTORY,
    Command,
    Ping,
    Place,
    Remove,
    RoomProtocolError,
    Shutdown,
    Stats,
    Tone,
    Wire,
    decode_command,
    encode_reply,
)


class Server:
    """Obeys the commands of the gateway, one after the other.

    When the gateway goes away (restart), the conference goes on for `linger` seconds and waits for it to
    come back; then the room ends.
    """

    def __init__(self, mixer: Mixer, address: str, linger: float) -> None:
        self._mixer, self._address, self._linger = mixer, address, linger
        self._turn = asyncio.Lock()
        self._guests = 0
        self._farewell = asyncio.get_running_loop().call_later(linger, self._leave)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guests += 1
        self._farewell.cancel()
        try:
            writer.write(b'{"hello":%d}\n' % os.getpid())
            while line := await reader.readline():
                writer.write(await self._serve(line))
                await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()
            self._guests -= 1
            if not self._guests:
                self._farewell = asyncio.get_running_loop().call_later(self._linger, self._leave)

    def _leave(self) -> None:
        path = Path(self._address)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            if path.parent.name.startswith(PRIVATE_DIRECTORY):
                path.parent.rmdir()
        os._exit(0)

    async def _serve(self, line: bytes) -> bytes:
        try:
            number, command = decode_command(line)
        except RoomProtocolError as error:
            return encode_reply(0, error=str(error))
        try:
            async with self._turn:
                return encode_reply(number, ok=await self._obey(command))
        except RoomFault as fault:
            return encode_reply(number, error=str(fault))
        except Exception as error:
            traceback.print_exc()
            return encode_reply(number, error=f"{type(error).__name__}: {error}")

    async def _obey(self, command: Command) -> dict[str, Any]:
        match command:
            case Place(port, remote, codec):
                return {"local": await self._mixer.place(port, remote, codec)}
            case Remove(port):
                await self._mixer.remove(port)
            case Wire(pairs, music):
                self._mixer.wire(Wanted(frozenset(pairs), frozenset(music)))
            case Tone(ports, hz, ms):
                self._mixer.tone(ports, hz, ms)
            case Stats():
                return self._mixer.statistics()
            case Ping():
                pass
            case Shutdown():
                asyncio.get_running_loop().call_later(0.01, os._exit, 0)
        return {}


async def _main(arguments: argparse.Namespace) -> None:
    mixer = Mixer(arguments.music, arguments.clock_rate, arguments.jitter_ms)
    await mixer.start()
    if arguments.probe:
        await mixer.capacity()
        return
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    listener = socket.socket(fileno=arguments.listen_fd)
    server = Server(mixer, str(listener.getsockname()), arguments.linger)
    await asyncio.start_unix_server(server.connected, sock=listener, limit=LINE_LIMIT)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="media.room_service")
    parser.add_argument("--listen-fd", type=int, default=-1, help="a listening Unix socket for the gateway")
    parser.add_argument("--music", default="", help="WAV file, looped to whoever is to hear music")
    parser.add_argument("--clock-rate", type=int, default=8000, help="of the mixer; 16000 keeps G.722 wide")
    parser.add_argument("--jitter-ms", type=int, default=0, help="how far jitter buffers may grow")
    parser.add_argument("--linger", type=float, default=30.0, help="seconds to go on without a gateway")
    parser.add_argument("--probe", action="store_true", help="print how many streams fit, one count a line")
    asyncio.run(_run(parser.parse_args()))


async def _run(arguments: argparse.Namespace) -> None:
    status = 1
    try:
        await _main(arguments)
        status = 0
    finally:
        if status:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
