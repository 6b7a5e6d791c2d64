"""The other end of `GET /api/v1/phone`: a page without a browser, for `tandem probe` and our own tests.

Needs aiortc through `media.webrtc`; a gateway does not import this.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import aiohttp

from media.webrtc import WebRtcPhone

PATIENCE = 8.0


class AgentPage:
    """`open` it, then it takes offers by itself as long as `auto`; `close` ends socket and telephone.

    said: everything that the gateway said, in order
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, phone: WebRtcPhone, headers: Mapping[str, str]
    ) -> None:
        """`url` with `?login=` where a token is shown instead of a session."""
        self.phone = phone
        self.auto = True
        self.said: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self._http, self._url, self._headers = http, url, dict(headers)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._taken = 0

    async def open(self) -> dict[str, Any]:
        """Connect; the gateway's welcome. aiohttp.ClientError when it refuses."""
        self._socket = await self._http.ws_connect(self._url, headers=self._headers, max_msg_size=1 << 20)
        self._reading = asyncio.create_task(self._read(self._socket), name="agent-page")
        return await self.expect("welcome")

    async def expect(self, kind: str, within: float = PATIENCE) -> dict[str, Any]:
        """The next message of this type that was not expected before. TimeoutError."""
        async with asyncio.timeout(within):
            while True:
                for place in range(self._taken, len(self.said)):
                    if self.said[place]["type"] == kind:
                        self._taken = place + 1
                        return self.said[place]
                if self.close_code is not None:
                    raise ConnectionError(f"the gateway closed with {self.close_code}")
                self._news.clear()
                await self._news.wait()

    async def say(self, kind: str, leg: str, **more: object) -> None:
        assert self._socket is not None
        await self._socket.send_json({"type": kind, "leg": leg, **more})

    async def take(self, offer: Mapping[str, Any]) -> None:
        """Answer an offer with a new connection of the telephone."""
        answer = await self.phone.answer(str(offer["sdp"]))
        await self.say("accept", offer["leg"], sdp=answer)

    async def vanish(self) -> None:
        """As a reload or a crash: socket and telephone are gone, no word is said."""
        await self._stop()
        await self.phone.close()

    close = vanish

    async def _stop(self) -> None:
        socket, self._socket = self._socket, None
        reading, self._reading = self._reading, None
        if socket is not None:
            await socket.close()
        if reading is not None:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            said = message.json()
            self.said.append(said)
            self._news.set()
            if said["type"] == "offer" and self.auto:
                await self.take(said)
        self.close_code = socket.close_code or 1006
        self._news.set()
