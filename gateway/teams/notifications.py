"""The address to which Graph sends changes (facts/graph.md 3.2, 3.3).

What comes is stored, answered within the time Graph gives, and judged afterwards. Whoever sends something
else learns nothing: the answer is the same 202.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gateway.clock import Clock, pause
from gateway.teams.errors import StoreFault, TeamsError
from gateway.teams.notification_crypto import (
    ContentKey,
    Forged,
    KeysUnavailable,
    TokenChecker,
    UnknownKey,
    decrypt,
)
from gateway.teams.store import Shelf, Store
from gateway.teams.subscriptions import Subscription, Subscriptions

log = logging.getLogger("tandem.teams")

PATH = "/teams/notifications"
_MOST_TOKEN = 4096
_MOST_BYTES = 4 << 20
"""Microsoft names no limit for a POST. A message is at most some 28 KB of text, twice that sealed, and a POST
holds several; the address is open to everybody, so there is one."""
_MOST_ITEMS = 1000
_MOST_WAITING = 10_000
_AGAIN = 30.0
_UNKNOWN_KEY = 6
"""How often a notification with an unknown signing key is looked at: keys are asked for once a minute."""

Json = dict[str, Any]
Change = Callable[[Subscription, str, str, Json], Awaitable[None]]
"""(subscription, changeType, resource, content), one after the other."""


class Receiver:
    """`on_change` is called at least once a change, in no particular order; it must bear repetition."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        checker: TokenChecker,
        keys: dict[str, ContentKey],
        tenant: str,
        store: Store,
        clock: Clock,
        on_change: Change,
    ) -> None:
        self._subscriptions, self._checker, self._keys = subscriptions, checker, keys
        self._tenant, self._store, self._clock, self._on_change = tenant.lower(), store, clock, on_change
        self._waiting: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.received = 0
        self.dropped: dict[str, int] = {}

    async def start(self) -> None:
        """Work off what an earlier run had taken and not done."""
        for key, document in (await self._store.all(Shelf.INBOX)).items():
            self._waiting.put_nowait((key, document))
        self._task = asyncio.create_task(self._work(), name="teams-notifications")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def handle(self, request: web.Request) -> web.Response:
        """The route's handler."""
        token = request.query.get("validationToken")
        if token is not None:
            if len(token) > _MOST_TOKEN:
                return web.Response(status=400)
            return web.Response(
                text=token, content_type="text/plain", headers={"X-Content-Type-Options": "nosniff"}
            )
        data = await _read(request)
        if data is None:
            self._drop("too_large")
            return web.Response(status=413)
        try:
            found = json.loads(data)
            items = found["value"][:_MOST_ITEMS]
            mine = [item for item in items if isinstance(item, dict) and self._ours(item)]
            tokens = [str(one) for one in found.get("validationTokens") or []]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._drop("malformed")
            return web.Response(status=202)
        if mine:
            if self._waiting.qsize() >= _MOST_WAITING:
                return web.Response(status=503, headers={"Retry-After": "30"})
            document: Json = {"value": mine, "validationTokens": tokens}
            key = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
            try:
                await self._store.put(Shelf.INBOX, key, document)
            except StoreFault as error:
                log.error("event=notification_not_kept cause=%s", error)
                return web.Response(status=503)
            self._waiting.put_nowait((key, document))
            self.received += len(mine)
        return web.Response(status=202)

    def _ours(self, item: Json) -> bool:
        """Cheap checks that need no key: known subscription, its secret, our tenant."""
        found = self._subscriptions.find(str(item.get("subscriptionId")))
        if found is None:
            self._drop("unknown_subscription")
            return False
        if not hmac.compare_digest(str(item.get("clientState")).encode(), found.client_state.encode()):
            self._drop("client_state")
            return False
        if str(item.get("tenantId", self._tenant)).lower() != self._tenant:
            self._drop("tenant")
            return False
        return True

    async def drained(self) -> None:
        """Until everything that came so far was worked off; for tests."""
        await self._waiting.join()

    async def _work(self) -> None:
        while True:
            key, document = await self._waiting.get()
            try:
                attempt = 1
                while not await self._judge(document, last=attempt >= _UNKNOWN_KEY):
                    attempt += 1
                    await pause(self._clock, _AGAIN)
                await self._store.remove(Shelf.INBOX, key)
            except StoreFault as error:
                log.error("event=notification_kept_twice cause=%s", error)
            except Exception:
                log.exception("event=notification_failed")
            finally:
                self._waiting.task_done()

    async def _judge(self, document: Json, *, last: bool) -> bool:
        """False: look again later; `last`: a key that is still unknown will stay so."""
        items = document["value"]
        if document["validationTokens"] or any("encryptedContent" in item for item in items):
            try:
                await self._checker.check(document["validationTokens"])
            except KeysUnavailable:
                return False
            except UnknownKey as error:
                if last:
                    self._drop(error.reason)
                return last
            except Forged as error:
                self._drop(error.reason)
                return True
        for item in items:
            await self._take(item)
        return True

    async def _take(self, item: Json) -> None:
        found = self._subscriptions.find(str(item.get("subscriptionId")))
        if found is None:
            return
        try:
            if "lifecycleEvent" in item:
                await self._subscriptions.lifecycle(found, str(item["lifecycleEvent"])[:40])
                return
            sealed = item.get("encryptedContent")
            content = decrypt(sealed, self._keys) if isinstance(sealed, dict) else {}
            await self._on_change(found, str(item.get("changeType")), str(item.get("resource")), content)
        except Forged as error:
            self._drop(error.reason)
        except TeamsError as error:
            log.warning("event=notification_not_used kind=%s cause=%s", found.watch.kind, error)

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        if self.dropped[reason] in (1, 10, 100) or self.dropped[reason] % 1000 == 0:
            log.warning("event=notification_dropped cause=%s count=%d", reason, self.dropped[reason])


async def _read(request: web.Request) -> bytes | None:
    """The body, which may be larger than what the API takes; None for too much."""
    data = bytearray()
    async for chunk in request.content.iter_chunked(65536):
        data += chunk
        if len(data) > _MOST_BYTES:
            return None
    return bytes(data)
