"""Looking into URIs and address headers to decide by them; what is relayed stays the text as received."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Sequence
from typing import Protocol

from sipmessage import URI

from gateway.errors import MessageError
from gateway.sip.message_values import NameAddr, parse_name_addr, split_values

_SEPARATORS = re.compile(r"[-.()\s]")
_NUMBER = re.compile(r"\+?[0-9*#]+")
_ANONYMOUS_USERS = frozenset({"anonymous", "restricted", "unavailable", "unknown", "private", ""})
_ANONYMOUS_HOST = "anonymous.invalid"


class HeaderSource(Protocol):
    """The part of `sipmessage.Headers` that is read here."""

    def get(self, key: str, default: str | None = None) -> str | None: ...

    def getlist(self, key: str) -> list[str]: ...


class Incoming(Protocol):
    """The part of `gateway.sip.message.Request` that is read here."""

    @property
    def method(self) -> str: ...

    @property
    def uri(self) -> URI: ...

    @property
    def headers(self) -> HeaderSource: ...


def number_in(user: str) -> str:
    """`+49 30-123;ext=4` -> `+4930123`; "" when the user part is a name and not a number."""
    plain = _SEPARATORS.sub("", user.split(";", 1)[0])
    return plain if _NUMBER.fullmatch(plain) else ""


def host_of(uri: URI) -> str:
    """The host for comparing: lower case, no brackets, no final dot."""
    return uri.host.lower().strip("[]").rstrip(".")


def user_of(uri: URI) -> str:
    """The number in the user part, else the user part itself, "" when there is none."""
    user = uri.user or ""
    return number_in(user) or user


def addresses(headers: HeaderSource, name: str) -> list[NameAddr]:
    """Every readable address of a header in order; values that cannot be read are left out."""
    found: list[NameAddr] = []
    for line in headers.getlist(name):
        try:
            values = split_values(line)
        except MessageError:
            continue
        for value in values:
            try:
                address = parse_name_addr(value)
                address.uri  # noqa: B018 - only an address with a usable URI is of use
            except MessageError:
                continue
            found.append(address)
    return found


def first_address(headers: HeaderSource, name: str) -> NameAddr | None:
    found = addresses(headers, name)
    return found[0] if found else None


def is_ip_address(host: str) -> bool:
    """Whether a URI host is a literal address and not a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_anonymous(uri: URI) -> bool:
    """RFC 3323 4.1: the caller asked not to be named."""
    return host_of(uri) == _ANONYMOUS_HOST or (
        uri.scheme != "tel" and user_of(uri).lower() in _ANONYMOUS_USERS
    )


def quote_display(name: str) -> str:
    """A display name as a quoted-string; control characters, which could end a header line, are dropped."""
    clean = "".join(c for c in name if c.isprintable())
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sip_uri(user: str, host: str, port: int | None = None, params: Sequence[str] = ()) -> str:
    """A sip: URI; `user` is escaped where RFC 3261 25.1 asks for it and left out when empty."""
    text = "sip:"
    if user:
        text += urllib.parse.quote(user, safe="-_.!~*'()&=+$,;?/") + "@"
    text += f"[{host}]" if ":" in host and not host.startswith("[") else host
    if port is not None:
        text += f":{port}"
    return text + "".join(f";{param}" for param in params)
