"""The Teams stand-in proves itself against the smallest correct gateway, its rules against broken ones."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from tests.peers.certs import Pki, make_pki
from tests.peers.mini_sbc import MiniSbc
from tests.peers.teams import CAPTURE, Teams
from tests.peers.teams_shapes import Shape


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


async def test_a_correct_gateway_calls_and_both_hear_each_other(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki) as teams:
        call = await sbc.call(teams.proxies[0])
        expert = await teams.expect_invite()
        expert.ring(tags=["phone", "desktop"])
        await call.ringing()
        expert.progress183(tag="desktop")
        await call.ringing(183)
        await expert.answer(tag="laptop")
        expert.rtp.say(700)
        await asyncio.gather(call.rtp.hears(700), expert.rtp.hears(440))
        assert [r.to_tag for r in call.inviting.seen if r.code > 100] if call.inviting else []
        await call.bye()
        await expert.expect_end()


async def test_teams_calls_with_each_shape_it_may_have(pki: Pki) -> None:
    shapes = [
        Shape(),
        Shape(crypto="32-first", candidates=30, filler=5000),
        Shape(crypto="mki", profile="UDP/TLS/RTP/SAVP", pidf=True, codecs=("PCMU", "PCMA")),
    ]
    async with MiniSbc(pki) as sbc, Teams(pki, gateway=sbc.address) as teams:
        for shape in shapes:
            expert = await teams.invite("+49301112222", shape=shape)
            call = await sbc.expect_call()
            call.ring()
            await expert.ringing()
            await call.answer()
            await asyncio.gather(call.rtp.hears(700), expert.rtp.hears(440))
            await expert.hang_up()
            await call.expect_end()
        raw = [record.raw for record in sbc.ua.log.records if record.received]
        invites = [text for text in raw if text.startswith(b"INVITE")]
        assert len(invites[1]) > 6000
        assert b"CONTACT: <sip:api-du-b-euwe.pstnhub.microsoft.com:443;x-i=" in invites[0]
        assert invites[1].count(b"a=candidate") == 30
        assert b"a=crypto:0 AES_CM_128_HMAC_SHA1_32" in invites[1]
        assert b"pidf+xml" in invites[2]


async def test_hold_resume_with_a_new_key_after_the_sequence_wrapped(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, gateway=sbc.address) as teams:
        expert = await teams.invite("+49301112222")
        call = await sbc.expect_call()
        await call.answer()
        await call.rtp.hears(700)
        await expert.rtp.wrap_sequence()
        await expert.change_connection()
        assert (await expert.hold()).code == 200
        assert call.direction == "inactive"
        assert (await expert.resume(new_key=True)).code == 200
        await asyncio.gather(call.rtp.hears(700), expert.rtp.hears(440))
        assert (await expert.refresh()).code == 200
        assert any(record.remote[0] == "127.0.0.2" for record in sbc.ua.log.records)
        await call.bye()


async def test_blind_transfer_with_the_transferors_early_bye(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, gateway=sbc.address) as teams:
        expert = await teams.invite("+49301112222")
        call = await sbc.expect_call()
        await call.answer()
        await expert.answered()
        referral = await expert.refer(length=500, bye_after=0.05)
        assert len(referral.uri) == 500
        assert await call.notify("SIP/2.0 100 Trying") == 200
        second = await sbc.call(
            teams.proxies[0],
            uri=sbc.refer_uri(call),
            extra=(("Referred-By", call.inbox[0].request.need("Referred-By")),),
        )
        colleague = await teams.expect_invite(tone=900)
        assert colleague.invited is not None
        assert colleague.invited.request.uri == referral.uri
        colleague.ring()
        await colleague.answer()
        assert await call.notify("SIP/2.0 200 OK", "terminated;reason=noresource") == 200
        assert await referral.finished() == "SIP/2.0 200 OK"
        await second.rtp.hears(900)
        await second.bye()


async def test_music_on_hold_by_refer_and_retrieval_by_replaces(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, gateway=sbc.address) as teams:
        expert = await teams.invite("+49301112222")
        call = await sbc.expect_call()
        await call.answer()
        await expert.answered()

        async def follow() -> None:
            await call.expect("REFER")
            assert await call.notify("SIP/2.0 100 Trying") == 200

        holding = asyncio.ensure_future(expert.hold_by_refer())
        await call.until(lambda: any(tx.request.method == "REFER" for tx in call.inbox), "REFER")
        second = await sbc.call(teams.proxies[0], uri=sbc.refer_uri(call))
        await follow()
        await second.answered()
        assert await call.notify("SIP/2.0 200 OK", "terminated;reason=noresource") == 200
        music = await holding
        await second.rtp.hears(350)
        back = await music.retrieve(tone=800)
        third = await sbc.expect_call()
        assert third.invited is not None
        replaces = third.invited.request.need("Replaces")
        assert replaces.startswith(second.dialog.call_id)
        assert f"to-tag={second.dialog.local_tag};from-tag={second.dialog.remote_tag}" in replaces
        await third.answer()
        await third.rtp.hears(800)
        await second.bye()
        await back.hang_up()


async def test_options_both_ways_and_the_captured_answer(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, gateway=sbc.address) as teams:
        answer = await sbc.options(teams.proxies[1])
        assert answer.raw.startswith(b"SIP/2.0 200 OK\r\nVIA: ")
        assert answer.to_tag == ""
        assert answer.get("Allow") == "INVITE,ACK,OPTIONS,CANCEL,BYE,NOTIFY"
        assert teams.options_seen[0][1] == "Teams sip2"
        assert (await teams.options()).code == 200


async def test_a_proxy_overloaded_dead_or_silent(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki) as teams:
        teams.overload(0, retry_after=7)
        call = await sbc.call(teams.proxies[0])
        refused = await call.outcome()
        assert (refused.code, refused.get("Retry-After")) == (503, "7")
        teams.silence(1)
        quiet = await sbc.call(teams.proxies[1])
        with pytest.raises(AssertionError, match="no final"):
            await quiet.outcome(within=0.3)
        await teams.kill(2)
        with pytest.raises(ConnectionRefusedError):
            await sbc.call(teams.proxies[2])


async def test_decline_and_cancel(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki) as teams:
        call = await sbc.call(teams.proxies[0])
        expert = await teams.expect_invite()
        await expert.decline(603)
        refused = await call.outcome()
        assert refused.code == 603
        assert refused.get("Reason").startswith("Q.850;cause=21;text=")
        second = await sbc.call(teams.proxies[0])
        other = await teams.expect_invite()
        other.ring()
        await second.ringing()
        assert (await second.cancel()).code == 487
        assert other.ended


BREACHES = [
    ("+49301112222@sbc.example.test:", "+49301112222@127.0.0.1:", "IP address in Contact"),
    (";transport=tls>", ">", "Contact without transport=tls"),
    ("NOTIFY, REFER", "NOTIFY", "Allow without REFER"),
    ("sip:+4930123456@", "sip:0049123456@", "called number without"),
    (";user=phone;transport", ";transport", "called number without"),
    ("<sip:+49301112222@sbc.example.test;user=phone>", "<sip:alice@sbc.example.test>", "caller without"),
    ("replaces, timer", "timer", "Supported without replaces"),
    ("sip:+4930123456@sip.", "sips:+4930123456@sip.", "sips"),
]
SDP_BREACHES = [
    ("RTP/SAVP", "RTP/AVP", "profile"),
    ("|2^31", "", "crypto parameters"),
    ("HMAC_SHA1_80", "HMAC_SHA1_32", "crypto lines"),
    ("a=sendrecv", "a=sendonly", "a=sendonly"),
    ("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0", "0.0.0.0"),
    ("c=IN IP4 127.0.0.1", "c=IN IP4 10.1.2.3", "not the media address"),
]


@pytest.mark.parametrize(("old", "new", "complaint"), BREACHES)
async def test_every_broken_rule_of_an_invite_is_noticed(
    pki: Pki, old: str, new: str, complaint: str
) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, strict=False) as teams:
        call = await sbc.call(teams.proxies[0], change=(old, new))
        expert = await teams.expect_invite()
        await expert.decline()
        await call.outcome()
        assert any(complaint in text for text in teams.violations), teams.violations


@pytest.mark.parametrize(("old", "new", "complaint"), SDP_BREACHES)
async def test_every_broken_rule_of_an_offer_is_noticed(pki: Pki, old: str, new: str, complaint: str) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, strict=False, media_addresses=["127.0.0.1"]) as teams:
        call = await sbc.call(teams.proxies[0], sdp_change=(old, new))
        expert = await teams.expect_invite()
        await expert.decline()
        await call.outcome()
        assert any(complaint in text for text in teams.violations), teams.violations


async def test_methods_and_changes_that_teams_does_not_take_are_noticed(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, strict=False) as teams:
        call = await sbc.call(teams.proxies[0], extra=(("X-Secret", "1"),))
        expert = await teams.expect_invite()
        await expert.answer()
        call.rtp.port += 2
        call.rtp.local_key = bytes(30)
        await call.reoffer(call.offer())
        await call.send("INFO").final()
        await expert.refer()
        await call.bye()
        wanted = ("x-secret", "media moved", "SRTP key", "o= version", "method INFO", "BYE before the final")
        assert [w for w in wanted if not any(w in text for text in teams.violations)] == []


async def test_proxies_demand_a_good_client_certificate(pki: Pki, tmp_path: Path) -> None:
    stranger = make_pki(tmp_path)
    async with MiniSbc(pki) as sbc, Teams(pki) as teams:
        for identity in ("", "gateway-expired", "microsoft-rogue"):
            connection = None
            try:
                connection = await sbc.connect(teams.proxies[0], identity)
                await asyncio.wait_for(connection.closed_event.wait(), 5)
            except (ssl.SSLError, ConnectionError):
                pass
            assert connection is None or connection.closed, identity
        sbc.pki = stranger
        with pytest.raises(ssl.SSLError):
            await sbc.connect(teams.proxies[0])


async def test_consultative_transfer_and_early_replaces_name_the_other_call(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, gateway=sbc.address) as teams:
        first = await teams.invite("+49301112222")
        call = await sbc.expect_call()
        await call.answer()
        await first.answered()
        consultation = await sbc.call(teams.proxies[0])
        colleague = await teams.expect_invite()
        colleague.ring()
        await consultation.ringing()
        referral = await first.refer(consultative=colleague)
        refer = await call.expect("REFER")
        assert ";x-tt=" in refer.request.need("Referred-By")
        assert refer.request.need("Refer-To") == referral.target
        assert await call.notify("SIP/2.0 503 Service Unavailable", "terminated;reason=noresource") == 200
        assert await referral.finished() == "SIP/2.0 503 Service Unavailable"
        pickup = await teams.replaces(
            colleague, number="", shape=Shape(from_user="", display=""), early_only=True
        )
        taken = await sbc.expect_call()
        assert taken.invited is not None
        assert taken.invited.request.need("Replaces") == (
            f"{consultation.dialog.call_id};to-tag={consultation.dialog.local_tag}"
            f";from-tag={colleague.dialog.local_tag};early-only"
        )
        assert taken.invited.request.uri.startswith("sip:sbc.example.test:")
        await taken.answer()
        assert (await consultation.cancel()).code == 487
        await pickup.hang_up()
        await call.bye()


async def test_the_capture_holds_what_was_received(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CAPTURE, str(tmp_path / "capture"))
    async with MiniSbc(pki) as sbc, Teams(pki) as teams:
        await sbc.options(teams.proxies[0])
    [line] = [json.loads(text) for text in (tmp_path / "capture").read_text().splitlines()]
    assert line["owner"] == "Teams sip"
    assert line["text"].startswith("OPTIONS sip:sip.pstnhub.microsoft.com")


async def test_each_certificate_and_version_can_be_tried_on_a_gateway(pki: Pki) -> None:
    async with MiniSbc(pki) as sbc, Teams(pki, gateway=sbc.address) as teams:
        for certificate in ("", "microsoft-rogue", "microsoft-self-signed", "microsoft-expired"):
            try:
                connection = await teams.connect(certificate=certificate)
            except (ssl.SSLError, ConnectionError):
                continue
            await asyncio.wait_for(connection.closed_event.wait(), 5)
        connection = await teams.connect("127.0.0.3", "microsoft-wrong-name")
        assert not connection.closed
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await teams.connect(only=ssl.TLSVersion.TLSv1_1)
