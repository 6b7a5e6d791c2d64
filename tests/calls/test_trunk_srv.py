"""A trunk by its name alone: SRV says where it is, in which order, and whether at all (RFC 3263 4.2)."""

from __future__ import annotations

from gateway.events import LegAttemptFailed, LegDialled
from gateway.trunks.health import PeerState
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House, until
from tests.peers.contact_center import ContactCenter
from tests.peers.dns import DnsServer
from tests.support.ports import free_port

NAME = "carrier.example.test"
SERVICE = f"_sip._tcp.{NAME}"


class Carrier(ContactCenter):
    """The configuration knows its name only. `targets`: its SRV records, {port} is its own."""

    def __init__(self, dns: DnsServer, *targets: str) -> None:
        super().__init__(kind="TCP")
        self._dns, self._targets = dns, targets

    async def start(self) -> ContactCenter:
        await super().start()
        self._dns.add(SERVICE, "SRV", *(target.format(port=self.port) for target in self._targets))
        return self

    @property
    def peer(self) -> str:
        return f"tcp:{NAME}"


def resolver(dns: DnsServer) -> str:
    return f'[resolver]\nnameservers = ["{dns.address}"]'


def dialled(h: House) -> int:
    return sum(isinstance(event, LegDialled) for event in h.events)


async def test_the_second_srv_target_takes_the_call_when_the_first_is_dead_and_may_call_us(
    house: OpenHouse,
) -> None:
    async with DnsServer() as dns:
        dns.add("dead.example.test", "A", "127.0.0.9")
        dns.add("live.example.test", "A", "127.0.0.1")
        center = Carrier(dns, "20 0 {port} live.example.test.", f"10 0 {free_port()} dead.example.test.")
        async with house(center=center, extra=resolver(dns), center_extra="options_interval = 0.3") as h:
            expert = await h.teams.invite(CUSTOMER)
            agent = await h.center.expect_call()
            await agent.answer()
            await expert.answered()
            await expert.hang_up()
            await agent.expect_end()
            await h.quiet()
            assert [e.sip_code for e in h.events if isinstance(e, LegAttemptFailed)] == [503]
            assert dialled(h) == 2
            health = h.gateway.trunks["center"].health[center.peer]
            assert health.addresses == ("127.0.0.9", "127.0.0.1")
            await until(lambda: health.state is PeerState.UP, "answer to OPTIONS from the second target")
            caller = await h.center.call(EXPERT)
            called = await h.teams.expect_invite()
            await called.decline(486)
            assert (await caller.outcome()).code == 486


async def test_a_srv_target_of_a_dot_means_that_nobody_is_called(house: OpenHouse) -> None:
    """RFC 2782: the service is decidedly not available at this domain, whatever address the name has."""
    async with DnsServer() as dns:
        dns.add(NAME, "A", "127.0.0.1")
        async with house(center=Carrier(dns, "0 0 0 ."), extra=resolver(dns)) as h:
            expert = await h.teams.invite(CUSTOMER)
            assert (await expert.outcome()).code == 503
            await h.quiet()
            assert dialled(h) == 0
            assert not h.gateway.trunks["center"].admission.admits("127.0.0.1")
