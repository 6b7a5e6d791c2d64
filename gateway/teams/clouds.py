"""Where Entra ID and Graph are: the global service, a national cloud, or what the configuration names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

GLOBAL, US_GOV, US_DOD, CHINA = "global", "us-gov", "us-dod", "china"
ADDRESSES: dict[str, tuple[str, str]] = {
    GLOBAL: ("https://login.microsoftonline.com", "https://graph.microsoft.com/v1.0"),
    US_GOV: ("https://login.microsoftonline.us", "https://graph.microsoft.us/v1.0"),
    US_DOD: ("https://login.microsoftonline.us", "https://dod-graph.microsoft.us/v1.0"),
    CHINA: ("https://login.chinacloudapi.cn", "https://microsoftgraph.chinacloudapi.cn/v1.0"),
}
"""Cloud -> authority and Graph root (facts/graph.md 6)."""


@dataclass(frozen=True)
class Cloud:
    """authority: without the tenant; root: with the version; roots: PEM of further authorities to trust."""

    authority: str
    root: str
    roots: Path | None = None
    may_set_presence: bool = True
    """setPresence exists in the global service only (facts/graph.md 2.2)."""

    @classmethod
    def named(cls, name: str) -> Cloud:
        """KeyError for an unknown one."""
        authority, root = ADDRESSES[name]
        return cls(authority, root, may_set_presence=name == GLOBAL)

    @property
    def well_known(self) -> bool:
        """Whether msal knows this authority, and may ask Microsoft about it."""
        return self.authority in {authority for authority, _ in ADDRESSES.values()}

    @property
    def origin(self) -> str:
        """Scheme and host of Graph: prefix of its scopes, and the only place that gets its tokens."""
        parts = urlsplit(self.root)
        return f"{parts.scheme}://{parts.netloc}"
