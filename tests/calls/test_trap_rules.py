"""Traps of Direct Routing that a call through the whole gateway must survive; `test_trap_table` lists the
rest of them. Every test here also runs under the stand-in's own rules (`tests.peers.teams_rules`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl

import pytest

from gateway.events import LegDialled
from tests.calls.conftest import OpenHouse
from tests.calls.conversation import (
    AGENT_HZ,
    EXPERT_HZ,
    both_hear,
    from_teams,
    over,
    silent,
    talking,
    to_teams,
)
from tests.calls.house import CUSTOMER, EXPERT, FQDN, MUSIC_HZ, House
from tests.peers.sipwire import WireMessage, address, uri
from tests.peers.sipwire_sdp import audio
from tests.peers.sipwire_ua import ServerTx, allows
from tests.peers.teams import Teams

both_ways = pytest.mark.parametrize("way", ["to Teams", "from Teams"])


def told(h: House) -> list[WireMessage]:
    """Every message that Teams got from us."""
    return h.teams.ua.log.received()


# ---- identity --------------------------------------------------------------------------------------------


@both_ways
async def test_t01_t05_no_address_and_no_record_route_in_any_message(house: OpenHouse, way: str) -> None:
    """Also where the contact center's own messages are full of addresses."""
    async with house() as h:
        agent, expert = await talking(h, way)
        await expert.hold()
        await expert.resume()
        referral = await expert.refer()
        colleague = await h.teams.expect_invite()
        await colleague.answer()
        await referral.finished()
        await expert.hang_up()
        await over(agent, colleague)
        assert len(told(h)) > 8
        for message in told(h):
            if not message.is_request:  # what Teams itself put there comes back
                message.headers = [
                    (n, v) for n, v in message.headers if n.upper() not in ("VIA", "RECORD-ROUTE")
                ]
            names = ("Contact", "From", "To", "Record-Route", "Route", "Via", "P-Asserted-Identity")
            found = [v for name in names for v in message.all(name) if re.search(r"\d+\.\d+\.\d+\.\d+", v)]
            assert found == [], message.start
            assert not message.all("Record-Route"), message.start


@both_ways
async def test_t03_the_contact_of_every_18x_200_and_request_is_the_trunks_fqdn(
    house: OpenHouse, way: str
) -> None:
    async with house() as h:
        agent, expert = await talking(h, way)
        await over(agent, expert)
        own = f"{FQDN}:{h.teams.gateway_port};transport=tls"
        seen = [m for m in told(h) if m.method == "INVITE" and m.code != 100]
        assert {m.code for m in seen} == ({0} if way == "to Teams" else {180, 200})
        for message in seen:
            assert address(message.need("Contact")).uri.rpartition("@")[2].removeprefix("sip:") == own


@both_ways
async def test_t04_nothing_of_one_dialog_shows_in_the_other(house: OpenHouse, way: str) -> None:
    """Two user agents back to back: Call-ID, tags, CSeq, Via, Contact and description are each side's own."""
    async with house() as h:
        agent, expert = await talking(h, way)
        await over(agent, expert)
        center = b"".join(record.raw for record in h.center.ua.log.records if not record.received)
        mine, theirs = agent.dialog, expert.dialog
        assert mine.call_id != theirs.call_id
        assert not {mine.local_tag, mine.remote_tag} & {theirs.local_tag, theirs.remote_tag}
        secrets = [
            mine.call_id,
            mine.local_tag,
            f":{agent.rtp.port}",
            f" {agent.rtp.port} ",
            str(h.center.port),
        ]
        secrets += re.findall(r"branch=(\S+?)[;\r]", center.decode())
        for message in told(h):
            text = message.raw.decode()
            assert [secret for secret in secrets if secret in text] == [], text


@both_ways
async def test_t06_our_own_allow_whatever_the_contact_center_allows(house: OpenHouse, way: str) -> None:
    """Teams reads it in the INVITE or in the 200 and decides by it how to transfer."""
    async with house() as h:
        if way == "to Teams":
            agent = await h.center.call(EXPERT)
            expert = await h.teams.expect_invite()
            await expert.answer()
            await agent.answered()
        else:
            expert = await h.teams.invite(CUSTOMER)
            agent = await h.center.expect_call()
            agent.allow = "INVITE, ACK, BYE, CANCEL"
            await agent.answer()
            await expert.answered()
        await both_hear(agent, expert)
        shown = [m for m in told(h) if m.method == "INVITE" and m.code in (0, 200)]
        assert shown
        for message in shown:
            assert allows(message, "REFER")
            assert allows(message, "NOTIFY")
            assert "replaces" in message.get("Supported")
        await over(agent, expert)


async def test_t26_each_tenant_is_shown_its_own_fqdn_and_known_by_it(house: OpenHouse, pki: object) -> None:
    """Contact selects the tenant outbound, the Request-URI host inbound; routes may depend on it."""
    customer = "c1.customers.example.test"
    teams = Teams(pki, trunk_names=[customer], media_addresses=["127.0.0.1"])  # type: ignore[arg-type]
    route = f'[[route]]\nfrom = "center"\nnumber = "\\\\+1555.*"\nto = "teams"\ntenant = "{customer}"'
    async with house(teams=teams, center_extra=route, tenants=f'"{FQDN}", "{customer}"') as h:
        agent, expert = await to_teams(h)
        assert expert.invited is not None
        first = expert.invited.request
        for name in ("Contact", "From"):
            assert uri(address(first.need(name)).uri).host == customer
        assert first.all("Via")[0].startswith(f"SIP/2.0/TLS {customer}")
        await over(agent, expert)
        agent = await h.center.call("+4989123456")
        expert = await h.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        assert expert.invited is not None
        assert uri(address(expert.invited.request.need("Contact")).uri).host == FQDN
        await over(agent, expert)
        agent, expert = await from_teams(h, trunk=customer)
        assert expert.inviting is not None
        answer = expert.inviting.seen[-1]
        assert uri(address(answer.need("Contact")).uri).host == customer
        await expert.hold()
        await agent.rtp.hears(MUSIC_HZ)
        await over(agent, expert)
        bye = await expert.expect("BYE")
        assert bye.request.all("Via")[0].startswith(f"SIP/2.0/TLS {customer}")


# ---- holds, media ----------------------------------------------------------------------------------------


@both_ways
async def test_t16_t20_holds_and_refreshes_of_the_contact_center_never_reach_teams(
    house: OpenHouse, way: str
) -> None:
    """sendonly, inactive, 0.0.0.0, no offer, UPDATE, refresh: Teams hears music and sees no request."""
    async with house() as h:
        agent, expert = await talking(h, way)
        before = len(expert.inbox)
        for how in ("sendonly", "inactive", "zero"):
            assert (await agent.hold(how)).code == 200
            await expert.rtp.hears(MUSIC_HZ)
            assert (await agent.resume()).code == 200
            await both_hear(agent, expert)
        assert (await agent.hold("sendonly", "UPDATE")).code == 200
        await expert.rtp.hears(MUSIC_HZ)
        assert (await agent.resume("UPDATE")).code == 200
        assert (await agent.hold("offerless")).code == 200
        assert (await agent.refresh()).code == 200
        assert (await agent.refresh("UPDATE")).code == 200
        await both_hear(agent, expert)
        assert len(expert.inbox) == before
        await over(agent, expert)


@both_ways
async def test_t21_the_contact_centers_media_moves_and_teams_keeps_one_address(
    house: OpenHouse, way: str
) -> None:
    """A transfer or a failover over there: another address, another port, another codec."""
    async with house() as h:
        agent, expert = await talking(h, way)
        assert expert.remote is not None
        before, seen = expert.remote.text, len(expert.inbox)
        old, agent.rtp = agent.rtp, await h.center._open(AGENT_HZ, ("PCMU",))
        agent.codecs = ("PCMU",)
        assert (await agent.reoffer(agent.offer())).code == 200
        await both_hear(agent, expert)
        ours = await expert.refresh()
        assert audio(ours.body).text == before
        assert len(expert.inbox) == seen
        await over(agent, expert)
        await old.close()


@both_ways
async def test_t17_a_transfer_of_a_held_call_offers_sendrecv(house: OpenHouse, way: str) -> None:
    async with house() as h:
        agent, expert = await talking(h, way)
        await expert.hold()
        await agent.rtp.hears(MUSIC_HZ)
        referral = await expert.refer()
        colleague = await h.teams.expect_invite(tone=900.0)
        assert colleague.invited is not None
        assert audio(colleague.invited.request.body).direction == "sendrecv"
        colleague.ring()
        await colleague.answer()
        await referral.finished()
        await expert.hang_up()
        await asyncio.gather(agent.rtp.hears(900), colleague.rtp.hears(AGENT_HZ))
        await over(agent, colleague)


async def test_t28_a_replaces_in_refer_to_is_not_sent_and_the_uri_stays_byte_exact(house: OpenHouse) -> None:
    """Requests with Replaces are rejected; the correlation is in Referred-By (facts 6.3)."""
    async with house() as h:
        agent, expert = await to_teams(h)
        plain = f"sip:sip.pstnhub.microsoft.com:{h.teams.proxies[0].port};transport=tls;x-m=8:orgid:1;x-t=a/b"
        referral = await expert.refer(target=f"<{plain}?Replaces=abc%3Bto-tag%3D1%3Bfrom-tag%3D2>")
        colleague = await h.teams.expect_invite(tone=900.0)
        assert colleague.invited is not None
        request = colleague.invited.request
        assert request.uri == plain
        assert not request.get("Replaces")
        assert request.get("Referred-By") == referral.transaction.request.get("Referred-By")
        await colleague.answer()
        await referral.finished()
        await expert.hang_up()
        await over(agent, colleague)


async def test_t19_a_held_call_outlives_the_watch_over_rtp(house: OpenHouse) -> None:
    """Nothing comes from a held party by right; from the moment it is back it is watched again."""
    async with house() as h:
        await h.gateway.watch.close()
        h.gateway.watch._limit = 1.5  # rtpengine tells the last packet's time in whole seconds
        h.gateway.watch.start()
        agent, expert = await to_teams(h)
        await expert.hold()
        await silent(expert, AGENT_HZ, 2.5)
        assert h.gateway.calls.calls
        await expert.resume()
        await both_hear(agent, expert)
        expert.rtp.pause()
        assert "media_lost" in (await agent.expect("BYE")).request.get("Reason")
        await expert.expect_end()


# ---- setting up ------------------------------------------------------------------------------------------


async def test_t24_teams_is_told_180_when_it_rings_and_503_when_nothing_did(house: OpenHouse) -> None:
    """An early 18x would switch off Teams' own failover (facts 3.4)."""
    async with house() as h:
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        await asyncio.sleep(0.4)
        assert expert.inviting is not None
        assert [response.code for response in expert.inviting.seen] == [100]
        await agent.reject(503)
        assert (await expert.outcome()).code == 503
        assert [response.code for response in expert.inviting.seen] == [100, 503]
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        agent.ring()
        begun = agent.rtp.now
        await expert.ringing()
        assert agent.rtp.now - begun < 0.3
        await agent.reject(486)
        assert (await expert.outcome()).code == 486


async def test_t25_422_is_obeyed_at_the_same_proxy_and_nobody_rings_twice(house: OpenHouse) -> None:
    async with house() as h:
        refused: list[WireMessage] = []

        def too_small(transaction: ServerTx) -> bool:
            request = transaction.request
            if request.method != "INVITE" or int(request.get("Session-Expires").split(";")[0]) >= 3600:
                return False
            refused.append(request)
            transaction.respond(422, "Session Interval Too Small", to_tag="t", headers=[("MIN-SE", "3600")])
            return True

        h.teams.hook = too_small
        agent, expert = await to_teams(h)
        assert [request.get("Session-Expires") for request in refused] == ["1800"]
        assert expert.invited is not None
        assert int(expert.invited.request.get("Min-SE")) == 3600
        assert len([event for event in h.events if isinstance(event, LegDialled)]) == 1
        await over(agent, expert)


async def test_t18_a_refer_never_goes_on_to_the_contact_center(house: OpenHouse) -> None:
    """Relayed REFERs are what makes loops of them (483 storm)."""
    async with house() as h:
        agent, expert = await to_teams(h)
        referral = await expert.refer("number", number="+4930999")
        colleague = await h.teams.expect_invite(tone=900.0)
        assert colleague.invited is not None
        assert colleague.invited.request.uri == referral.uri
        await colleague.answer()
        await referral.finished()
        await h.center.expect_no_call(0.1)
        assert not agent.inbox
        assert referral.fragments[0] == "SIP/2.0 100 Trying"
        await expert.hang_up()
        await asyncio.gather(agent.rtp.hears(900), colleague.rtp.hears(AGENT_HZ))
        await silent(expert, EXPERT_HZ, 0.1)
        await over(agent, colleague)


async def test_t22_a_stranger_on_the_tls_port_gets_no_handshake_and_one_counted_log_line(
    house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one who knows the roots and the name; he got our certificate, and a line for each refusal."""

    async def knock(gateway: tuple[str, int], hello: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*gateway, local_addr=("127.0.0.9", 0))
        writer.write(hello)
        try:
            return await asyncio.wait_for(reader.read(), 5)
        except ConnectionResetError:  # cut with the hello unread
            return b""
        finally:
            writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=FQDN).do_handshake()
    hello = outgoing.read()
    async with house(allow_from='"127.0.0.1"') as h:
        assert h.teams.gateway is not None
        for _ in range(5):
            assert await knock(h.teams.gateway, hello) == b""
        counters = h.gateway.transports.counters
        assert counters["strangers"] == 5
        assert not [name for name in counters if name.startswith("tls_refused")]
        lines = [r.getMessage() for r in caplog.records if "127.0.0.9" in r.getMessage()]
        assert lines == ["event=stranger address=127.0.0.9 kind=tls attempts=1 answer=none"]
        assert (await h.teams.options()).code == 200, "who is admitted gets in"


async def test_t22_a_stranger_gets_no_answer_and_one_counted_log_line(
    house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """INVITE, OPTIONS and garbage from an address that is no trunk, over UDP and TCP."""
    from tests.peers.contact_center import ContactCenter

    async with house() as h:
        async with ContactCenter(gateway=h.center.gateway, host="127.0.0.9") as stranger:
            await stranger.call(EXPERT)
            for _ in range(4):
                await stranger.call(EXPERT)
            (await stranger.connection()).send_raw(b"garbage\r\n\r\n")
            assert stranger.gateway is not None
            stream = await stranger.ua.wire.connect("TCP", *stranger.gateway, source="127.0.0.9")
            stream.send_raw(b"OPTIONS sip:x SIP/2.0\r\n\r\n")
            await asyncio.wait_for(stream.closed_event.wait(), 5)
            await h.teams.expect_no_invite(0.3)
            assert not stranger.ua.log.received()
            assert not stranger.ua.log.malformed
        lines = [r.getMessage() for r in caplog.records if "event=stranger" in r.getMessage()]
        assert lines == ["event=stranger address=127.0.0.9 kind=udp attempts=1 answer=none"]
        assert h.gateway.transports.counters["strangers"] >= 7
        assert not h.events
