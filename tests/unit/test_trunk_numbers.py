"""Numbers in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.trunks.numbers import NumberFormat, NumberPlan, is_e164, to_e164, write_number

GERMANY = NumberPlan("49")
AMERICA = NumberPlan("1", national_prefix="1", international_prefix="011", national_length=10)


@pytest.mark.parametrize(
    ("dialled", "plan", "expected"),
    [
        ("+4930123456", NumberPlan(), "+4930123456"),
        ("+49 (30) 123-456", NumberPlan(), "+4930123456"),
        ("030123456", GERMANY, "+4930123456"),
        ("0043123456", GERMANY, "+43123456"),
        ("0043123456", NumberPlan(), "+43123456"),
        ("030123456", NumberPlan(), "030123456"),
        ("1234", GERMANY, "1234"),
        ("5551230000", AMERICA, "+15551230000"),
        ("15551230000", AMERICA, "+15551230000"),
        ("0114930123456", AMERICA, "+4930123456"),
        ("911", AMERICA, "911"),
        ("+4930123;ext=4", GERMANY, "+4930123"),
        ("*21#", GERMANY, "*21#"),
        ("alice", GERMANY, "alice"),
        ("", GERMANY, ""),
        ("00", GERMANY, "00"),
    ],
)
def test_to_e164(dialled: str, plan: NumberPlan, expected: str) -> None:
    assert to_e164(dialled, plan) == expected


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (NumberFormat.E164, "+4930123456"),
        (NumberFormat.PLAIN, "4930123456"),
        (NumberFormat.NATIONAL, "030123456"),
        (NumberFormat.AS_DIALLED, "+4930123456"),
    ],
)
def test_write_number(style: NumberFormat, expected: str) -> None:
    assert write_number("+4930123456", style, GERMANY) == expected
    assert write_number("1234", style, GERMANY) == "1234"


def test_national_style_dials_out_of_the_country() -> None:
    assert write_number("+43123456", NumberFormat.NATIONAL, GERMANY) == "0043123456"


@given(st.text(max_size=40))
def test_normalising_is_stable_and_never_fails(text: str) -> None:
    once = to_e164(text, GERMANY)
    assert to_e164(once, GERMANY) == once


@given(st.from_regex(r"\A\+49[1-9][0-9]{3,11}\Z"))
def test_national_writing_can_be_read_back(number: str) -> None:
    assert is_e164(number)
    assert to_e164(write_number(number, NumberFormat.NATIONAL, GERMANY), GERMANY) == number
