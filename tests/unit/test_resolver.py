"""What the resolver decides without asking anybody: literals, overrides, URIs, the SRV draw."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.errors import TransportError
from gateway.sip.resolver import Resolver, ResolverSettings, in_srv_order
from gateway.sip.resolver_cache import Record
from gateway.sip.transport_types import Target, TransportKind
from tests.support.clock import FakeClock

UDP, TCP, TLS = TransportKind.UDP, TransportKind.TCP, TransportKind.TLS


def make() -> Resolver:
    # Port 9 of an address nobody answers from: a question would fail the test.
    hosts = {"PBX.example.test": ["192.0.2.7", "192.0.2.8"]}
    return Resolver(FakeClock(), ResolverSettings(nameservers=["127.0.0.1:9"], hosts=hosts, timeout=0.1))


@pytest.mark.parametrize(
    ("where", "port", "kind", "target"),
    [
        ("192.0.2.1", None, None, Target(UDP, "192.0.2.1", 5060)),
        ("192.0.2.1", 5070, TCP, Target(TCP, "192.0.2.1", 5070)),
        ("[2001:DB8::1]", None, TLS, Target(TLS, "2001:db8::1", 5061)),
        ("2001:db8::1", None, None, Target(UDP, "2001:db8::1", 5060)),
        ("sip:bob@192.0.2.1", None, None, Target(UDP, "192.0.2.1", 5060)),
        ("sip:bob@192.0.2.1:5080;transport=tcp", None, UDP, Target(TCP, "192.0.2.1", 5080)),
        ("sip:bob@192.0.2.1;transport=TLS", None, None, Target(TLS, "192.0.2.1", 5061)),
        ("sips:bob@192.0.2.1", None, None, Target(TLS, "192.0.2.1", 5061)),
        ("sip:bob@example.test;maddr=192.0.2.9", None, None, Target(UDP, "192.0.2.9", 5060)),
        ("sip:[2001:db8::1]:5062", None, None, Target(UDP, "2001:db8::1", 5062)),
    ],
)
async def test_address_needs_no_dns(
    where: str, port: int | None, kind: TransportKind | None, target: Target
) -> None:
    assert await make().resolve(where, port, kind) == [target]


async def test_hosts_answer_before_dns_and_keep_the_name_for_tls() -> None:
    found = await make().resolve("sip:pbx.EXAMPLE.test.;transport=tls")
    assert found == [
        Target(TLS, "192.0.2.7", 5061, "pbx.example.test"),
        Target(TLS, "192.0.2.8", 5061, "pbx.example.test"),
    ]


@pytest.mark.parametrize("where", ["tel:+4930", "sip:", "sip:a b@x", "sip:bob@192.0.2.1;transport=sctp"])
async def test_what_names_no_host_is_a_transport_error(where: str) -> None:
    with pytest.raises(TransportError):
        await make().resolve(where)


@pytest.mark.parametrize("name", ["x" * 64 + ".test", "a..b", "\udcff.test"])
async def test_impossible_names_are_a_transport_error(name: str) -> None:
    with pytest.raises(TransportError):
        await make().resolve(name, 5060)


def test_srv_order_is_by_priority_then_by_weight() -> None:
    records = [
        Record("backup", priority=20, weight=0),
        Record("heavy", priority=10, weight=90),
        Record("light", priority=10, weight=10),
        Record("never", priority=10, weight=0),
    ]
    firsts: Counter[str] = Counter()
    chance = random.Random(4)
    for _ in range(2000):
        ordered = [record.target for record in in_srv_order(records, chance)]
        assert sorted(ordered) == ["backup", "heavy", "light", "never"]
        assert ordered[-1] == "backup"
        firsts[ordered[0]] += 1
    assert 1700 < firsts["heavy"] < 1900
    assert 120 < firsts["light"] < 280
    assert 0 < firsts["never"] < 60
