"""A small DNS server for the gateway's resolver: real packets over UDP, scripted answers, questions kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Key = tuple[str, str]


@dataclass
class _Entry:
    values: list[str]
    ttl: int


@dataclass
class DnsServer(asyncio.DatagramProtocol):
    """Authoritative for what `add` was told, NXDOMAIN for the rest; an async context manager.

    silent    says nothing at all (the resolver times out)
    failing   answers SERVFAIL
    queries   (name, type) of every question in order, names in lower case without the final dot
    """

    silent: bool = False
    failing: bool = False
    queries: list[Key] = field(default_factory=list)
    port: int = 0
    _entries: dict[Key, _Entry] = field(default_factory=dict)
    _transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        """As the gateway's `[resolver] nameservers` wants it."""
        return f"127.0.0.1:{self.port}"

    def add(self, name: str, kind: str, *values: str, ttl: int = 60) -> None:
        """Records of one name and type ("A", "AAAA", "SRV", "NAPTR", "CNAME", "TXT") in zone-file form.

        An SRV value is "priority weight port target."; adding again replaces; without values the name exists,
        but has no such type.
        """
        self._entries[(name.lower(), kind)] = _Entry(list(values), ttl)

    def remove(self, name: str) -> None:
        self._entries = {key: entry for key, entry in self._entries.items() if key[0] != name.lower()}

    async def __aenter__(self) -> DnsServer:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))
        self._transport = transport
        self.port = int(transport.get_extra_info("sockname")[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()
            await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return
        name = query.question[0].name.to_text().rstrip(".").lower()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        self.queries.append((name, kind))
        if self.silent:
            return
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA | dns.flags.RA
        if self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        else:
            self._answer(cast(dns.message.QueryMessage, response), name, kind)
        if self._transport is not None:
            self._transport.sendto(response.to_wire(), addr)

    def _answer(self, response: dns.message.QueryMessage, name: str, kind: str) -> None:
        alias = self._entries.get((name, "CNAME"))
        if alias is not None and kind != "CNAME":
            self._append(response, name, "CNAME", alias)
            self._answer(response, alias.values[0].rstrip(".").lower(), kind)
            return
        entry = self._entries.get((name, kind))
        if entry is not None and entry.values:
            self._append(response, name, kind, entry)
        elif not any(key[0] == name for key in self._entries):
            response.set_rcode(dns.rcode.NXDOMAIN)

    def _append(self, response: dns.message.QueryMessage, name: str, kind: str, entry: _Entry) -> None:
        response.answer.append(
            dns.rrset.from_text(name + ".", entry.ttl, dns.rdataclass.IN, kind, *entry.values)
        )
