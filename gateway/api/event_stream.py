"""One reader of an event stream: first what the journal has after his last id, then what happens.

A journal (the calls', the agents') tells events in their order, on the disk and live; `Feed` joins the two
without a gap and without a repetition. While it replays it keeps nothing in memory, and live at most `room`
messages: who reads more slowly than events come is sent away with the id to come back with.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, TypeVar

from gateway.cdr.journal import Entry

_CHUNK = 500


class Numbered(Protocol):
    """A durable event and its place in its journal."""

    @property
    def seq(self) -> int: ...


E = TypeVar("E", bound=Numbered)
E_co = TypeVar("E_co", bound=Numbered, covariant=True)


class Source(Protocol[E_co]):
    """A journal to be read from any place on (`gateway.cdr.journal`, `gateway.agents.journal`)."""

    @property
    def last_seq(self) -> int: ...

    def subscribe(self, listener: Callable[[E_co], None]) -> Callable[[], None]: ...

    def read(self, after: int = 0) -> Iterator[E_co]: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; empty sets do not narrow."""

    calls: frozenset[str] = field(default_factory=frozenset)
    kinds: frozenset[str] = field(default_factory=frozenset)

    def __contains__(self, entry: object) -> bool:
        return (
            isinstance(entry, Entry)
            and (not self.calls or entry.event.call in self.calls)
            and (not self.kinds or entry.event.kind in self.kinds)
        )


def text_of(seq: int, event: Mapping[str, Any]) -> str:
    """`{"id": …, "kind": …, …}`: an event as its readers get it."""
    return json.dumps({"id": seq, **event}, ensure_ascii=False, separators=(",", ":"))


def call_message(entry: Entry) -> str:
    return text_of(entry.seq, entry.event.to_dict())


class Feed:
    """`async with Feed(journal, wanted, after, message) as feed: async for text in feed.messages()`.

    wanted: which of its entries
    after: the id after which to begin; None = with what happens from now on
    room:  messages that may wait for the reader
    last:  the id to come back with: up to it the reader has been served, events he does not want included;
           None when there is no such id yet
    overrun: set when more than `room` messages wait
    """

    def __init__(
        self,
        journal: Source[Any],
        wanted: Container[Any],
        after: int | None,
        message: Callable[[Any], str] = call_message,
        *,
        room: int = 1000,
    ) -> None:
        self._journal, self._wanted, self._message, self._room = journal, wanted, message, room
        self.last = after
        self._replaying = after is not None
        self._durable = 0
        """The newest event that we were told of; whatever is not above it can be read from the disk."""
        self._waiting: deque[Numbered] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self.overrun = asyncio.Event()
        self._unsubscribe: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Feed:
        self._unsubscribe = self._journal.subscribe(self._on_entry)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unsubscribe()

    def close(self) -> None:
        """Let `messages` end after what waits already."""
        self._closed = True
        self._wake.set()

    def _on_entry(self, entry: Numbered) -> None:
        self._durable = entry.seq
        if self._replaying or self.overrun.is_set():
            return
        if entry not in self._wanted:
            if not self._waiting:
                self.last = entry.seq
        elif len(self._waiting) < self._room:
            self._waiting.append(entry)
            self._wake.set()
        else:
            self.overrun.set()
            self._wake.set()

    async def messages(self) -> AsyncGenerator[str, None]:
        """Texts to send, until `close` or `overrun`."""
        replayed = 0
        while self._replaying and not self._closed:
            assert self.last is not None
            upto = self._durable
            entries = self._journal.read(after=self.last)
            while not self._closed and (chunk := await asyncio.to_thread(_some, entries)):
                for entry in chunk:
                    self.last = entry.seq
                    if entry in self._wanted:
                        yield self._message(entry)
            replayed = self.last = max(self.last, upto)
            # No await from here to the queue: nothing can become durable between the two.
            self._replaying = self._durable > self.last
        while True:
            while self._waiting and not self.overrun.is_set():
                entry = self._waiting.popleft()
                if entry.seq > replayed:
                    self.last = entry.seq
                    yield self._message(entry)
            if self._closed or self.overrun.is_set():
                return
            self._wake.clear()
            await self._wake.wait()


def _some(entries: Iterator[E]) -> list[E]:
    return list(islice(entries, _CHUNK))
