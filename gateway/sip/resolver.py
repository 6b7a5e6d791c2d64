"""From a SIP URI or host name to the places to try, in order (RFC 3263), without ever blocking the loop
(T29).
"""

from __future__ import annotations

import ipaddress
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sipmessage import URI

from gateway.clock import Clock
from gateway.errors import MessageError, TransportError
from gateway.sip.message import parse_uri
from gateway.sip.resolver_cache import DnsCache, Record
from gateway.sip.transport_types import Target, TransportKind, is_ip

log = logging.getLogger("tandem.sip.resolver")

_SERVICES = {
    TransportKind.UDP: "_sip._udp",
    TransportKind.TCP: "_sip._tcp",
    TransportKind.TLS: "_sips._tcp",
}
_NAPTR_SERVICES = {
    "SIP+D2U": TransportKind.UDP,
    "SIP+D2T": TransportKind.TCP,
    "SIPS+D2T": TransportKind.TLS,
}
_MAX_TARGETS = 32


@dataclass(frozen=True)
class ResolverSettings:
    """`nameservers` are addresses with an optional port (`127.0.0.1:5353`, `[::1]:53`); none = the system's.

    `hosts` answers before DNS does: name to addresses, for tests, the demo and split-horizon sites.
    `timeout` is the time for one question with all its repeats, seconds. `ipv6` asks for AAAA as well,
    tried after A.
    """

    nameservers: Sequence[str] = ()
    hosts: Mapping[str, Sequence[str]] | None = None
    timeout: float = 4.0
    cache_size: int = 2048
    ipv6: bool = True


class Resolver:
    """Shared by all who send; concurrent equal questions are asked once."""

    def __init__(
        self,
        clock: Clock,
        settings: ResolverSettings | None = None,
        *,
        chance: random.Random | None = None,
    ) -> None:
        self._settings = settings or ResolverSettings()
        hosts = self._settings.hosts or {}
        self._hosts = {name.lower().rstrip("."): tuple(addresses) for name, addresses in hosts.items()}
        self._chance = chance or random.Random()
        self.cache = DnsCache(
            clock, self._settings.nameservers, self._settings.timeout, self._settings.cache_size
        )

    async def resolve(
        self, where: str | URI, port: int | None = None, kind: TransportKind | None = None
    ) -> list[Target]:
        """Targets in the order to try them, at least one. `where` is a sip(s) URI or a host name or address.

        A port or transport in the URI wins over the arguments; `sips` and `transport=tls` mean TLS, and
        no choice at all means NAPTR, then SRV, then UDP. Addresses of the name itself count only where it has
        no SRV record (4.2); a target of "." says that the service is not there (RFC 2782). TransportError
        when nothing is found or DNS does not answer.
        """
        host, port, kind = _read(where, port, kind)
        if is_ip(host):
            chosen = kind or TransportKind.UDP
            address = str(ipaddress.ip_address(host.strip("[]")))
            return [Target(chosen, address, port or chosen.default_port)]
        name = host.lower().rstrip(".")
        if name in self._hosts or port is not None:
            chosen = kind or TransportKind.UDP
            targets = await self._addresses(name, chosen, port or chosen.default_port, name)
        elif kind is not None:
            targets = await self._by_service(name, [(kind, f"{_SERVICES[kind]}.{name}")], kind)
        else:
            targets = await self._by_service(name, await self._services(name), TransportKind.UDP)
        if not targets:
            raise TransportError(f"{name} has no address (T27: an A or AAAA record is needed)")
        return list(dict.fromkeys(targets))[:_MAX_TARGETS]

    async def close(self) -> None:
        await self.cache.close()

    async def _services(self, name: str) -> list[tuple[TransportKind, str]]:
        """NAPTR's choice (RFC 3263 4.1); without NAPTR every transport's SRV name."""
        found: list[tuple[int, int, TransportKind, str]] = []
        for record in await self.cache.ask(name, "NAPTR"):
            kind = _NAPTR_SERVICES.get(str(record.service).upper())
            if kind is not None and record.flags.lower() == "s":
                found.append((record.order, record.preference, kind, record.target))
        if found:
            found.sort(key=lambda item: item[:2])
            return [(kind, target) for _, _, kind, target in found]
        return [(kind, f"{service}.{name}") for kind, service in _SERVICES.items()]

    async def _by_service(
        self, name: str, services: Iterable[tuple[TransportKind, str]], without: TransportKind
    ) -> list[Target]:
        """What SRV names; without any SRV record the addresses of `name`, by transport `without`."""
        targets: list[Target] = []
        offered = False
        for kind, service in services:
            records = await self.cache.ask(service, "SRV")
            offered = offered or bool(records)
            for record in in_srv_order([record for record in records if record.target], self._chance):
                # The certificate must hold the name that was asked for, not SRV's (RFC 5922 4).
                try:
                    targets += await self._addresses(record.target, kind, record.port, name)
                except TransportError as error:
                    log.warning("event=srv-target-skipped name=%s reason=%r", record.target, error.text)
        if not offered:
            return await self._addresses(name, without, without.default_port, name)
        if not targets:
            raise TransportError(f"{name} offers no such service (its SRV records name no host)")
        return targets

    async def _addresses(self, host: str, kind: TransportKind, port: int, name: str) -> list[Target]:
        known = self._hosts.get(host)
        if known is not None:
            return [Target(kind, address, port, name) for address in known]
        if is_ip(host):
            return [Target(kind, host, port, name)]
        found = [record.target for record in await self.cache.ask(host, "A")]
        self._chance.shuffle(found)
        if self._settings.ipv6:
            found += [record.target for record in await self.cache.ask(host, "AAAA")]
        return [Target(kind, address, port, name) for address in found]


def in_srv_order(records: Sequence[Record], chance: random.Random) -> list[Record]:
    """RFC 2782: by priority; within one, drawn by weight without putting back."""
    ordered: list[Record] = []
    for priority in sorted({record.priority for record in records}):
        # Weight 0 first gives it its very small chance.
        group = sorted((r for r in records if r.priority == priority), key=lambda record: record.weight)
        while group:
            total = sum(record.weight for record in group)
            drawn = chance.randint(0, total)
            running = 0
            for record in group:
                running += record.weight
                if running >= drawn:
                    ordered.append(record)
                    group.remove(record)
                    break
    return ordered


def _read(
    where: str | URI, port: int | None, kind: TransportKind | None
) -> tuple[str, int | None, TransportKind | None]:
    if isinstance(where, str):
        if not where.lower().startswith(("sip:", "sips:", "tel:")):
            return where, port, kind
        try:
            where = parse_uri(where)
        except MessageError as error:
            raise TransportError(f"cannot resolve: {error.text}") from error
    if where.scheme == "tel":
        raise TransportError("a tel URI names no host")
    named = (where.parameters.get("transport") or "").lower()
    if where.scheme == "sips":
        kind = TransportKind.TLS
    elif named:
        try:
            kind = TransportKind(named)
        except ValueError:
            raise TransportError(f"unsupported transport {named!r}") from None
    return where.parameters.get("maddr") or where.host, where.port or port, kind
