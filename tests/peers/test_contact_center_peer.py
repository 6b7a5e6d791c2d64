"""Two contact-center stand-ins call each other: their wire code, media and habits, without a gateway."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from tests.peers.contact_center import Challenge, ContactCenter, Kind
from tests.peers.contact_center_call import Hold, Method
from tests.peers.sipwire_ua import ServerTx


@pytest.mark.parametrize("kind", ["UDP", "TCP"])
async def test_call_ring_answer_tones_digits_bye(kind: Kind) -> None:
    async with (
        ContactCenter(tone=700, codecs=("G722", "PCMU", "PCMA"), kind=kind) as b,
        ContactCenter(gateway=("127.0.0.1", b.port), kind=kind, codecs=("PCMU", "PCMA")) as a,
    ):
        call = await a.call("+4930555")
        other = await b.expect_call()
        other.ring()
        await call.ringing()
        await other.answer()
        await call.answered()
        await asyncio.gather(call.rtp.hears(700), other.rtp.hears(440))
        assert other.rtp.codec == "PCMU"
        await call.digits("42#")
        await other.rtp.hears_digits("42#")
        assert (await call.bye()).code == 200
        await other.expect_end()
        assert (await a.options()).code == 200


async def test_late_offer_and_reliable_early_media() -> None:
    async with ContactCenter(tone=700) as b, ContactCenter(gateway=("127.0.0.1", b.port)) as a:
        call = await a.call("+4930555", late=True)
        other = await b.expect_call()
        await other.answer()
        await asyncio.gather(call.rtp.hears(700), other.rtp.hears(440))
        await other.bye()
        early = await a.call("+4930555")
        second = await b.expect_call()
        prack = await second.ring_reliably(183, early_media=True)
        assert prack.need("RAck").endswith("INVITE")
        await early.rtp.hears(700)
        await second.answer()
        await second.rtp.hears(440)
        await early.bye()


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("how", ["sendonly", "inactive", "zero"])
async def test_hold_stops_the_far_end_and_resume_brings_it_back(how: Hold, method: Method) -> None:
    async with ContactCenter(tone=700) as b, ContactCenter(gateway=("127.0.0.1", b.port)) as a:
        call = await a.call("+4930555")
        other = await b.expect_call()
        await other.answer()
        await call.rtp.hears(700)
        assert (await call.hold(how, method)).code == 200
        assert not other.rtp.sending
        assert (await call.resume(method)).code == 200
        await asyncio.gather(call.rtp.hears(700), other.rtp.hears(440))
        await call.bye()


def accept_refer(transaction: ServerTx) -> None:
    transaction.respond(202)


async def test_refer_blind_and_attended_arrive_as_written() -> None:
    async with ContactCenter() as b, ContactCenter(gateway=("127.0.0.1", b.port)) as a:
        call = await a.call("+4930555")
        other = await b.expect_call()
        await other.answer()
        other.auto["REFER"] = accept_refer
        assert (await call.refer("+4930777")).code == 202
        assert "+4930777" in other.referred_to((await other.expect("REFER")).request)
        assert (await call.refer("", replaces=call)).code == 202
        assert "?Replaces=" in other.referred_to((await other.expect("REFER")).request)
        await call.bye()


@pytest.mark.parametrize("code", [401, 407])
async def test_a_challenge_is_put_to_every_caller(code: Literal[401, 407]) -> None:
    challenge = Challenge("tandem", "secret", code=code)
    async with (
        ContactCenter(challenge=challenge) as b,
        ContactCenter(gateway=("127.0.0.1", b.port)) as a,
    ):
        refused = await (await a.call("+4930555")).outcome()
        assert refused.code == code
        name = "WWW-Authenticate" if code == 401 else "Proxy-Authenticate"
        assert refused.get(name).startswith("Digest realm=")
        await b.expect_no_call(0.1)


async def test_cancel_and_rejection() -> None:
    async with ContactCenter() as b, ContactCenter(gateway=("127.0.0.1", b.port)) as a:
        call = await a.call("+4930555")
        other = await b.expect_call()
        other.ring()
        await call.ringing()
        assert (await call.cancel()).code == 487
        second = await a.call("+4930555")
        await (await b.expect_call()).reject(486)
        assert (await second.outcome()).code == 486
