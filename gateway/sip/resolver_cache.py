"""DNS questions through dnspython, remembered as long as their TTL says.

When the name servers are silent, what was known is used on: a stale address beats a dead trunk (RFC
8767). That a name does not exist is remembered too, by its SOA and within bounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from gateway.clock import Clock
from gateway.errors import TransportError

log = logging.getLogger("tandem.sip.resolver")

_MAX_TTL = 86_400.0
_MIN_NEGATIVE, _DEFAULT_NEGATIVE, _MAX_NEGATIVE = 1.0, 30.0, 300.0
_RETRY_AFTER_FAILURE = 5.0
_STALE_FOR = 86_400.0


@dataclass(frozen=True, slots=True)
class Record:
    """One answer: A and AAAA fill `target` (the address), SRV and NAPTR what they have."""

    target: str
    port: int = 0
    priority: int = 0
    weight: int = 0
    order: int = 0
    preference: int = 0
    flags: str = ""
    service: str = ""


@dataclass(slots=True)
class _Entry:
    records: tuple[Record, ...]
    until: float
    stale_until: float


class DnsCache:
    """`ask` gives the records, none when there are none. counters: hits, queries, stale, failures."""

    def __init__(self, clock: Clock, nameservers: Sequence[str], timeout: float, size: int) -> None:
        self._clock = clock
        self._nameservers = tuple(nameservers)
        self._timeout = timeout
        self._size = size
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[tuple[Record, ...]]] = {}
        self._resolver: dns.asyncresolver.Resolver | None = None
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    async def ask(self, name: str, kind: str) -> list[Record]:
        """TransportError when no name server answers and nothing is remembered; [] when there is no such
        record.
        """
        key = name.lower().rstrip("."), kind
        entry = self._entries.get(key)
        if entry is not None and entry.until > self._clock.now():
            self.counters["hits"] += 1
            self._entries.move_to_end(key)
            return list(entry.records)
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._query(*key))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return list(await asyncio.shield(task))

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _asked(self, key: tuple[str, str], task: asyncio.Task[tuple[Record, ...]]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # the one who asked may be gone

    async def _query(self, name: str, kind: str) -> tuple[Record, ...]:
        self.counters["queries"] += 1
        try:
            question = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise TransportError(f"{name[:64]!r} is no host name") from error
        try:
            answer = await self._make_resolver().resolve(
                question, kind, raise_on_no_answer=False, lifetime=self._timeout, search=False
            )
        except dns.resolver.NXDOMAIN as missing:
            return self._remember(name, kind, (), _negative_ttl(list(missing.kwargs["responses"].values())))
        except (dns.exception.DNSException, OSError) as error:
            return self._failed(name, kind, error)
        records = tuple(_read(rdata, kind) for rdata in answer.rrset or ())
        if not records:
            return self._remember(name, kind, (), _negative_ttl([answer.response]))
        ttl = min(float(answer.chaining_result.minimum_ttl), _MAX_TTL)
        return self._remember(name, kind, records, ttl)

    def _make_resolver(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            try:
                resolver = dns.asyncresolver.Resolver(configure=not self._nameservers)
            except dns.resolver.NoResolverConfiguration as error:
                raise TransportError("no name server is configured on this machine") from error
            if self._nameservers:
                resolver.nameservers = [_nameserver(text) for text in self._nameservers]
            resolver.cache = None
            self._resolver = resolver
        return self._resolver

    def _remember(self, name: str, kind: str, records: tuple[Record, ...], ttl: float) -> tuple[Record, ...]:
        now = self._clock.now()
        self._entries[name, kind] = _Entry(records, now + ttl, now + ttl + _STALE_FOR)
        self._entries.move_to_end((name, kind))
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return records

    def _failed(self, name: str, kind: str, error: Exception) -> tuple[Record, ...]:
        self.counters["failures"] += 1
        now = self._clock.now()
        entry = self._entries.get((name, kind))
        if entry is not None and entry.stale_until > now:
            self.counters["stale"] += 1
            log.warning("event=dns-stale name=%s kind=%s reason=%s", name, kind, type(error).__name__)
            entry.until = now + _RETRY_AFTER_FAILURE
            return entry.records
        log.warning("event=dns-failed name=%s kind=%s reason=%s", name, kind, type(error).__name__)
        raise TransportError(f"DNS does not answer for {name} ({kind}): {type(error).__name__}") from error


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    host, port = text, "53"
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return dns.nameserver.Do53Nameserver(host, int(port))


def _negative_ttl(responses: Sequence[object]) -> float:
    """RFC 2308 5: the lower of the SOA's own TTL and its minimum."""
    for response in responses:
        if not isinstance(response, dns.message.Message):
            continue
        for rrset in response.authority:
            if rrset.rdtype == dns.rdatatype.SOA:
                ttl = float(min(rrset.ttl, rrset[0].minimum))
                return min(max(ttl, _MIN_NEGATIVE), _MAX_NEGATIVE)
    return _DEFAULT_NEGATIVE


def _read(rdata: object, kind: str) -> Record:
    """dnspython's rdata classes are dynamic: read by name, whatever is missing is absent."""

    def text(name: str) -> str:
        value = getattr(rdata, name, b"")
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def number(name: str) -> int:
        return int(getattr(rdata, name, 0))

    if kind in ("A", "AAAA"):
        return Record(text("address"))
    if kind == "SRV":
        # A target of "." says: decidedly no such service (RFC 2782).
        return Record(
            text("target").rstrip(".").lower(),
            port=number("port"),
            priority=number("priority"),
            weight=number("weight"),
        )
    return Record(
        text("replacement").rstrip(".").lower(),
        order=number("order"),
        preference=number("preference"),
        flags=text("flags"),
        service=text("service"),
    )
