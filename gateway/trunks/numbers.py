"""Telephone numbers: what a peer writes, what Teams wants (E.164 with +), and back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.trunks.uris import number_in

_E164_DIGITS = range(5, 16)


class NumberFormat(StrEnum):
    """How a trunk wants numbers written when we call it."""

    E164 = "e164"
    """+4930123456"""
    PLAIN = "plain"
    """4930123456"""
    NATIONAL = "national"
    """030123456 inside the country, 00431234 outside it (the prefixes of the plan)"""
    AS_DIALLED = "as-dialled"
    """unchanged"""


@dataclass(frozen=True, slots=True)
class NumberPlan:
    """The dialling habits of one trunk.

    country_code:         digits without +, "" when only numbers in E.164 can be understood
    national_prefix:      what stands before a national number ("0" in Germany, "1" in North America), "" =
    none
    international_prefix: "00" in Europe, "011" in North America
    national_length:      digits of a national number without its prefix, 0 = not fixed; where fixed
                          (10 in North America) such a number is known to be national without any prefix
    """

    country_code: str = ""
    national_prefix: str = "0"
    international_prefix: str = "00"
    national_length: int = 0


def to_e164(number: str, plan: NumberPlan) -> str:
    """`number` as +E.164 where the plan says how, otherwise (extensions, short codes, names) as it came."""
    plain = number_in(number)
    if not plain:
        return number
    if plain.startswith("+"):
        return plain
    if not plain.isdigit():
        return plain
    international = plan.international_prefix
    if international and plain.startswith(international):
        rest = plain[len(international) :]
        return f"+{rest}" if len(rest) in _E164_DIGITS else plain
    if not plan.country_code:
        return plain
    if plan.national_length:
        if len(plain) == plan.national_length:
            return f"+{plan.country_code}{plain}"
        prefixed = plan.national_prefix and plain.startswith(plan.national_prefix)
        rest = plain[len(plan.national_prefix) :] if prefixed else ""
        return f"+{plan.country_code}{rest}" if len(rest) == plan.national_length else plain
    if plan.national_prefix and plain.startswith(plan.national_prefix):
        rest = plain[len(plan.national_prefix) :]
        return f"+{plan.country_code}{rest}" if rest else plain
    return plain


def is_e164(number: str) -> bool:
    """Whether Teams can look the number up: + and 5 to 15 digits (facts 3.3; T: 484, 404)."""
    return number.startswith("+") and number[1:].isdigit() and len(number) - 1 in _E164_DIGITS


def write_number(number: str, style: NumberFormat, plan: NumberPlan) -> str:
    """A number in the way `style` asks; what is not E.164 stays as it is."""
    if style is NumberFormat.AS_DIALLED or not is_e164(number):
        return number
    if style is NumberFormat.E164:
        return number
    digits = number[1:]
    if style is NumberFormat.PLAIN:
        return digits
    if plan.country_code and digits.startswith(plan.country_code):
        return plan.national_prefix + digits[len(plan.country_code) :]
    return plan.international_prefix + digits
