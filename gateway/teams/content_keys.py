"""Key pairs with which Graph encrypts what it sends: the newest for new subscriptions, older ones to read."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from gateway.clock import Clock
from gateway.teams.notification_crypto import ContentKey
from gateway.teams.store import Shelf, Store

log = logging.getLogger("tandem.teams")

ROTATED_AFTER = timedelta(days=90)
_READ_FOR = timedelta(days=2)
"""A subscription lives an hour and Graph repeats for four (facts/graph.md 3.1, 3.3); the rest is reserve."""


class ContentKeys:
    """known: by id, also those that are no longer given out."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.known: dict[str, ContentKey] = {}
        self._made: dict[str, datetime] = {}

    @property
    def newest(self) -> ContentKey:
        return self.known[max(self._made, key=lambda name: self._made[name])]

    async def start(self) -> None:
        """Take over what there is, and see to it that there is one."""
        for name, document in (await self._store.all(Shelf.CERTIFICATE)).items():
            self.known[name] = ContentKey.of(name, document)
            made = document.get("made")
            self._made[name] = datetime.fromisoformat(made) if made else self._clock.wall()
            if not made:
                await self._keep(name)
        await self.care()

    async def care(self) -> bool:
        """Make a new one when the newest is old, forget what nobody uses. Whether there is a new one."""
        now = self._clock.wall()
        new = not self._made or now - max(self._made.values()) >= ROTATED_AFTER
        if new:
            made = await asyncio.to_thread(ContentKey.make)
            self.known[made.id], self._made[made.id] = made, now
            await self._keep(made.id)
            log.info("event=content_key_made count=%d", len(self.known))
        latest = max(self._made.values())
        old = [name for name, at in self._made.items() if at != latest and now - latest > _READ_FOR]
        for name in old:
            del self.known[name], self._made[name]
        await self._store.remove(Shelf.CERTIFICATE, *old)
        return new

    async def _keep(self, name: str) -> None:
        document = self.known[name].document() | {"made": self._made[name].isoformat()}
        await self._store.put(Shelf.CERTIFICATE, name, document)
