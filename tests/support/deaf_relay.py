"""A TCP relay in the way of a connection, such as a firewall: it can forget what it carries."""

from __future__ import annotations

import asyncio
import contextlib


class DeafRelay:
    """Carries connections to `there`; `forget` makes those of that moment deaf, later ones are carried.

    Nothing is closed and nothing refused on a deaf connection, as behind a firewall that lost its state.
    """

    def __init__(self, there: tuple[str, int]) -> None:
        self.carried = 0
        self._there = there
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        assert self._server is not None, "not started"
        return int(self._server.sockets[0].getsockname()[1])

    def forget(self) -> None:
        for pump in self._pumps:
            pump.cancel()

    async def __aenter__(self) -> DeafRelay:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None, "not started"
        self._server.close()
        self.forget()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carried += 1
        self._writers.append(writer)
        there_reader, there_writer = await asyncio.open_connection(*self._there)
        self._writers.append(there_writer)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()
