"""Client of rtpengine's ng protocol: bencoded dictionaries over UDP (rtpengine 10.5).

A request is repeated with the same cookie until its answer comes; rtpengine answers a repeated cookie from a
cache, so a repetition never acts twice (facts media-prototype 1).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.datagrams import further
from gateway.errors import MediaError, MediaRejected, MediaUnavailable, PortsExhausted

log = logging.getLogger("tandem.media")

Value = str | bytes | int | Sequence["Value"] | Mapping[str, "Value"]
Reply = dict[str, Any]

WAITS = (0.3, 0.6, 1.2, 2.4)
"""Seconds to wait for an answer after each transmission."""
_EXHAUSTED = ("Ran out of ports", "Parallel session limit reached", "No more available ports")
_MAX_DEPTH = 32


class BencodeError(ValueError):
    """Not a bencoded value."""


def bencode(value: Value) -> bytes:
    """Integers, text (UTF-8), bytes, lists and dictionaries; keys in the order given."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, Mapping):
        return b"d" + b"".join(bencode(k) + bencode(v) for k, v in value.items()) + b"e"
    return b"l" + b"".join(bencode(item) for item in value) + b"e"


def bdecode(data: bytes) -> Any:
    """Inverse of `bencode`; strings come as text, undecodable bytes replaced. Raises BencodeError."""
    try:
        value, end = _decode(data, 0, 0)
    except (ValueError, IndexError) as error:
        raise BencodeError(str(error)) from None
    if end != len(data):
        raise BencodeError("bytes after the value")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise BencodeError("too deep")
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind == b"l":
        items = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _decode(data, at, depth + 1)
            items.append(item)
        return items, at + 1
    if kind == b"d":
        table = {}
        at += 1
        while data[at : at + 1] != b"e":
            key, at = _decode(data, at, depth + 1)
            if not isinstance(key, str):
                raise BencodeError("key is not a string")
            table[key], at = _decode(data, at, depth + 1)
        return table, at + 1
    colon = data.index(b":", at)
    start = colon + 1
    end = start + int(data[at:colon])
    if end > len(data) or end < start:
        raise BencodeError("string is cut off")
    return data[start:end].decode("utf-8", "replace"), end


class NgClient(asyncio.DatagramProtocol):
    """One rtpengine. `await connect`, then `command` as often as wanted, `close` at the end.

    Errors of `command`: MediaUnavailable (no answer), PortsExhausted, MediaRejected (any other refusal).
    """

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._sock: socket.socket | None = None
        self._pending: dict[bytes, asyncio.Future[bytes]] = {}
        self._prefix = f"{os.getpid():x}{time.time_ns():x}"
        self._count = itertools.count()
        self.address = ("", 0)
        self.commands = 0
        self.retries = 0
        self.answers = 0

    async def connect(self, address: tuple[str, int]) -> None:
        """Point at `address` (host, port of its listen-ng); nothing is sent yet. Again: another address."""
        self._drop()
        self.address = address
        loop = asyncio.get_running_loop()
        sock: socket.socket | None = None
        try:
            [(family, _, _, _, where), *_] = await loop.getaddrinfo(*address, type=socket.SOCK_DGRAM)
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.connect(where)
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=sock)
        except OSError as error:
            if sock is not None:
                sock.close()
            raise MediaUnavailable(f"rtpengine at {address[0]}:{address[1]}: {error}") from error
        self._sock = sock

    def close(self) -> None:
        """Forget everything under way; waiting commands end with MediaUnavailable."""
        self._drop()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(MediaUnavailable("rtpengine client is closed"))

    @property
    def pending(self) -> int:
        """Commands that wait for their answer; 0 when nothing is left over."""
        return len(self._pending)

    async def ping(self, waits: Sequence[float] = (0.3, 0.6)) -> None:
        """Raises MediaUnavailable when rtpengine does not answer in time."""
        await self._exchange("ping", {}, waits)

    async def command(self, name: str, **keys: Value | None) -> Reply:
        """Run `name`; underscores in key names stand for `-`, None leaves a key out."""
        request = {key.replace("_", "-"): value for key, value in keys.items() if value is not None}
        reply = await self._exchange(name, request, WAITS)
        if reply.get("result") == "error":
            raise _error(name, str(reply.get("error-reason", "")))
        return reply

    async def _exchange(self, name: str, keys: Mapping[str, Value], waits: Sequence[float]) -> Reply:
        cookie = f"{self._prefix}_{next(self._count)}".encode()
        message = cookie + b" " + bencode({"command": name, **keys})
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[cookie] = future
        self.commands += 1
        try:
            for number, wait in enumerate(waits):
                if self._transport is None:
                    raise MediaUnavailable("rtpengine client is not connected")
                self._transport.sendto(message)
                self.retries += number > 0
                done, _ = await asyncio.wait({future}, timeout=wait)
                if done:
                    return _reply(future.result())
        finally:
            del self._pending[cookie]
            future.cancel()
        host, port = self.address
        raise MediaUnavailable(f"rtpengine at {host}:{port} does not answer {name}")

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._take(data)
        if self._sock is not None:
            for more, _ in further(self._sock):
                self._take(more)

    def _take(self, data: bytes) -> None:
        self.answers += 1
        cookie, _, body = data.partition(b" ")
        future = self._pending.get(cookie)
        if future is not None and not future.done():
            future.set_result(body)

    def error_received(self, exc: Exception) -> None:
        """Connection refused while rtpengine is down: the repetition finds it when it is back."""


def _reply(body: bytes) -> Reply:
    try:
        reply = bdecode(body)
    except BencodeError as error:
        raise MediaUnavailable(f"rtpengine sent an unreadable answer: {error}") from error
    if not isinstance(reply, dict):
        raise MediaUnavailable("rtpengine sent an answer that is no dictionary")
    return reply


def _error(command: str, reason: str) -> MediaError:
    if any(text in reason for text in _EXHAUSTED):
        return PortsExhausted(f"rtpengine {command}: {reason}")
    return MediaRejected(f"rtpengine {command}: {reason}")
