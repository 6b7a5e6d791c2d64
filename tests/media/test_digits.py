"""telephone-event through the patch bay: each digit once, with its length, also under different numbers."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from media.digits import Digit, read_report
from media.engine import Engine
from media.patchbay import PatchBay
from tests.media.conftest import PeerFactory
from tests.media.support import both_hear, callee, caller


@pytest.mark.parametrize(
    ("a_number", "b_number", "a_codec", "b_codec"),
    [
        (101, 101, "PCMA", "PCMA"),
        (96, 101, "PCMA", "PCMA"),
        (97, 96, "PCMU", "PCMA"),
        (96, 101, "PCMA", "G722"),
        (127, 98, "G722", "G722"),
        (101, 101, "PCMU", "PCMA"),
    ],
)
async def test_each_digit_arrives_once_in_both_directions(
    bay: PatchBay, peer: PeerFactory, a_number: int, b_number: int, a_codec: str, b_codec: str
) -> None:
    """rtpengine passes numbers on as they are (facts media-prototype 8), and a party ignores strange ones."""
    a = await peer(tone=440, telephone_event=a_number, codec=a_codec)
    b = await peer(tone=700, telephone_event=b_number, codec=b_codec, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    outside = (one.local, two.local)
    await bay.bridge(one, two)
    await both_hear(a, b)

    async def press(who: object, digits: str) -> None:
        for digit, ms in zip(digits, itertools.cycle((100, 160)), strict=False):
            await who.press(digit, ms)  # type: ignore[attr-defined]

    await asyncio.gather(press(a, "190#"), press(b, "*5D"))
    at_b, at_a = await asyncio.gather(b.hears_digits("190#"), a.hears_digits("*5D"))
    assert [digit.ms for digit in at_b] == [100, 160, 100, 160]
    assert [digit.ms for digit in at_a] == [100, 160, 100]
    assert a.unknown() == b.unknown() == []
    await both_hear(a, b)
    assert (one.local, two.local) == outside
    assert b.undecodable == 0


async def test_a_leg_comes_back_from_a_crossing(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440, telephone_event=96), await peer(tone=700, srtp=True)
    c = await peer(tone=950, telephone_event=96, codec="PCMU")
    one, two, three = await caller(bay, a), await callee(bay, b), await callee(bay, c, 96)
    for partner, far in ((two, b), (three, c), (two, b), (three, c)):
        await bay.bridge(one, partner)
        await both_hear(a, far)
    await a.press("5")
    await c.hears_digits("5")
    assert b.undecodable == 0


async def test_a_re_invite_with_another_number_is_followed(bay: PatchBay, peer: PeerFactory) -> None:
    a, b = await peer(tone=440), await peer(tone=700)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    a.telephone_event = 96
    a.follow(await one.remote_offer(a.description()))
    await both_hear(a, b)
    await a.press("3", 120)
    [digit] = await b.hears_digits("3")
    assert (digit.ms, digit.payload_type) == (120, 101)


@pytest.mark.parametrize("number", [101, 96])
async def test_we_press_digits(bay: PatchBay, peer: PeerFactory, number: int) -> None:
    a, b = await peer(tone=440, telephone_event=number), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    for digit in "7#":
        await two.send_digit(digit, 160)
    for heard in await b.hears_digits("7#"):
        assert 140 <= heard.ms <= 200
    assert a.digits == []
    await both_hear(a, b)


async def test_the_engine_tells_who_pressed_what_once(
    engine: Engine, bay: PatchBay, peer: PeerFactory
) -> None:
    told: list[Digit] = []
    complete = asyncio.Event()

    def tell(digit: Digit) -> None:
        told.append(digit)
        if len(told) == 2:
            complete.set()

    engine.on_digit = tell
    a, b = await peer(tone=440), await peer(tone=700, srtp=True)
    one, two = await caller(bay, a), await callee(bay, b)
    await bay.bridge(one, two)
    await both_hear(a, b)
    await a.press("4", 120)
    await b.press("6", 120)
    await a.hears_digits("6")
    await asyncio.wait_for(complete.wait(), 5)
    assert told == [Digit(one.leg, "4", 120), Digit(two.leg, "6", 120)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"type":"DTMF"}',
        b'{"type":"DTMF","source_tag":"int","callid":"x","event":1,"duration":100}',
        b'{"type":"DTMF","source_tag":"ext","callid":"x","event":99,"duration":100}',
        b'{"type":"DTMF","source_tag":"ext","callid":"x","event":"1","duration":100}',
    ],
)
def test_other_reports_are_passed_over(data: bytes) -> None:
    assert read_report(data) is None
