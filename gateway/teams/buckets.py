"""How fast we may ask: token buckets per tenant and category, and one queue per thread.

A bucket of `burst` that fills at `rate` lets at most burst + rate x window through in any window, which is
kept at or below Graph's limit (facts/graph.md 5, requests an application a tenant).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from gateway.clock import Clock, pause


class Category(StrEnum):
    PRESENCE = "presence"
    DIRECTORY = "directory"
    SUBSCRIPTION = "subscription"
    CHANNELS = "channels"
    READ_CHANNEL = "read_channel"
    READ_CHAT = "read_chat"
    POST_CHANNEL = "post_channel"
    POST_CHAT = "post_chat"
    OTHER = "other"


@dataclass(frozen=True)
class Limit:
    """At most `requests` in any `seconds`; a third of them at once."""

    requests: int
    seconds: float

    @property
    def burst(self) -> float:
        return max(1.0, self.requests // 3)

    @property
    def rate(self) -> float:
        return max(self.requests - self.burst, 1.0) / self.seconds


LIMITS: dict[Category, Limit] = {
    Category.PRESENCE: Limit(1500, 30.0),
    Category.DIRECTORY: Limit(3500, 10.0),
    Category.SUBSCRIPTION: Limit(500, 20.0),
    Category.CHANNELS: Limit(60, 1.0),
    Category.READ_CHANNEL: Limit(20, 1.0),
    Category.READ_CHAT: Limit(20, 1.0),
    Category.POST_CHANNEL: Limit(50, 1.0),
    Category.POST_CHAT: Limit(20, 1.0),
    Category.OTHER: Limit(30, 1.0),
}
THREAD = Limit(4, 1.0)
"""Requests on one team, channel or chat."""

_CATEGORIES: tuple[tuple[str, str, Category], ...] = (
    ("*", r"/subscriptions.*", Category.SUBSCRIPTION),
    ("*", r".*[pP]resence.*", Category.PRESENCE),
    ("GET", r"/teams/[^/]+/(channels|members|allChannels)(/[^/]+)?", Category.CHANNELS),
    ("GET", r"/teams/[^/]+/channels/[^/]+/messages.*", Category.READ_CHANNEL),
    ("POST", r"/teams/[^/]+/channels/[^/]+/messages.*", Category.POST_CHANNEL),
    ("GET", r"/chats/[^/]+/messages.*", Category.READ_CHAT),
    ("POST", r"/chats/[^/]+/messages", Category.POST_CHAT),
    ("GET", r"/(users|me|organization)(/[^/]+)?", Category.DIRECTORY),
)
_THREAD_OF = re.compile(r"/(?:chats/[^/]+|teams/[^/]+(?:/channels/[^/]+)?)")


def category(method: str, path: str) -> Category:
    """Which limit a request counts against; `path` without root and query."""
    for verb, pattern, found in _CATEGORIES:
        if verb in ("*", method) and re.fullmatch(pattern, path):
            return found
    return Category.OTHER


def units(method: str, path: str, query: str) -> int:
    """What a request costs: GET /users 2, one less for $select (facts/graph.md 5, directory)."""
    return 2 if method == "GET" and path == "/users" and "select=" not in query else 1


def thread_of(path: str) -> str:
    """The team, channel or chat that a path is about; "" for none."""
    match = _THREAD_OF.match(path)
    return match[0] if match else ""


class Closed(Exception):
    """Graph wants to hear nothing of this category for `seconds` more, and that is too long to wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"closed for {seconds:.0f} s")


class Bucket:
    """First come, first served."""

    def __init__(self, limit: Limit, clock: Clock) -> None:
        self._limit, self._clock = limit, clock
        self._level, self._at = limit.burst, clock.now()
        self._turn = asyncio.Lock()
        self._closed_until = 0.0

    async def take(self, count: int = 1, until: float = math.inf) -> None:
        """until: moment of the clock; Closed when Graph asked us to stay away for longer."""
        self._check(until)
        async with self._turn:
            while True:
                self._check(until)
                now = self._clock.now()
                self._level = min(self._limit.burst, self._level + (now - self._at) * self._limit.rate)
                self._at = now
                wait = max(self._closed_until - now, (count - self._level) / self._limit.rate)
                if wait <= 1e-6:
                    self._level -= count
                    return
                await pause(self._clock, wait)

    def _check(self, until: float) -> None:
        now = self._clock.now()
        if self._closed_until > max(now, until):
            raise Closed(self._closed_until - now)

    def close_for(self, seconds: float) -> None:
        """Graph asked us to stay away: nobody of this category goes before."""
        self._closed_until = max(self._closed_until, self._clock.now() + seconds)

    @property
    def idle(self) -> bool:
        full = (self._clock.now() - self._at) * self._limit.rate + self._level >= self._limit.burst
        return full and not self._turn.locked()


class Pace:
    """All buckets, and the queues by thread, of one tenant."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets = {name: Bucket(limit, clock) for name, limit in LIMITS.items()}
        self._threads: dict[str, Bucket] = {}
        self._queues: dict[str, tuple[asyncio.Lock, deque[None]]] = {}

    async def take(self, method: str, path: str, query: str, until: float = math.inf) -> None:
        """Closed, as `Bucket.take`."""
        thread = thread_of(path)
        if thread:
            if len(self._threads) > 1000:
                self._threads = {name: one for name, one in self._threads.items() if not one.idle}
            await self._threads.setdefault(thread, Bucket(THREAD, self._clock)).take()
        await self._buckets[category(method, path)].take(units(method, path, query), until)

    def close_for(self, method: str, path: str, seconds: float) -> None:
        self._buckets[category(method, path)].close_for(seconds)

    @asynccontextmanager
    async def in_order(self, name: str) -> AsyncIterator[None]:
        """Whoever enters with one name goes one after the other, in the order they came."""
        lock, users = self._queues.setdefault(name, (asyncio.Lock(), deque()))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                self._queues.pop(name, None)
