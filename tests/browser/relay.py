"""A network between browser and gateway that can be cut."""

from __future__ import annotations

import asyncio
import contextlib


class Relay:
    """Carries TCP connections on a port of its own; while `cut`, those there are end and none begins."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._server: asyncio.Server | None = None
        self._carrying: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._cut = False

    @property
    def base(self) -> str:
        assert self._server is not None, "not started"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
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
        inner, outer = await asyncio.open_connection(*self._there)
        ways = [asyncio.create_task(_pour(reader, outer)), asyncio.create_task(_pour(inner, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            outer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
