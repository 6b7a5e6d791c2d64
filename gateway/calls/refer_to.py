"""Taking a Refer-To value apart without changing what has to stay byte-exact. Pure."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from gateway.errors import SipError


@dataclass(frozen=True, slots=True)
class ReferTarget:
    """Where a REFER points.

    uri:      the URI as received, every parameter in place, without its `?headers` (RFC 3261 19.1.5)
    user:     its user part unescaped, "" when there is none (Teams targets have none, facts 6.2)
    host:     lower case, without port
    authority: `host:port` (5060 where none is given), as `Directory.own_hosts` has it
    replaces: value of an embedded Replaces header, unescaped; "" when there is none
    """

    uri: str
    user: str
    host: str
    replaces: str = ""
    authority: str = ""


def refer_target(value: str) -> ReferTarget:
    """The target of a Refer-To header value. SipError(400) when it is no sip URI."""
    text = value.strip()
    if "<" in text:
        _, _, rest = text.partition("<")
        text, closed, _ = rest.partition(">")
        if not closed:
            raise SipError(400, "Refer-To without closing bracket")
    else:
        # without brackets everything after ';' belongs to the header (RFC 3261 20.10), and so does '?'
        text = text.partition(";")[0]
    uri, _, headers = text.partition("?")
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.lower() not in ("sip", "sips", "tel"):
        raise SipError(400, "Refer-To is no sip URI")
    if scheme.lower() == "tel":
        return ReferTarget(uri, rest.partition(";")[0], "", _replaces(headers))
    user, at, host_part = rest.rpartition("@")
    host_port = (host_part if at else rest).partition(";")[0]
    host = (
        host_port.partition("]")[0].lstrip("[") if host_port.startswith("[") else host_port.partition(":")[0]
    )
    if not host:
        raise SipError(400, "Refer-To without a host")
    name = urllib.parse.unquote(user.partition(":")[0].partition(";")[0])
    port = host_port.rpartition("]")[2].partition(":")[2]
    return ReferTarget(uri, name, host.lower(), _replaces(headers), f"{host.lower()}:{port or 5060}")


def _replaces(headers: str) -> str:
    for field in headers.split("&"):
        name, _, content = field.partition("=")
        if name.lower() == "replaces":
            return urllib.parse.unquote(content)
    return ""
