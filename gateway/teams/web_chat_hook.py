"""What happens in web chats, told to the contact center's chat server: one signed POST an event.

    {"type": "web_chat", "schema_version": 1, "id": "…", "event": "message", "at": "…",
     "web_chat": {…}, "message": {…} | null}

The events of one web chat come in their order, each at least once (`id` is the Idempotency-Key), those of
several web chats side by side. They wait in the database, sealed, while nobody takes them.
"""

from __future__ import annotations

import asyncio
import json
import logging

from gateway.cdr.delivery import Backoff
from gateway.clock import Clock, pause
from gateway.teams.errors import StoreFault
from gateway.teams.store import Shelf, Store
from gateway.webhook import Hook, HookRefused, HookUnavailable

log = logging.getLogger("tandem.teams")

SCHEMA_VERSION = 1


class WebChatHook:
    """written, rejected, failures: counters for the metrics; fault: "" while it works."""

    def __init__(self, hook: Hook, store: Store, clock: Clock, backoff: Backoff | None = None) -> None:
        self._hook, self._store, self._clock = hook, store, clock
        self._backoff = backoff or Backoff()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.written = self.rejected = self.failures = 0
        self.fault = ""
        self.waiting = 0

    async def start(self) -> None:
        self._hook.open()
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name="web-chat-hook")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._hook.close()

    def wake(self) -> None:
        """There are new events."""
        self._wake.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while await self._deliver():
                    failures = 0
                failures, self.fault = 0, ""
            except (HookUnavailable, StoreFault) as error:
                failures += 1
                self.failures += 1
                if not self.fault:
                    log.warning("event=web_chat_hook_down cause=%s", error)
                self.fault = str(error)
                delay = self._backoff.delay(failures)
                if isinstance(error, HookUnavailable) and error.retry_after is not None:
                    delay = min(max(delay, error.retry_after), self._backoff.most)
                await pause(self._clock, delay)
                self._wake.set()
            except Exception:
                log.exception("event=web_chat_hook_failed")

    async def _deliver(self) -> bool:
        """The oldest event of each web chat, some at a time; False when nothing waits."""
        waiting = await self._store.keys(Shelf.WEB_CHAT_EVENT)
        self.waiting = len(waiting)
        heads: dict[str, str] = {}
        for key in waiting:
            heads.setdefault(key.partition("/")[0], key)
        some = list(heads.values())[: self._hook.at_once]
        results = await asyncio.gather(*(self._post(key) for key in some), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return bool(some)

    async def _post(self, key: str) -> None:
        document, name = await self._store.get(Shelf.WEB_CHAT_EVENT, key), key.replace("/", "-")
        body = json.dumps(
            {"type": "web_chat", "schema_version": SCHEMA_VERSION, "id": name, **(document or {})},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        try:
            await self._hook.post(name, body)
            self.written += 1
        except HookRefused as error:
            # He never will: who reads the transcript through the API still finds it.
            self.rejected += 1
            log.error("event=web_chat_event_refused id=%s cause=%s", name, error)
        await self._store.remove(Shelf.WEB_CHAT_EVENT, key)
