"""OPTIONS and peer health over real sockets, against the Teams stand-in and a plain UDP peer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.sip.message import Request, make_response, parse_message, to_bytes
from gateway.sip.transport_types import TransportLimits
from gateway.trunks.health import PeerState
from tests.peers.certs import Authority, Pki, make_pki
from tests.peers.sipwire import address, new_tag, uri
from tests.peers.sipwire_net import Listener, server_context
from tests.peers.sipwire_ua import ServerTx, allows
from tests.peers.teams import Teams
from tests.support.deaf_relay import DeafRelay
from tests.support.trunk_stack import TrunkStack, gateway_tls
from tests.support.waiting import until

FQDN = "sbc.example.test"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


def toml(teams: Teams, tenants: str = f'"{FQDN}"', interval: float = 0.2) -> str:
    peers = ", ".join(f'"{peer}"' for peer in teams.peers)
    return f"""
        [gateway]
        fqdn = "{FQDN}"
        [[trunk]]
        name = "teams"
        kind = "direct-routing"
        peers = [{peers}]
        tenants = [{tenants}]
        allow_from = ["127.0.0.0/8"]
        options_interval = {interval}
    """


@pytest.fixture
async def teams(pki: Pki) -> AsyncIterator[Teams]:
    async with Teams(pki, trunk=FQDN, trunk_names=["c1.customers.example.test"]) as stand_in:
        yield stand_in


def stack_for(teams: Teams, certificate: str = "gateway", **settings: object) -> TrunkStack:
    identity = teams.pki[certificate]
    return TrunkStack(
        toml(teams, **settings),  # type: ignore[arg-type]  # tenants and interval, by name
        teams.hosts,
        tls=gateway_tls(identity.chain, identity.key, teams.pki.roots),
        listen=("tls:127.0.0.1:0",),
    )


@pytest.fixture
async def stack(teams: Teams) -> AsyncIterator[TrunkStack]:
    async with stack_for(teams) as running:
        teams.gateway = ("127.0.0.1", running.port("tls"))
        yield running


def state(stack: TrunkStack, index: int) -> PeerState:
    health = list(stack.trunks["teams"].health.values())[index]
    health.settle(stack.clock.now())
    return health.state


async def test_t10_each_proxy_name_is_pinged_and_resolved_anew(teams: Teams, stack: TrunkStack) -> None:
    await stack.prober.start()
    await until(lambda: len(teams.options_seen) >= 9)
    assert {owner for _, owner, _ in teams.options_seen} == {"Teams sip", "Teams sip2", "Teams sip3"}
    await until(lambda: all(stack.resolver.asked.count(name) >= 3 for name in teams.names))
    assert [state(stack, n) for n in range(3)] == [PeerState.UP] * 3
    status = stack.trunks["teams"].status(stack.clock.now())
    assert status.usable
    for peer in status.peers:
        assert peer.last_code == 200
        assert peer.rtt_ms is not None
        assert 0 < peer.rtt_ms < 5000
        assert peer.addresses == ("127.0.0.1",)


async def test_t03_our_options_carry_contact_allow_and_the_fqdn(teams: Teams, stack: TrunkStack) -> None:
    await stack.prober.start()
    await until(lambda: bool(teams.options_seen))
    message = teams.options_seen[0][2]
    contact = address(message.get("Contact")).uri
    assert contact == f"sip:{FQDN}:{stack.port('tls')};transport=tls"
    assert uri(address(message.get("From")).uri).host == FQDN
    assert message.all("Via")[0].startswith(f"SIP/2.0/TLS {FQDN}")
    assert allows(message, "REFER")
    assert allows(message, "NOTIFY")
    assert message.get("User-Agent") == "Tandem/1.2.3"
    assert "replaces" in message.get("Supported")
    assert message.get("CSeq") == "1 OPTIONS"
    assert not message.get("Record-Route")
    assert message.uri.startswith("sip:sip")
    assert ";transport=tls" in message.uri


async def test_t06_our_answer_to_options_carries_contact_and_allow(teams: Teams, stack: TrunkStack) -> None:
    answer = await teams.options()
    assert answer.code == 200
    assert address(answer.get("Contact")).uri == f"sip:{FQDN}:{stack.port('tls')};transport=tls"
    assert allows(answer, "REFER")
    assert allows(answer, "NOTIFY")
    assert answer.get("Accept") == "application/sdp"
    assert answer.get("Supported") == "replaces, timer"
    assert stack.trunks["teams"].heard is not None


async def test_options_is_refused_with_503_while_draining(teams: Teams, stack: TrunkStack) -> None:
    stack.taking_calls = False
    answer = await teams.options()
    assert answer.code == 503
    assert int(answer.get("Retry-After")) > 0
    assert address(answer.get("Contact")).uri.startswith(f"sip:{FQDN}:")


async def test_t22_options_for_a_foreign_host_is_not_found(teams: Teams, stack: TrunkStack) -> None:
    await teams.outgoing()
    teams.trunk = "attacker.example.test"
    teams.rules.trunk_names.add("attacker.example.test")
    answer = await teams.options()
    assert answer.code == 404
    assert stack.trunks["teams"].status(0.0).refused == {"tenant": 1}


async def test_t22_a_certificate_without_microsofts_name_is_refused_and_counted(
    pki: Pki, teams: Teams, stack: TrunkStack
) -> None:
    teams.identity = pki["microsoft-wrong-name"]
    answer = await teams.options()
    assert answer.code == 403
    assert stack.trunks["teams"].status(0.0).refused == {"certificate": 1}


async def test_t08_a_server_only_certificate_may_dial_us(pki: Pki, teams: Teams, stack: TrunkStack) -> None:
    teams.identity = pki["microsoft-server-only"]
    assert (await teams.options()).code == 200


async def test_a_dead_proxy_is_down_and_comes_back(teams: Teams, stack: TrunkStack) -> None:
    await stack.prober.start()
    await until(lambda: state(stack, 0) is PeerState.UP)
    port = teams.proxies[0].port
    await teams.kill(0)
    await until(lambda: state(stack, 0) is PeerState.DOWN)
    assert state(stack, 1) is PeerState.UP
    status = stack.trunks["teams"].status(stack.clock.now())
    assert status.usable
    assert any("does not answer" in alarm for alarm in status.alarms)
    order = stack.trunks["teams"].hunt(stack.clock.now())
    assert getattr(order.step(stack.clock.now()), "peer", "") == teams.peers[1]
    order.abandon()
    context = server_context(teams.identity, teams.pki.roots)
    teams.proxies[0] = await teams.ua.wire.listen("TLS", "127.0.0.1", port, context, "Teams sip")
    await until(lambda: state(stack, 0) is PeerState.UP)
    assert stack.trunks["teams"].status(stack.clock.now()).alarms == ()


async def test_a_connection_that_a_firewall_forgot_is_left_for_a_new_one(pki: Pki) -> None:
    """The proxy lives and would take a new connection; the old one brings nothing and does not end."""
    async with Teams(pki, trunk=FQDN) as teams, DeafRelay(("127.0.0.1", teams.proxies[0].port)) as relay:
        identity = teams.pki["gateway"]
        text = toml(teams, interval=0.4).replace(f":{teams.proxies[0].port}", f":{relay.port}")
        async with TrunkStack(
            text,
            teams.hosts,
            tls=gateway_tls(identity.chain, identity.key, teams.pki.roots),
            listen=("tls:127.0.0.1:0",),
            limits=TransportLimits(unanswered_after=0.2),
        ) as stack:
            await stack.prober.start()
            await until(lambda: state(stack, 0) is PeerState.UP)
            old = relay.carried
            relay.forget()
            await until(lambda: stack.transports.counters["unanswered"] == 1)
            seen = len(teams.options_seen)
            await until(lambda: relay.carried > old and len(teams.options_seen) > seen)
            await until(lambda: state(stack, 0) is PeerState.UP and not _missed(stack))


def _missed(stack: TrunkStack) -> int:
    return next(iter(stack.trunks["teams"].health.values())).misses


async def test_retry_after_holds_calls_off_a_proxy_while_its_pings_go_on(
    teams: Teams, stack: TrunkStack
) -> None:
    """Five minutes without OPTIONS, and Teams takes the trunk for unhealthy (facts 2)."""
    await stack.prober.start()
    await until(lambda: [state(stack, n) for n in range(3)] == [PeerState.UP] * 3)
    teams.overload(0, retry_after=60)
    await until(lambda: state(stack, 0) is PeerState.HOLD_DOWN)
    teams.hook = None
    trunk = stack.trunks["teams"]
    health = trunk.health[teams.peers[0]]
    seen = _pings(teams)
    assert 50 < trunk.status(stack.clock.now()).peers[0].hold_down <= 60
    await until(lambda: _pings(teams) >= seen + 3)
    assert state(stack, 0) is PeerState.HOLD_DOWN, "an answer does not shorten it"
    first = trunk.hunt(stack.clock.now())
    assert getattr(first.step(stack.clock.now()), "peer", "") == teams.peers[1]
    first.abandon()
    health.held_until = stack.clock.now()
    await until(lambda: state(stack, 0) is PeerState.UP)


def _pings(teams: Teams) -> int:
    return sum(owner == "Teams sip" for _, owner, _ in teams.options_seen)


async def test_t01_403_is_an_alarm_that_names_the_cure(
    teams: Teams, stack: TrunkStack, caplog: pytest.LogCaptureFixture
) -> None:
    def forbid(transaction: ServerTx) -> None:
        transaction.respond(403, "Forbidden", to_tag=new_tag())

    teams.options_answer, allowed = forbid, teams.options_answer
    await stack.prober.start()
    await until(lambda: len(stack.trunks["teams"].alarms) == 3)
    assert state(stack, 0) is PeerState.UP, "403 is an answer: the peer is there"
    assert f"New-CsOnlinePSTNGateway -Fqdn {FQDN}" in stack.trunks["teams"].status(0.0).alarms[0]
    assert "trunk alarm trunk=teams" in caplog.text
    before = caplog.text.count("trunk alarm")
    await until(lambda: stack.transactions.counters["client"] >= 12)
    assert caplog.text.count("trunk alarm") == before, "an alarm is told once, not every minute"
    teams.options_answer = allowed
    await until(lambda: not stack.trunks["teams"].alarms)


async def test_a_name_that_vanishes_from_dns_takes_the_peer_down(teams: Teams, stack: TrunkStack) -> None:
    await stack.prober.start()
    await until(lambda: state(stack, 2) is PeerState.UP)
    del stack.resolver.hosts["sip3.pstnhub.microsoft.com"]
    await until(lambda: state(stack, 2) is PeerState.DOWN)
    stack.resolver.hosts["sip3.pstnhub.microsoft.com"] = "127.0.0.1"
    await until(lambda: state(stack, 2) is PeerState.UP)


async def test_t26_derived_trunks_send_no_options(teams: Teams) -> None:
    tenants = '"customers.example.test", "c1.customers.example.test", "sbc.example.test"'
    teams.rules.trunk_names.add("customers.example.test")
    async with stack_for(teams, tenants=tenants) as stack:
        trunk = stack.trunks["teams"]
        assert trunk.probed_tenants == ("customers.example.test", "sbc.example.test")
        teams.strict = False  # the test certificate does not name the base domain
        await stack.prober.start()
        await until(lambda: len(teams.options_seen) >= 12)
    hosts = {uri(address(message.get("Contact")).uri).host for _, _, message in teams.options_seen}
    assert hosts == {"customers.example.test", "sbc.example.test"}


async def test_t09_a_renewed_certificate_is_presented_and_old_connections_go(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki")
    authority = Authority("Second Test")
    with pki.roots.open("ab") as roots:
        roots.write(authority.root.public_bytes(serialization.Encoding.PEM))
    async with Teams(pki, trunk=FQDN) as teams, stack_for(teams) as stack:
        await stack.prober.start()
        await until(lambda: len(teams.options_seen) >= 3)
        old = [connection for proxy in teams.proxies for connection in proxy.connections]
        authority.issue(pki.folder, "gateway", [FQDN, "renewed.example.test"])
        assert stack.transports.reload_certificates()
        stack.prober.nudge("teams")
        await until(lambda: all(_presented(proxy, "renewed.example.test") for proxy in teams.proxies))
        await until(lambda: all(connection.closed for connection in old))


def _presented(proxy: Listener, name: str) -> bool:
    return any(name in connection.peer_names for connection in proxy.connections)


async def test_teams_that_never_pings_us_raises_an_alarm(
    teams: Teams, stack: TrunkStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.trunks.probe.UNHEARD_AFTER", 0.3)
    await stack.prober.start()
    await until(lambda: "unheard" in stack.trunks["teams"].alarms)
    assert "SipSignalingPort" in stack.trunks["teams"].alarms["unheard"]
    await teams.options()
    assert "unheard" not in stack.trunks["teams"].alarms


async def test_t08_a_proxy_whose_authority_is_not_trusted_is_an_alarm_with_its_cure(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki")
    async with Teams(pki, trunk=FQDN) as teams:
        identity = teams.pki["gateway"]
        async with TrunkStack(
            toml(teams),
            teams.hosts,
            tls=gateway_tls(identity.chain, identity.key, pki.rogue_roots),
            listen=("tls:127.0.0.1:0",),
        ) as stack:
            await stack.prober.start()
            await until(lambda: len(stack.trunks["teams"].alarms) == 3)
            assert all("trusted_roots" in alarm for alarm in stack.trunks["teams"].alarms.values())
        teams.strict = False


class UdpPeer(asyncio.DatagramProtocol):
    """A PBX that answers every OPTIONS with `code`, or not at all."""

    def __init__(self) -> None:
        self.code = 200
        self.seen: list[Request] = []
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # no subclass of it before 3.12

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        message = parse_message(data)
        if isinstance(message, Request):
            self.seen.append(message)
            if self.code:
                self.transport.sendto(to_bytes(make_response(message, self.code)), addr)


async def test_a_plain_trunk_is_pinged_only_where_configured(free_port: Callable[[], int]) -> None:
    pinged, left_alone = free_port(), free_port()
    loop = asyncio.get_running_loop()
    peers = []
    for port in (pinged, left_alone):
        _, protocol = await loop.create_datagram_endpoint(
            UdpPeer, local_addr=("127.0.0.1", port), family=socket.AF_INET
        )
        peers.append(protocol)
    text = f"""
        [[trunk]]
        name = "cc"
        peers = ["udp:127.0.0.1:{pinged}"]
        options_interval = 0.1
        [[trunk]]
        name = "other"
        peers = ["udp:127.0.0.1:{left_alone}"]
    """
    try:
        async with TrunkStack(text) as stack:
            await stack.prober.start()
            health = next(iter(stack.trunks["cc"].health.values()))
            await until(lambda: len(peers[0].seen) >= 3 and health.state is PeerState.UP)
            peers[0].code = 0
            await until(lambda: health.state is PeerState.DOWN)
            peers[0].code = 405
            await until(lambda: health.state is PeerState.UP)
            assert not peers[1].seen
            assert next(iter(stack.trunks["other"].health.values())).state is PeerState.UNKNOWN
            first = peers[0].seen[0]
            assert first.headers["Contact"].startswith("<sip:127.0.0.1:")
    finally:
        for peer in peers:
            peer.transport.close()
            await peer.closed.wait()
