"""Where a request comes from, behind proxies or not. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from gateway.config_types import Network


def client_address(remote: str, headers: Mapping[str, str], proxies: Sequence[Network]) -> str:
    """The nearest address that is no trusted proxy's; a stranger's X-Forwarded-For counts for nothing."""
    hops = [hop.strip() for hop in headers.get("X-Forwarded-For", "").split(",") if hop.strip()]
    address = remote
    while hops and _trusted(address, proxies):
        address = hops.pop()
    return address


def is_secure(remote: str, scheme: str, headers: Mapping[str, str], proxies: Sequence[Network]) -> bool:
    """Whether the browser speaks TLS, to us or to a trusted proxy."""
    forwarded = headers.get("X-Forwarded-Proto", "").split(",")[-1].strip().lower()
    return scheme == "https" or (forwarded == "https" and _trusted(remote, proxies))


def same_origin(origin: str, host: str, public_url: str | None) -> bool:
    """Whether the page that sent the request is ours, by its Origin and our Host or public address."""
    parts = urlsplit(origin)
    own = {host.lower()}
    if public_url is not None:
        own.add(urlsplit(public_url).netloc.lower())
    return parts.scheme in ("http", "https") and parts.netloc.lower() in own


def _trusted(address: str, proxies: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in proxies)
