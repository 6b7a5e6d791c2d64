"""What transports, transactions and trunks say to each other about addresses and limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.errors import TransportError


class TransportKind(StrEnum):
    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"

    @property
    def reliable(self) -> bool:
        return self is not TransportKind.UDP

    @property
    def default_port(self) -> int:
        return 5061 if self is TransportKind.TLS else 5060


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where we listen, or a peer of the configuration: `udp:127.0.0.1:5060`, `tls:[::]:5061`, `tcp:pbx`.

    by_service: a name without a port: SRV says which hosts and ports are meant, and only where it says
                nothing `port` counts, the transport's default (RFC 3263 4.2)
    """

    kind: TransportKind
    host: str
    port: int
    by_service: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """ValueError with a text for people. A missing port is the transport's default."""
        scheme, colon, rest = text.partition(":")
        try:
            kind = TransportKind(scheme.lower())
        except ValueError:
            raise ValueError(f"{text!r}: expected udp:, tcp: or tls: in front") from None
        host, port_text = _split_port(rest)
        if not colon or not host or (":" in host and not is_ip(host)):
            raise ValueError(f"{text!r}: expected {kind}:host:port")
        if not port_text:
            return cls(kind, host, kind.default_port, by_service=not is_ip(host))
        if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
            raise ValueError(f"{text!r}: {port_text!r} is not a port")
        return cls(kind, host, int(port_text))

    @property
    def named_port(self) -> int | None:
        """The port to ask the resolver for and to write into URIs; None where SRV has to say it."""
        return None if self.by_service else self.port

    def __str__(self) -> str:
        if self.by_service:
            return f"{self.kind}:{self.host}"
        return f"{self.kind}:{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """A resolved next hop; `name` is the host name asked for: SNI, and what the certificate must say."""

    kind: TransportKind
    address: str
    port: int
    name: str = ""

    def __str__(self) -> str:
        named = f"({self.name})" if self.name else ""
        return f"{self.kind}:{bracketed(self.address)}:{self.port}{named}"


@dataclass(frozen=True)
class TransportLimits:
    """Bounds and times of the transport layer; seconds and bytes."""

    max_connections: int = 2000
    """Inbound stream connections at once; one more is closed unread."""
    max_connections_per_address: int = 200
    max_message: int = 65536
    max_head: int = 32768
    """Bytes from start line to the empty line; on a stream more than that closes the connection."""
    max_unsent: int = 1 << 20
    """Bytes a peer may leave unread before its connection is given up."""
    connect_timeout: float = 5.0
    """TCP connect and TLS handshake together, outbound; the TLS handshake inbound."""
    stall_timeout: float = 10.0
    """A message begun on a stream must be complete by then."""
    idle_timeout: float = 1800.0
    """A stream without a byte received for so long is closed."""
    keepalive_interval: float = 60.0
    """Double CRLF on outbound streams (RFC 5626 3.5.1); 0 = off."""
    unanswered_after: float = 3.0
    """A request given up that long after it was sent speaks against a stream that brought nothing since."""
    drain_quiet: float = 2.0
    """A recycled connection is closed when no transaction needs it and it was quiet for this long."""
    drain_limit: float = 200.0
    """... and at the latest after this time (more than the longest ring time)."""
    reload_interval: float = 5.0
    """How often the certificate files are looked at."""


MAX_DATAGRAM = 65507
MAX_STREAM_MESSAGE = 65536
UDP_SWITCH_SIZE = 1300
"""Requests larger than this go by TCP where allowed (RFC 3261 18.1.1: path MTU unknown)."""


def is_ip(text: str) -> bool:
    """True for an IPv4 or IPv6 literal, IPv6 with or without brackets."""
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def bracketed(host: str) -> str:
    """An IPv6 literal in brackets; anything else as it is."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def normal_address(address: str) -> str:
    """IPv4-mapped IPv6 as IPv4, scope ids dropped: what a socket reports, as configuration writes it."""
    address = address.partition("%")[0]
    if address.startswith("::ffff:") and "." in address:
        return address[7:]
    return address


def address_pair(sockname: object) -> tuple[str, int]:
    """(address, port) out of what asyncio's get_extra_info gives; TransportError when the socket is gone."""
    if not isinstance(sockname, tuple) or len(sockname) < 2:
        raise TransportError("the connection is gone")
    return normal_address(str(sockname[0])), int(sockname[1])


def _split_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port
