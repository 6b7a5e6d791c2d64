"""Which messages an agent has been shown: each pops once, also after a restart and when Graph repeats."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from gateway.clock import Clock
from gateway.teams.errors import StoreFault
from gateway.teams.messages import Message
from gateway.teams.store import Document, Shelf, Store

log = logging.getLogger("tandem.teams")

_REMEMBERED = 20_000
_DISORDER = timedelta(minutes=2)
"""How much later than a newer message an older one may still come (facts/graph.md 3.3: up to a minute)."""
_MOST_RECENT = 200
NEW, EDITED, DELETED = "new", "edited", "deleted"
Key = tuple[str, str, str]
"""Login, conversation, id of the message."""


class Seen:
    """Versions of the newest messages, and for each agent the moment before which all is old.

    The moment survives a restart, with what was seen shortly after it. Without it, reading after an outage
    would pop messages of months.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._versions: OrderedDict[Key, tuple[bool, str]] = OrderedDict()
        self._since: dict[str, datetime] = {}
        self._latest: dict[str, datetime] = {}
        self._recent: dict[str, list[tuple[datetime, Key]]] = {}
        self._unsaved: set[str] = set()
        self._saving = asyncio.Lock()

    async def start(self) -> None:
        for login, document in (await self._store.all(Shelf.SEEN)).items():
            self._since[login] = since = datetime.fromisoformat(document["since"])
            self._latest[login] = since + _DISORDER
            for at, conversation, found, deleted, edited in document["recent"]:
                key = (login, conversation, found)
                self._versions[key] = (deleted, edited)
                self._recent.setdefault(login, []).append((datetime.fromisoformat(at), key))

    @property
    def changed(self) -> bool:
        """Whether there is something to save."""
        return bool(self._unsaved)

    async def save(self) -> None:
        """Losing it pops some messages twice, so a failure is only worth a line."""
        async with self._saving:
            logins, self._unsaved = self._unsaved, set()
            if not logins:
                return
            try:
                await self._store.put_many(Shelf.SEEN, {login: self._document(login) for login in logins})
            except StoreFault as error:
                self._unsaved |= logins
                log.warning("event=seen_not_kept cause=%s", error)

    def begin(self, login: str) -> None:
        """What was written before now is old for an agent of whom nothing is known."""
        if login not in self._since:
            self._since[login] = self._clock.wall()
            self._latest[login] = self._since[login] + _DISORDER
            self._unsaved.add(login)

    async def forget(self, login: str) -> None:
        for kept in (self._since, self._latest, self._recent):
            kept.pop(login, None)
        self._unsaved.discard(login)
        await self._store.remove(Shelf.SEEN, login)

    def since(self, login: str) -> datetime:
        """Nothing that was written before needs to be read again."""
        return self._since.get(login) or self._clock.wall()

    def note(self, login: str, conversation: str, found: Message) -> None:
        """The agent reads it now, or wrote it here."""
        self._newer(login, conversation, found)

    def read(self, login: str, conversation: str, found: Message) -> str:
        """A message found by reading after a gap: new, edited, deleted, or "" when he has seen it so."""
        known = (login, conversation, found.id) in self._versions
        if not self._newer(login, conversation, found):
            return ""
        if known:
            return DELETED if found.deleted else EDITED
        since = self.since(login)
        if _since(found.created, since):
            return "" if found.deleted else NEW
        return EDITED if not found.deleted and _since(found.edited_at, since) else ""

    def told(self, login: str, conversation: str, found: Message, *, created: bool) -> str:
        """A message that Graph told of; as `read`.

        A message that we do not know and that was not edited was reacted to, which is not shown; that it was
        written may still be on its way.
        """
        known = (login, conversation, found.id) in self._versions
        if not known and not created and not found.deleted and not found.edited_at:
            return ""
        if not self._newer(login, conversation, found):
            return ""
        if found.deleted:
            return DELETED
        return NEW if not known and (created or _since(found.created, self.since(login))) else EDITED

    def _newer(self, login: str, conversation: str, found: Message) -> bool:
        """Whether it is not yet seen so. A deletion is final, an original after its edit is late."""
        key = (login, conversation, found.id)
        before = self._versions.get(key)
        if before is not None and found.version <= before:
            return False
        self._versions[key] = found.version
        self._versions.move_to_end(key)
        while len(self._versions) > _REMEMBERED:
            self._versions.popitem(last=False)
        written = _moment(found.edited_at) or _moment(found.created)
        if login in self._latest and written is not None:
            recent = self._recent.setdefault(login, [])
            recent.append((written, key))
            self._latest[login] = max(self._latest[login], written)
            old = self._latest[login] - _DISORDER
            recent[:] = [one for one in recent if one[0] >= old][-_MOST_RECENT:]
            self._unsaved.add(login)
        return True

    def _document(self, login: str) -> Document:
        recent = [
            [at.isoformat(), key[1], key[2], *self._versions[key]]
            for at, key in self._recent.get(login, [])
            if key in self._versions
        ]
        return {"since": (self._latest[login] - _DISORDER).isoformat(), "recent": recent}


def _since(text: str, moment: datetime) -> bool:
    found = _moment(text)
    return found is not None and found >= moment


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else None
