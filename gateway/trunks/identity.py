"""Who calls: read from one side's INVITE, written the way the other side wants it. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.trunks.numbers import NumberPlan, to_e164
from gateway.trunks.uris import (
    HeaderSource,
    addresses,
    first_address,
    is_anonymous,
    quote_display,
    sip_uri,
    user_of,
)

_PRIVATE = frozenset({"id", "user", "header", "full"})
"""Privacy levels (RFC 3323, 3325) that hide the number; `history`, `session`, `critical` do not."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The calling party of an INVITE.

    number:   as E.164 where the trunk's plan allows, "" when nobody knows it. Also there when withheld: our
              own records and a trusted peer may have it, the called party may not
    display:  display name, "" when none or withheld
    withheld: the caller asked for privacy
    asserted: number of P-Asserted-Identity (the network's own knowledge, RFC 3325), "" when there is none
    """

    number: str
    display: str = ""
    withheld: bool = False
    asserted: str = ""


@dataclass(frozen=True, slots=True)
class OutgoingInvite:
    """The identity part of an INVITE we send: for `UserAgent.invite`."""

    request_uri: str
    from_: str
    to: str
    contact_user: str
    headers: tuple[tuple[str, str], ...]


def caller_of(headers: HeaderSource, plan: NumberPlan) -> Caller:
    """The caller of an INVITE: From is what it wants shown; where that is anonymous, the asserted number."""
    from_address = first_address(headers, "From")
    asserted_numbers = [user_of(address.uri) for address in addresses(headers, "P-Asserted-Identity")]
    asserted = next((n for n in asserted_numbers if n.startswith("+")), "") or next(
        (n for n in asserted_numbers if n), ""
    )
    anonymous = from_address is None or is_anonymous(from_address.uri)
    withheld = anonymous or bool(privacy_levels(headers) & _PRIVATE)
    shown = "" if from_address is None or anonymous else user_of(from_address.uri)
    return Caller(
        number=to_e164(shown or asserted, plan),
        display="" if withheld or from_address is None else from_address.display,
        withheld=withheld,
        asserted=to_e164(asserted, plan),
    )


def privacy_levels(headers: HeaderSource) -> frozenset[str]:
    """The values of Privacy (RFC 3323 4.2), lower case; they are separated by semicolons."""
    return frozenset(
        level.strip().lower()
        for line in headers.getlist("Privacy")
        for level in line.replace(",", ";").split(";")
        if level.strip()
    )


def from_header(caller: Caller, number: str, host: str, params: tuple[str, ...] = ()) -> str:
    """The From value without tag; anonymous where the caller withheld the number (RFC 3323 4.1.1.3).

    The anonymous form keeps our own host instead of anonymous.invalid: Teams wants the trunk's FQDN there
    (T1).
    """
    if caller.withheld or not number:
        return f'"Anonymous" <{sip_uri("anonymous", host)}>'
    display = quote_display(caller.display) + " " if caller.display else ""
    return f"{display}<{sip_uri(number, host, params=params)}>"


def identity_headers(
    caller: Caller, number: str, host: str, params: tuple[str, ...] = ()
) -> tuple[tuple[str, str], ...]:
    """P-Asserted-Identity, and Privacy: id when the caller withheld the number (RFC 3325 9.3)."""
    headers: list[tuple[str, str]] = []
    if number:
        headers.append(("P-Asserted-Identity", f"<{sip_uri(number, host, params=params)}>"))
    if caller.withheld:
        headers.append(("Privacy", "id"))
    return tuple(headers)
