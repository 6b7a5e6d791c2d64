"""Our subscriptions to changes in Graph: made, renewed, made again, and repaired (facts/graph.md 3.1, 3.6).

Every subscription lasts just under an hour and is renewed after two thirds of it, which also reauthorises it
before the access token it was made with ends. Where renewing fails or gives less, it is made anew.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from gateway.clock import Clock, TimerHandle
from gateway.teams.client import GraphClient, segment
from gateway.teams.errors import GraphError, NotThere, PermissionMissing, SignInNeeded, TeamsError, Throttled
from gateway.teams.notification_crypto import ContentKey
from gateway.teams.store import Shelf, Store
from gateway.teams.tasks import Tasks

log = logging.getLogger("tandem.teams")

LIFE = timedelta(minutes=58)
_RENEW_AFTER = 2 / 3
_SHORTEST = timedelta(minutes=10)
_RETRY = 60.0
_RETRY_REFUSED = 900.0
"""What somebody must mend first: nobody may tell us when he has."""


class Kind(StrEnum):
    PRESENCE = "presence"
    CHATS = "chats"
    CHANNEL = "channel"


@dataclass(frozen=True)
class Watch:
    """What is watched for whom. `owner` is the login whose token it is done with."""

    kind: Kind
    owner: str
    resource: str

    @property
    def key(self) -> str:
        return f"{self.kind} {self.owner} {self.resource}"

    @property
    def changes(self) -> str:
        return "updated" if self.kind is Kind.PRESENCE else "created,updated,deleted"


@dataclass(frozen=True)
class Subscription:
    """One that Graph has; `client_state` is its secret, `key` the id of what its content is sealed with."""

    id: str
    watch: Watch
    client_state: str
    expires: datetime
    key: str = ""

    def document(self) -> dict[str, Any]:
        watch = self.watch
        return {
            "id": self.id,
            "watch": [watch.kind, watch.owner, watch.resource],
            "client_state": self.client_state,
            "expires": self.expires.isoformat(),
            "key": self.key,
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> Subscription:
        kind, owner, resource = document["watch"]
        expires = datetime.fromisoformat(document["expires"])
        watch = Watch(Kind(kind), owner, resource)
        return cls(document["id"], watch, document["client_state"], expires, document.get("key", ""))


Told = Callable[[Watch], Coroutine[Any, Any, None]]


class Subscriptions:
    """on_gap(watch): what happened since is unknown, read it. notify_url: where Graph sends changes."""

    def __init__(
        self,
        client: GraphClient,
        store: Store,
        clock: Clock,
        key: Callable[[], ContentKey],
        notify_url: str,
        on_gap: Told,
    ) -> None:
        self._client, self._store, self._clock, self._key = client, store, clock, key
        self._url, self._on_gap = notify_url, on_gap
        self._wanted: dict[str, Watch] = {}
        self._known: dict[str, Subscription] = {}
        self._by_id: dict[str, Subscription] = {}
        self._timers: dict[str, TimerHandle] = {}
        self._tasks = Tasks("subscriptions")
        self.faults: dict[str, str] = {}
        self.on_refused: Told = _nobody
        """Told when the owner's token does not do, and Graph has nothing left of what it was used for."""

    async def start(self) -> None:
        """Take over what an earlier run made; what is wanted no more lapses by itself."""
        for document in (await self._store.all(Shelf.SUBSCRIPTION)).values():
            found = Subscription.of(document)
            if found.expires > self._clock.wall():
                self._known[found.watch.key] = self._by_id[found.id] = found

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._tasks.close()

    def find(self, subscription_id: str) -> Subscription | None:
        return self._by_id.get(subscription_id)

    @property
    def active(self) -> int:
        return len(self._known)

    @property
    def idle(self) -> bool:
        """Nothing is being renewed."""
        return self._tasks.idle

    def lives(self, watch: Watch) -> bool:
        """Whether Graph has it, as far as we know."""
        found = self._known.get(watch.key)
        return found is not None and found.expires > self._clock.wall()

    async def watch(self, watch: Watch) -> bool:
        """From now on; failing is logged and tried again.

        Whether one that an earlier run made goes on, so that nothing is missing in between.
        """
        self._wanted[watch.key] = watch
        before = self._known.get(watch.key)
        if before is not None:
            await self._renew(watch)
        else:
            await self._make(watch)
        after = self._known.get(watch.key)
        return before is not None and after is not None and before.id == after.id

    async def again(self, owner: str) -> None:
        """The user has signed in again: everything of his goes on, and what he missed is read."""
        for watch in [one for one in self._wanted.values() if one.owner == owner]:
            before = self._known.get(watch.key)
            await self._renew(watch)
            after = self._known.get(watch.key)
            remade = before is not None and after is not None and before.id != after.id
            if self.lives(watch) and not remade:
                await self._on_gap(watch)

    async def hand_over(self, before: Watch, after: Watch) -> None:
        """The same for another owner; what comes in between is read."""
        await self.unwatch(before.owner, before.kind, before.resource)
        await self.watch(after)
        self._tasks.spawn(self._on_gap(after), after.key)

    async def unwatch(self, owner: str, kind: Kind | None = None, resource: str = "") -> None:
        """Everything of `owner`, or of one kind and resource."""
        for key, watch in list(self._wanted.items()):
            mine = watch.owner == owner and kind in (None, watch.kind)
            if mine and resource in ("", watch.resource):
                del self._wanted[key]
                self._never(key)
                self.faults.pop(key, None)
                await self._delete(key)

    async def lifecycle(self, found: Subscription, event: str) -> None:
        """reauthorizationRequired, subscriptionRemoved, missed (facts/graph.md 3.6)."""
        log.info("event=subscription_%s kind=%s login=%s", event, found.watch.kind, found.watch.owner)
        if found.watch.key not in self._wanted:
            return
        if event == "reauthorizationRequired":
            await self._renew(found.watch)
        elif event == "subscriptionRemoved":
            await self._forget(found)
            await self._make(found.watch)
            await self._on_gap(found.watch)
        else:
            await self._on_gap(found.watch)

    async def _make(self, watch: Watch) -> None:
        state, key = secrets.token_urlsafe(32), self._key()
        body = {
            "changeType": watch.changes,
            "notificationUrl": self._url,
            "lifecycleNotificationUrl": self._url,
            "resource": watch.resource,
            "expirationDateTime": self._expiry(),
            "clientState": state,
            "includeResourceData": True,
            "encryptionCertificate": key.written,
            "encryptionCertificateId": key.id,
            "latestSupportedTlsVersion": "v1_2",
        }
        try:
            try:
                made = await self._client.post("/subscriptions", body, who=watch.owner)
            except PermissionMissing:
                if not await self._delete_strays(watch):
                    raise
                made = await self._client.post("/subscriptions", body, who=watch.owner)
            found = Subscription(str(made["id"]), watch, state, _moment(made["expirationDateTime"]), key.id)
        except (TeamsError, KeyError, ValueError) as error:
            self._failed(watch, error)
            return
        await self._keep(found)

    async def _delete_strays(self, watch: Watch) -> bool:
        """A quota is full (N7: one presence subscription a user): with what an earlier run left behind."""
        gone = False
        for key, known in list(self._known.items()):
            same = (known.watch.kind, known.watch.resource) == (watch.kind, watch.resource)
            if same and key not in self._wanted:
                await self._delete(key)
                gone = True
        async for one in self._client.pages("/subscriptions", who=watch.owner):
            stray = str(one.get("id"))
            same = str(one.get("resource", "")).strip("/") == watch.resource.strip("/")
            if same and stray not in self._by_id:
                await self._client.request("DELETE", f"/subscriptions/{segment(stray)}", who=watch.owner)
                gone = True
        return gone

    async def _renew(self, watch: Watch) -> None:
        found = self._known.get(watch.key)
        if found is None:
            await self._make(watch)
            return
        key, body = self._key(), {"expirationDateTime": self._expiry()}
        if found.key != key.id:
            body |= {"encryptionCertificate": key.written, "encryptionCertificateId": key.id}
        try:
            reply = await self._client.request(
                "PATCH", f"/subscriptions/{segment(found.id)}", who=watch.owner, body=body
            )
            expires = _moment(reply.body["expirationDateTime"])
            if expires - self._clock.wall() < _SHORTEST:
                raise GraphError(200, "ShortRenewal", reply.request_id, "PATCH /subscriptions")
        except (SignInNeeded, Throttled) as error:
            # It lives on for a third of its time at least, and making it anew asks for more.
            self._failed(watch, error)
        except (GraphError, KeyError, ValueError) as error:
            log.info("event=subscription_remade kind=%s login=%s cause=%s", watch.kind, watch.owner, error)
            await self._delete(watch.key)
            await self._make(watch)
            await self._on_gap(watch)
        except TeamsError as error:
            self._failed(watch, error)
        else:
            await self._keep(Subscription(found.id, watch, found.client_state, expires, key.id))

    async def _keep(self, found: Subscription) -> None:
        watch = found.watch
        if watch.key not in self._wanted:
            return
        self._known[watch.key] = self._by_id[found.id] = found
        self.faults.pop(watch.key, None)
        left = (found.expires - self._clock.wall()).total_seconds()
        self._later(watch, max(left * _RENEW_AFTER * random.uniform(0.9, 1.0), 1.0))
        await self._store.put(Shelf.SUBSCRIPTION, found.id, found.document())

    async def _delete(self, key: str) -> None:
        found = self._known.get(key)
        if found is None:
            return
        await self._forget(found)
        try:
            await self._client.request("DELETE", f"/subscriptions/{segment(found.id)}", who=found.watch.owner)
        except NotThere:
            pass
        except TeamsError as error:
            log.info("event=subscription_left kind=%s cause=%s", found.watch.kind, error)

    async def _forget(self, found: Subscription) -> None:
        self._known.pop(found.watch.key, None)
        self._by_id.pop(found.id, None)
        await self._store.remove(Shelf.SUBSCRIPTION, found.id)

    def _failed(self, watch: Watch, error: Exception) -> None:
        self.faults[watch.key] = str(error)
        log.warning("event=subscription_failed kind=%s login=%s cause=%s", watch.kind, watch.owner, error)
        somebodys = isinstance(error, SignInNeeded | PermissionMissing)
        if not somebodys:
            self._later(watch, _RETRY)
        elif self.lives(watch):
            # Until it ends: then another one may take its place.
            left = (self._known[watch.key].expires - self._clock.wall()).total_seconds()
            self._later(watch, min(left, _RETRY_REFUSED))
        else:
            self._later(watch, _RETRY_REFUSED)
            self._tasks.spawn(self.on_refused(watch), watch.key)

    def _later(self, watch: Watch, seconds: float) -> None:
        self._never(watch.key)
        self._timers[watch.key] = self._clock.call_later(
            seconds, lambda: self._tasks.spawn(self._due(watch), watch.key)
        )

    async def _due(self, watch: Watch) -> None:
        had = self.lives(watch)
        await self._renew(watch)
        if not had and self.lives(watch):
            await self._on_gap(watch)

    def _never(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _expiry(self) -> str:
        return (self._clock.wall() + LIFE).strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def _nobody(_: Watch) -> None:
    return


def _moment(text: object) -> datetime:
    found = datetime.fromisoformat(str(text))
    if found.tzinfo is None:
        raise ValueError("no zone")
    return found
