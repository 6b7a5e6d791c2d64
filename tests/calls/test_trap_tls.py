"""Who gets in by TLS and whom we call by it, through the whole gateway (T7, T8, T9, T22)."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.sip.transaction_timers import Timers
from gateway.sip.transport_types import TransportLimits
from tests.calls.conftest import OpenHouse
from tests.calls.conversation import both_hear, from_teams, over, to_teams
from tests.calls.house import CUSTOMER, EXPERT, House, open_house, until
from tests.peers.certs import GATEWAY_NAMES, Authority, Pki, make_pki
from tests.peers.sipwire_net import Connection
from tests.peers.teams import Teams


@pytest.mark.parametrize("name", ["microsoft-server-only", "microsoft-client-only"])
async def test_t08_whatever_its_certificate_is_for_teams_calls_and_is_called(
    house: OpenHouse, pki: Pki, name: str
) -> None:
    """serverAuth alone is what Microsoft presents also when it dials us (facts 1.5); clientAuth alone cannot
    be presented by a server, so there only Teams dials."""
    teams = Teams(pki, certificate=name, media_addresses=["127.0.0.1"])
    async with house(teams=teams) as h:
        if name == "microsoft-server-only":
            await over(*await to_teams(h))
            await over(*await from_teams(h))
        else:
            assert (await h.teams.options()).code == 200


async def attempt(h: House, certificate: str, only: ssl.TLSVersion | None = None) -> bool:
    """Somebody dials the TLS port and calls through us; whether any answer came before the end."""
    try:
        connection = await h.teams.connect(certificate=certificate, only=only)
        call = await h.teams.invite(CUSTOMER, connection=connection)
    except OSError:
        return False
    assert call.inviting is not None
    answered = asyncio.ensure_future(call.inviting.next())
    closed = asyncio.ensure_future(connection.closed_event.wait())
    await asyncio.wait({answered, closed}, return_when=asyncio.FIRST_COMPLETED)
    told = answered.done()
    for task in (answered, closed):
        task.cancel()
    await asyncio.gather(answered, closed, return_exceptions=True)
    return told


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        ("microsoft-rogue", "rogue_ca"),
        ("microsoft-self-signed", "self_signed"),
        ("microsoft-expired", "expired"),
        ("", "no_certificate"),
    ],
)
async def test_t22_who_cannot_prove_to_be_microsoft_is_refused_and_counted(
    house: OpenHouse, certificate: str, why: str
) -> None:
    """The published attack is a self-signed certificate that says the right names."""
    async with house() as h:
        assert not await attempt(h, certificate)
        counters = h.gateway.transports.counters
        await until(lambda: counters[f"tls_refused_{why}"] == 1, f"tls_refused_{why} in {counters}")
        await h.center.expect_no_call(0.2)
        assert not h.events, "nothing was recorded as a call"


async def test_t22_tls_1_1_is_refused_and_counted(house: OpenHouse) -> None:
    async with house() as h:
        assert not await attempt(h, "microsoft", ssl.TLSVersion.TLSv1_1)
        counters = h.gateway.transports.counters
        await until(lambda: counters["tls_refused_version"] == 1, f"tls_refused_version in {counters}")
        await h.center.expect_no_call(0.2)


async def test_t22_a_verified_certificate_of_somebody_else_calls_nobody(house: OpenHouse) -> None:
    """Chain and dates are good; the name is not Microsoft's."""
    async with house() as h:
        connection = await h.teams.connect(certificate="microsoft-wrong-name")
        call = await h.teams.invite(CUSTOMER, connection=connection)
        assert (await call.outcome()).code == 403
        assert h.gateway.trunks["teams"].refused["certificate"] >= 1
        await h.center.expect_no_call(0.2)
        assert not h.events


async def test_t22_a_foreign_trunk_name_calls_nobody(house: OpenHouse) -> None:
    async with house() as h:
        h.teams.rules.trunk_names.add("sbc.evil.example.net")
        call = await h.teams.invite(CUSTOMER, trunk="sbc.evil.example.net")
        assert (await call.outcome()).code == 404
        await h.center.expect_no_call(0.2)


async def test_t22_a_caller_that_the_tenant_does_not_own_calls_nobody(house: OpenHouse) -> None:
    async with house(teams_extra='caller = "\\\\+4989\\\\d+"') as h:
        call = await h.teams.invite(CUSTOMER)
        assert (await call.outcome()).code == 403
        assert h.gateway.trunks["teams"].refused["caller"] >= 1
        await h.center.expect_no_call(0.2)


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        ("microsoft-rogue", "rogue_ca"),
        ("microsoft-self-signed", "self_signed"),
        ("microsoft-expired", "expired"),
        ("microsoft-wrong-name", "wrong_name"),
    ],
)
async def test_t07_a_proxy_that_is_not_microsofts_is_never_told_of_a_call(
    house: OpenHouse, pki: Pki, certificate: str, why: str
) -> None:
    async with house(teams=Teams(pki, certificate=certificate, media_addresses=["127.0.0.1"])) as h:
        agent = await h.center.call(EXPERT)
        assert (await agent.outcome()).code == 503
        counters = h.gateway.transports.counters
        assert counters[f"tls_out_{why}"] == 3, f"each of the three names: {counters}"
        assert not h.teams.ua.log.received()
        await h.quiet()
        [row] = h.rows()
        assert row.disposition == "unreachable"


async def test_t11_the_answer_finds_teams_again_when_the_connection_of_its_invite_is_gone(
    house: OpenHouse,
) -> None:
    """At the address in the Via, which is in no certificate: the names are those that were proven before."""
    async with house() as h:
        h.teams.ua.via = f"127.0.0.1:{h.teams.proxies[0].port}"
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        expert.connection.abort()
        await expert.change_connection("127.0.0.1")
        await until(lambda: h.gateway.transports.connections == 1, "the first connection to be gone")
        await agent.answer()
        await expert.answered()
        await both_hear(agent, expert)
        assert [one.listener for one in h.teams.ua.wire.connections][2:] == [h.teams.proxies[0]]
        assert h.gateway.transports.counters["tls_out_wrong_name"] == 0
        await over(agent, expert)


async def test_t07_we_present_our_certificate_with_its_chain_when_we_dial(house: OpenHouse) -> None:
    """The stand-in demands one and trusts the root alone: without the intermediate it would hang up."""
    async with house() as h:
        agent, expert = await to_teams(h)
        assert set(GATEWAY_NAMES) == set(expert.connection.peer_names)
        await over(agent, expert)


async def test_t09_a_renewed_certificate_recycles_connections_while_calls_go_on(
    house: OpenHouse, tmp_path: Path, engine: object
) -> None:
    """Both calls live through it, in both directions; what was dialled before is closed when it is idle."""
    pki = make_pki(tmp_path / "pki")
    authority = Authority("Second Test")
    with pki.roots.open("ab") as roots:
        roots.write(authority.root.public_bytes(serialization.Encoding.PEM))
    async with open_house(engine, pki, tmp_path) as h:  # type: ignore[arg-type]
        transports = h.gateway.transports
        transports.limits = TransportLimits(drain_quiet=0.2)
        layer = h.gateway.transactions
        layer.timers = layer._sending.timers = Timers(t1=0.03)  # an answered INVITE needs its flow for 64*T1
        first, expert = await to_teams(h)
        second, caller = await from_teams(h)
        old = [expert.connection, caller.connection]
        authority.issue(pki.folder, "gateway", [*GATEWAY_NAMES, "renewed.example.test"])
        assert transports.reload_certificates()
        assert not transports.reload_certificates(), "once is enough"
        await both_hear(first, expert)
        await both_hear(second, caller)
        await until(lambda: all(connection.closed for connection in old), "old connections closed")
        assert (await expert.hold()).code == 200
        assert (await expert.resume()).code == 200
        await both_hear(first, expert)
        await second.bye()
        await caller.expect_end()
        assert (await caller.expect("BYE")).connection not in old
        third, other = await to_teams(h)
        assert renewed(other.connection)
        await over(third, other)
        await expert.hang_up()
        await first.expect_end()


def renewed(connection: Connection) -> bool:
    return "renewed.example.test" in connection.peer_names
