"""How the gateway looks to one kind of peer: the values it puts into every request and response."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.sip.transport_types import bracketed

RefreshMethod = Literal["auto", "invite", "update"]
ReliableProvisional = Literal["never", "when-required", "when-supported"]

DEFAULT_ALLOW = (
    "INVITE",
    "ACK",
    "CANCEL",
    "BYE",
    "OPTIONS",
    "NOTIFY",
    "REFER",
    "INFO",
    "UPDATE",
    "PRACK",
)
DEFAULT_SUPPORTED = ("replaces", "timer")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What digest authentication as a client needs (RFC 7616).

    realm: answer only challenges of this realm; "" answers any. The password never shows in a repr.
    """

    username: str
    password: str = field(repr=False)
    realm: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """How we look to one peer relation; a trunk makes it (facts/direct-routing.md 3.1, 3.3).

    contact_params: appended inside the Contact URI, e.g. ";transport=tls"
    session_expires, min_se: seconds (RFC 4028); session_expires 0 asks for no session timer
    strict_allow: send PRACK, UPDATE, INFO, REFER and the like only to a peer that lists them in this dialog
    (T6)
    late_offer: accept an INVITE without an offer; otherwise it is answered 488 with a Warning
    follow_contact: False for a datagram peer behind a NAT: in-dialog requests go where its own came from
    """

    contact_host: str
    contact_port: int | None = None
    contact_params: str = ""
    via_host: str | None = None
    from_host: str = ""
    allow: tuple[str, ...] = DEFAULT_ALLOW
    supported: tuple[str, ...] = DEFAULT_SUPPORTED
    user_agent: str = "Tandem"
    session_expires: int = 1800
    min_se: int = 90
    refresh_method: RefreshMethod = "auto"
    reliable_provisional: ReliableProvisional = "when-required"
    strict_allow: bool = False
    credentials: Credentials | None = None
    tcp_switch: bool = False
    late_offer: bool = True
    follow_contact: bool = True

    def contact(self, user: str = "") -> str:
        """The Contact header value; without a user there is no '@' either (facts 1.6)."""
        host = bracketed(self.contact_host)
        port = f":{self.contact_port}" if self.contact_port else ""
        at = f"{user}@" if user else ""
        return f"<sip:{at}{host}{port}{self.contact_params}>"

    @property
    def extensions(self) -> tuple[str, ...]:
        """Option tags we understand in Require."""
        if self.reliable_provisional == "never" or "100rel" in self.supported:
            return tuple(tag for tag in self.supported if self._speaks(tag))
        return (*self.supported, "100rel")

    def _speaks(self, tag: str) -> bool:
        return tag != "100rel" or self.reliable_provisional != "never"

    def capabilities(self, *, response: bool) -> list[tuple[str, str]]:
        """Allow, Supported and User-Agent (Server in a response).

        100rel is not advertised to a strict peer: its 18x could not be acknowledged (facts 3.6).
        """
        headers = [("Allow", ", ".join(self.allow))]
        listed = self.supported if self.strict_allow else self.extensions
        if listed:
            headers.append(("Supported", ", ".join(listed)))
        headers.extend(self.identity(response=response))
        return headers

    def identity(self, *, response: bool) -> list[tuple[str, str]]:
        """User-Agent or Server alone, for messages that need no capabilities."""
        return [("Server" if response else "User-Agent", self.user_agent)] if self.user_agent else []

    def to_record(self) -> dict[str, Any]:
        """JSON-ready form for a snapshot; the credentials stay out of it."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "credentials"}
        return {**record, "allow": list(self.allow), "supported": list(self.supported)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Profile:
        """Inverse of `to_record`; unknown keys are dropped, credentials are None."""
        names = {f.name for f in dataclasses.fields(cls)} - {"credentials"}
        values = {key: value for key, value in record.items() if key in names}
        for key in ("allow", "supported"):
            if key in values:
                values[key] = tuple(values[key])
        return cls(**values)
