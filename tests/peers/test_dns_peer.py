"""The DNS server answers a real resolver as it was told to."""

from __future__ import annotations

import dns.asyncresolver
import dns.exception
import dns.resolver
import pytest

from tests.peers.dns import DnsServer


async def test_records_aliases_absence_and_failure() -> None:
    async with DnsServer() as server:
        server.add("_sips._tcp.example.test", "SRV", "10 5 5061 sip.example.test.", ttl=7)
        server.add("sip.example.test", "A", "127.0.0.1", "127.0.0.2")
        server.add("alias.example.test", "CNAME", "sip.example.test.")
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], server.port, 0.5
        service = await resolver.resolve("_sips._tcp.example.test", "SRV")
        assert service.rrset is not None
        assert (service.rrset.ttl, service[0].port) == (7, 5061)
        addresses = await resolver.resolve("alias.example.test", "A")
        assert sorted(item.address for item in addresses) == ["127.0.0.1", "127.0.0.2"]
        with pytest.raises(dns.resolver.NoAnswer):
            await resolver.resolve("sip.example.test", "AAAA")
        with pytest.raises(dns.resolver.NXDOMAIN):
            await resolver.resolve("nobody.example.test", "A")
        assert server.queries[0] == ("_sips._tcp.example.test", "SRV")
        server.silent = True
        with pytest.raises(dns.exception.Timeout):
            await resolver.resolve("sip.example.test", "A")
