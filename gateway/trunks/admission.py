"""Who may talk to a trunk at all: the addresses its peers resolve to, kept fresh, and configured ranges."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from gateway.config_types import Network

REMEMBERED = 900.0
"""Seconds an address stays admitted after DNS stopped naming it: calls that run through it have not ended."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def canonical(address: str) -> IpAddress | None:
    """An address as compared here (IPv4 inside IPv6 unwrapped, zone dropped); None for anything else."""
    try:
        parsed = ipaddress.ip_address(address.strip("[]").split("%", 1)[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


class Admission:
    """The addresses of one trunk: literal peers and ranges are fixed, names come from live DNS (T10, T11)."""

    def __init__(self, hosts: Iterable[str], ranges: Iterable[Network]) -> None:
        self._ranges = tuple(ranges)
        self._literal = frozenset(known for host in hosts if (known := canonical(host)) is not None)
        self._resolved: dict[IpAddress, tuple[str, float]] = {}

    def learn(self, host: str, addresses: Iterable[str], now: float) -> None:
        """`host` resolves to `addresses` at the moment `now`; older ones are remembered for a while."""
        for text in addresses:
            if (address := canonical(text)) is not None:
                self._resolved[address] = (host, now)
        self._resolved = {
            address: seen for address, seen in self._resolved.items() if now - seen[1] <= REMEMBERED
        }

    def refresh(self, hosts: Iterable[str], now: float) -> None:
        """DNS has no answer for these names: what was known stays known (an outage locks nobody out)."""
        stale = frozenset(hosts)
        for address, (host, _) in list(self._resolved.items()):
            if host in stale:
                self._resolved[address] = (host, now)

    def admits(self, address: str) -> bool:
        parsed = canonical(address)
        if parsed is None:
            return False
        return (
            parsed in self._literal
            or parsed in self._resolved
            or any(parsed.version == network.version and parsed in network for network in self._ranges)
        )

    @property
    def resolved(self) -> Mapping[str, str]:
        """Known addresses of names, address -> name, for `tandem trunks`."""
        return {str(address): host for address, (host, _) in self._resolved.items()}
