"""RFC 3263 against a small name server on a loopback socket."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from gateway.clock import LoopClock
from gateway.errors import TransportError
from gateway.sip.resolver import Resolver, ResolverSettings
from gateway.sip.transport_types import Target, TransportKind
from tests.support.clock import FakeClock

UDP, TCP, TLS = TransportKind.UDP, TransportKind.TCP, TransportKind.TLS
SOA = ("example.test.", 60, "IN", "SOA", "ns.example.test. root.example.test. 1 3600 600 86400 7")


class NameServer(asyncio.DatagramProtocol):
    """Answers from `zone`; names not in it do not exist; CNAMEs are followed; `silent` drops questions."""

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.silent = False
        self.refuse = False
        self.transport: asyncio.DatagramTransport

    def put(self, name: str, kind: str, *values: str, ttl: int = 60) -> None:
        self.zone[name + ".", kind] = ttl, list(values)

    @property
    def address(self) -> str:
        host, port = self.transport.get_extra_info("sockname")
        return f"{host}:{port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        name, kind = query.question[0].name.to_text(), dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((name.rstrip("."), kind))
        if self.silent:
            return
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if self.refuse:
            reply.set_rcode(dns.rcode.SERVFAIL)
            self.transport.sendto(reply.to_wire(), addr)
            return
        alias = self.zone.get((name, "CNAME"))
        if alias is not None:
            reply.answer.append(dns.rrset.from_text(name, alias[0], "IN", "CNAME", *alias[1]))
            name = alias[1][0]
        found = self.zone.get((name, kind))
        if found is not None:
            reply.answer.append(dns.rrset.from_text(name, found[0], "IN", kind, *found[1]))
        else:
            reply.authority.append(dns.rrset.from_text(*SOA))
            if not any(known == name for known, _ in self.zone):
                reply.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(reply.to_wire(), addr)


@contextlib.asynccontextmanager
async def serving(
    clock: FakeClock | None = None, *, patience: float = 4.0, cache_size: int = 100, ipv6: bool = True
) -> AsyncIterator[tuple[NameServer, Resolver]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    settings = ResolverSettings([server.address], timeout=patience, cache_size=cache_size, ipv6=ipv6)
    resolver = Resolver(clock or LoopClock(), settings, chance=random.Random(1))
    try:
        yield server, resolver
    finally:
        await resolver.close()
        transport.close()
        await asyncio.sleep(0)


async def test_port_in_the_uri_means_addresses_only() -> None:
    async with serving() as (server, resolver):
        server.put("sbc.example.test", "A", "192.0.2.1")
        server.put("sbc.example.test", "AAAA", "2001:db8::1")
        assert await resolver.resolve("sip:sbc.example.test:5071;transport=tls") == [
            Target(TLS, "192.0.2.1", 5071, "sbc.example.test"),
            Target(TLS, "2001:db8::1", 5071, "sbc.example.test"),
        ]
        assert {kind for _, kind in server.asked} == {"A", "AAAA"}


async def test_transport_without_port_asks_its_srv() -> None:
    async with serving(ipv6=False) as (server, resolver):
        server.put("_sips._tcp.example.test", "SRV", "20 0 5063 b.example.test.", "10 5 5062 a.example.test.")
        server.put("a.example.test", "A", "192.0.2.1")
        server.put("b.example.test", "A", "192.0.2.2")
        assert await resolver.resolve("example.test", kind=TLS) == [
            Target(TLS, "192.0.2.1", 5062, "example.test"),
            Target(TLS, "192.0.2.2", 5063, "example.test"),
        ]


async def test_without_srv_the_default_port_is_taken() -> None:
    async with serving(ipv6=False) as (server, resolver):
        server.put("example.test", "A", "192.0.2.1")
        assert await resolver.resolve("example.test", kind=TLS) == [
            Target(TLS, "192.0.2.1", 5061, "example.test")
        ]
        assert await resolver.resolve("example.test") == [Target(UDP, "192.0.2.1", 5060, "example.test")]


async def test_naptr_chooses_the_transport_when_nobody_else_did() -> None:
    async with serving(ipv6=False) as (server, resolver):
        server.put(
            "example.test",
            "NAPTR",
            '50 50 "s" "SIP+D2U" "" _sip._udp.example.test.',
            '10 50 "s" "SIP+D2T" "" _sip._tcp.example.test.',
            '5 50 "s" "SIP+D2W" "" _sip._ws.example.test.',
        )
        server.put("_sip._udp.example.test", "SRV", "0 0 5060 a.example.test.")
        server.put("_sip._tcp.example.test", "SRV", "0 0 5070 a.example.test.")
        server.put("a.example.test", "A", "192.0.2.1")
        assert await resolver.resolve("sip:bob@example.test") == [
            Target(TCP, "192.0.2.1", 5070, "example.test"),
            Target(UDP, "192.0.2.1", 5060, "example.test"),
        ]
        server.asked.clear()
        await resolver.resolve("sip:bob@example.test;transport=udp")
        assert not [kind for _, kind in server.asked if kind == "NAPTR"]


async def test_srv_target_of_a_dot_offers_nothing_and_a_dead_target_is_skipped() -> None:
    async with serving(ipv6=False) as (server, resolver):
        server.put("_sip._tcp.none.example.test", "SRV", "0 0 0 .")
        server.put("none.example.test", "A", "192.0.2.1")
        with pytest.raises(TransportError, match="offers no such service"):
            await resolver.resolve("none.example.test", kind=TCP)
        server.put("_sip._tcp.example.test", "SRV", "1 0 5060 gone.example.test.", "2 0 5060 a.example.test.")
        server.put("a.example.test", "A", "192.0.2.1")
        assert await resolver.resolve("example.test", kind=TCP) == [
            Target(TCP, "192.0.2.1", 5060, "example.test")
        ]


async def test_cname_is_followed_and_its_ttl_counts() -> None:
    clock = FakeClock()
    async with serving(clock, ipv6=False) as (server, resolver):
        server.put("sip.example.test", "CNAME", "real.example.test.", ttl=5)
        server.put("real.example.test", "A", "192.0.2.1", ttl=300)
        await resolver.resolve("sip.example.test", 5061)
        clock.advance(4.9)
        await resolver.resolve("sip.example.test", 5061)
        assert len(server.asked) == 1
        clock.advance(0.2)
        await resolver.resolve("sip.example.test", 5061)
        assert len(server.asked) == 2


async def test_trap_t10_addresses_follow_dns_when_the_ttl_is_over() -> None:
    clock = FakeClock()
    async with serving(clock, ipv6=False) as (server, resolver):
        server.put("sip.example.test", "A", "192.0.2.1", ttl=30)
        first = await resolver.resolve("sip.example.test", 5061, TLS)
        server.put("sip.example.test", "A", "192.0.2.99", ttl=30)
        assert await resolver.resolve("sip.example.test", 5061, TLS) == first
        clock.advance(31)
        assert [t.address for t in await resolver.resolve("sip.example.test", 5061, TLS)] == ["192.0.2.99"]


async def test_missing_name_is_remembered_for_the_time_of_its_soa() -> None:
    clock = FakeClock()
    async with serving(clock, ipv6=False) as (server, resolver):
        for _ in range(3):
            with pytest.raises(TransportError, match="no address"):
                await resolver.resolve("nobody.example.test", 5060)
        assert len(server.asked) == 1
        clock.advance(7.1)
        server.put("nobody.example.test", "A", "192.0.2.1")
        assert await resolver.resolve("nobody.example.test", 5060)


async def test_trap_t27_name_with_txt_only_has_no_address() -> None:
    async with serving() as (server, resolver):
        server.put("sbc.example.test", "TXT", '"v=spf1"')
        with pytest.raises(TransportError, match="T27"):
            await resolver.resolve("sbc.example.test", 5061, TLS)


async def test_silent_name_server_is_a_transport_error_in_time() -> None:
    async with serving(patience=0.3) as (server, resolver):
        server.silent = True
        began = time.monotonic()
        with pytest.raises(TransportError, match="does not answer"):
            await resolver.resolve("sip.example.test", 5061)
        assert time.monotonic() - began < 2


async def test_known_addresses_serve_on_while_dns_is_down() -> None:
    clock = FakeClock()
    async with serving(clock, patience=0.3, ipv6=False) as (server, resolver):
        server.put("sip.example.test", "A", "192.0.2.1", ttl=30)
        known = await resolver.resolve("sip.example.test", 5061)
        clock.advance(31)
        server.refuse = True
        assert await resolver.resolve("sip.example.test", 5061) == known
        asked = len(server.asked)
        assert await resolver.resolve("sip.example.test", 5061) == known
        assert len(server.asked) == asked
        assert resolver.cache.counters["stale"] == 1


async def test_trap_t29_loop_runs_on_while_dns_is_slow() -> None:
    async with serving(patience=0.4) as (server, resolver):
        server.silent = True
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        heart = asyncio.create_task(beat())
        with pytest.raises(TransportError):
            await resolver.resolve("slow.example.test", 5061)
        heart.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await heart
        assert beats >= 10


async def test_equal_questions_at_once_are_asked_once_and_survive_a_cancelled_asker() -> None:
    async with serving(ipv6=False) as (server, resolver):
        server.put("sip.example.test", "A", "192.0.2.1")
        asks = [asyncio.create_task(resolver.resolve("sip.example.test", 5061)) for _ in range(20)]
        await asyncio.sleep(0)
        asks[0].cancel()
        results = await asyncio.gather(*asks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(result == [Target(UDP, "192.0.2.1", 5061, "sip.example.test")] for result in results[1:])
        assert len(server.asked) == 1


async def test_cache_is_bounded() -> None:
    async with serving(cache_size=10, ipv6=False) as (server, resolver):
        for number in range(30):
            server.put(f"h{number}.example.test", "A", "192.0.2.1")
            await resolver.resolve(f"h{number}.example.test", 5060)
        assert len(resolver.cache) == 10
