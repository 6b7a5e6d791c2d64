"""The network between browser and gateway: it can be cut, fall silent, and lose packets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable
from typing import cast


class Relay:
    """Carries TCP connections on a port of its own.

    tls:    what it shows to browsers, who then come with https; own_port: 0 = any
    cut:    those there are end, and none begins
    silent: (attribute) nothing arrives and nothing ends, as with a cable that was pulled
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None, own_port: int = 0) -> None:
        self._there, self._tls, self._port = (host, port), tls, own_port
        self._server: asyncio.Server | None = None
        self._carrying: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._cut = False
        self._open = asyncio.Event()
        self._open.set()

    @property
    def silent(self) -> bool:
        return not self._open.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        (self._open.clear if silent else self._open.set)()

    @property
    def base(self) -> str:
        assert self._server is not None, "not started"
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None, "not started"
        self._server.close()
        await self._end()
        await self._server.wait_closed()

    async def cut(self) -> None:
        self._cut = True
        await self._end()

    def mend(self) -> None:
        self._cut = False

    async def _end(self) -> None:
        tasks = list(self._carrying)
        for task, writer in self._carrying.items():
            writer.transport.abort()
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio calls this in a task"
        self._carrying[task] = writer
        try:
            if not self._cut:
                await self._both_ways(reader, writer)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            writer.transport.abort()
            del self._carrying[task]

    async def _both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        inner, outer = await asyncio.open_connection(*self._there)
        ways = [
            asyncio.create_task(self._pour(reader, outer)),
            asyncio.create_task(self._pour(inner, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            outer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()


class MediaRelay:
    """Carries UDP between a page and rtpengine: `await via(port)` is the port that leads to 127.0.0.1:port.

    silent: nothing arrives; loss: share of the packets to the page that do not arrive, 0..1
    """

    def __init__(self) -> None:
        self.silent = False
        self.loss = 0.0
        self._ways: dict[int, _Way] = {}

    async def via(self, port: int) -> int:
        way = self._ways.get(port)
        if way is None:
            way = self._ways[port] = _Way(self)
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(lambda: way.inner, remote_addr=("127.0.0.1", port))
            await loop.create_datagram_endpoint(lambda: way.outer, local_addr=("127.0.0.1", 0))
        port_here: int = way.outer.transport.get_extra_info("sockname")[1]
        return port_here

    async def close(self) -> None:
        for way in self._ways.values():
            way.inner.transport.close()
            way.outer.transport.close()
        await asyncio.sleep(0)


class _Way:
    """One pair of sockets; the page's address is that of its last packet."""

    def __init__(self, relay: MediaRelay) -> None:
        self.page: tuple[str, int] | None = None
        self.inner, self.outer = _Socket(self._to_page), _Socket(self._from_page)
        self._relay = relay

    def _from_page(self, data: bytes, source: tuple[str, int]) -> None:
        self.page = source
        if not self._relay.silent:
            self.inner.transport.sendto(data)

    def _to_page(self, data: bytes, _: tuple[str, int]) -> None:
        if self.page is not None and not self._relay.silent and random.random() >= self._relay.loss:
            self.outer.transport.sendto(data, self.page)


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, tuple[str, int]], None]) -> None:
        self.transport: asyncio.DatagramTransport
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received(data, addr)
