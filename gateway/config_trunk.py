"""[[trunk]] of tandem.toml: one SIP peer relation, and what each kind of it defaults to."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gateway.config_types import (
    Flag,
    Host,
    Name,
    Pattern,
    Peer,
    Range,
    Seconds,
    SecondsOrOff,
    Secret,
    Section,
)
from gateway.model import PartyType, TrunkKind

Cloud = Literal["commercial", "gcc-high", "dod"]

TEAMS_PEERS: dict[Cloud, tuple[str, ...]] = {
    "commercial": (
        "tls:sip.pstnhub.microsoft.com:5061",
        "tls:sip2.pstnhub.microsoft.com:5061",
        "tls:sip3.pstnhub.microsoft.com:5061",
    ),
    "gcc-high": ("tls:sip.pstnhub.gov.teams.microsoft.us:5061",),
    "dod": ("tls:sip.pstnhub.dod.teams.microsoft.us:5061",),
}
"""facts/direct-routing.md 1.1 (Microsoft: direct-routing-plan), in the order to try them."""

TEAMS_RANGES: dict[Cloud, tuple[str, ...]] = {
    "commercial": ("52.112.0.0/14", "52.120.0.0/14"),
    "gcc-high": ("52.127.88.0/21",),
    "dod": ("52.127.64.0/21",),
}
"""facts/direct-routing.md 1.2: calls come from anywhere in these, not only from resolved addresses (T11)."""

TEAMS_NAMES: dict[Cloud, tuple[str, ...]] = {
    "commercial": ("sip.pstnhub.microsoft.com",),
    "gcc-high": ("sip.pstnhub.gov.teams.microsoft.us",),
    "dod": ("sip.pstnhub.dod.teams.microsoft.us",),
}
"""What the proxy's certificate must name (T22)."""


def _callers(value: object) -> object:
    return {"*": value} if isinstance(value, str) else value


class Trunk(Section):
    """[[trunk]]: one SIP peer relation. What is left out follows the kind."""

    name: Name
    kind: TrunkKind = TrunkKind.SIP
    cloud: Cloud = "commercial"
    """direct-routing: which Microsoft cloud the default `peers` and `allow_from` are of."""
    peers: Annotated[tuple[Peer, ...], Field(min_length=1)]
    """Where calls go, tried in order, and (kind sip) who may call."""
    allow_from: tuple[Range, ...] = ()
    """Further addresses calls may come from; direct-routing defaults to Microsoft's signalling ranges."""
    tenants: tuple[Host, ...] = ()
    """direct-routing: our FQDNs as each tenant paired them; the first serves routes that name none."""
    party: PartyType = PartyType.EXTERNAL
    """Who sits behind it; direct-routing is always teams_expert."""
    username: Annotated[str, Field(strict=True, min_length=1)] | None = None
    """Digest credentials for when the peer challenges us."""
    password: Secret | None = None
    realm: Annotated[str, Field(strict=True, min_length=1)] | None = None
    """Answer challenges of this realm only; None = any."""
    domain: Host | None = None
    """Host of From and To toward the peer; None = our own host (From) and the peer's (To, Request-URI)."""
    advertise: Host | None = None
    """Host for Contact and Via on this trunk; None = [sip] advertise. direct-routing uses the tenant."""
    codecs: Annotated[tuple[Literal["PCMA", "PCMU", "G722"], ...], Field(min_length=1)] = (
        "PCMA",
        "PCMU",
        "G722",
    )
    """Allowed, best first."""
    srtp: Flag = False
    """SDES-SRTP on this trunk; direct-routing always has it."""
    caller: Annotated[dict[str, Pattern], BeforeValidator(_callers)] = Field(default_factory=dict)
    """direct-routing: tenant (or "*") -> pattern of the callers it may present (T22); empty = any."""
    max_calls: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Calls at once in both directions; None = no limit of its own."""
    ring_timeout: Seconds = 120.0
    """How long one outgoing call may ring in all, seconds."""
    answer_timeout: Seconds = 10.0
    """How long a peer may stay without any 18x before the next peer is tried, seconds."""
    progress_after: SecondsOrOff = 0.0
    """Seconds until a caller of this trunk is told 180 though the called side has said 100 alone; 0 = never.
    direct-routing defaults to 8: Teams gives up after 10 without an 18x (T24)."""
    max_duration: Seconds = 14400.0
    """Answered calls are ended after so many seconds."""
    session_expires: Annotated[int, Field(strict=True, ge=0, le=86400)] = 1800
    """RFC 4028, seconds; 0 = no session timer of ours. At least 90 otherwise (T25)."""
    min_se: Annotated[int, Field(strict=True, ge=90, le=86400)] = 90
    early_media: Literal["relay", "ringback"] = "relay"
    """183 with sound: pass it on, or keep ringback until the answer (direct-routing default, T12)."""
    nat: Flag = False
    """The peer's SDP address may be false: learn it from the first RTP packets."""
    tcp_switch: Flag = True
    """UDP requests over 1,300 bytes go by TCP (RFC 3261 18.1.1); off for peers that listen on UDP only."""
    reliable_provisional: Literal["never", "when-required", "when-supported"] = "when-required"
    late_offer: Flag = True
    """Accept INVITE without SDP; never from direct-routing."""
    send_replaces: Flag = False
    """direct-routing: keep Replaces in INVITEs after REFER (T28 and facts/direct-routing.md 6.3)."""
    options_interval: SecondsOrOff = 0.0
    """Seconds between our OPTIONS to each peer; 0 = none. direct-routing defaults to 60."""
    options_misses: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    """So many OPTIONS without an answer in a row take a peer out of use until it answers again."""
    tls_names: tuple[Host, ...] = ()
    """A TLS peer's certificate must name one of these; direct-routing defaults to Microsoft's proxy (T22)."""
    refer: Flag = True
    """direct-routing: list REFER in Allow, so that Teams transfers through us (RFC 3515)."""
    advertise_port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = None
    """Port for Contact when a NAT forwards another one; None = the listener's."""
    country_code: Annotated[str, Field(strict=True, pattern=r"^[0-9]{0,3}$")] = ""
    """Digits without +; lets national numbers of this peer become E.164. "" = only E.164 is understood."""
    national_prefix: Annotated[str, Field(strict=True, pattern=r"^[0-9]{0,4}$")] = "0"
    """What this peer dials before a national number."""
    international_prefix: Annotated[str, Field(strict=True, pattern=r"^[0-9]{0,5}$")] = "00"
    """What this peer dials before a country code, where it does not write +."""
    national_length: Annotated[int, Field(strict=True, ge=0, le=14)] = 0
    """Digits of a national number where that is fixed (10 in North America); 0 = not fixed."""
    number_format: Literal["e164", "plain", "national", "as-dialled"] = "as-dialled"
    """How numbers are written toward this peer; direct-routing always wants e164."""
    talk_event: Literal["auto", "always", "never"] = "auto"
    """Answer a ringing telephone by NOTIFY with Event: talk: where its Allow-Events says so, or always."""
    agent_header: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9-]{0,64}$")] = ""
    """kind sip: header of its INVITEs that names the login of the agent who calls; "" = none is believed."""
    ivr_time_header: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9-]{0,64}$")] = ""
    """kind sip: header of its INVITEs with the seconds the caller was in its menu before; "" = none."""
    queue_time_header: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9-]{0,64}$")] = ""
    """kind sip: the same for its queue."""
    trust_identity: Flag = False
    """Tell this peer the number of a caller who withheld it (P-Asserted-Identity, RFC 3325)."""

    @property
    def direct_routing(self) -> bool:
        return self.kind is TrunkKind.DIRECT_ROUTING

    def may_present(self, tenant: str, number: str) -> bool:
        """Whether a caller of `tenant` may present `number` (whole match); True when nothing is said."""
        if not self.caller:
            return True
        pattern = self.caller.get(tenant.lower(), self.caller.get("*"))
        return pattern is not None and pattern.fullmatch(number) is not None

    def admits(self, address: str) -> bool:
        """Whether `allow_from` holds the address (a literal; IPv4 in IPv6 is unwrapped)."""
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self.allow_from)

    @model_validator(mode="before")
    @classmethod
    def _kind_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("kind") != TrunkKind.DIRECT_ROUTING:
            return values
        cloud = values.get("cloud", "commercial")
        if cloud not in TEAMS_PEERS:
            return values
        defaults: dict[str, Any] = {
            "peers": TEAMS_PEERS[cloud],
            "allow_from": TEAMS_RANGES[cloud],
            "party": PartyType.TEAMS_EXPERT,
            "srtp": True,
            "codecs": ("PCMA", "PCMU"),
            "early_media": "ringback",
            "progress_after": 8.0,
            "tcp_switch": False,
            "reliable_provisional": "never",
            "late_offer": False,
            "options_interval": 60.0,
            "number_format": "e164",
            "tls_names": TEAMS_NAMES[cloud],
        }
        return defaults | values

    @model_validator(mode="after")
    def _lower_tenants(self) -> Trunk:
        object.__setattr__(self, "tenants", tuple(tenant.lower() for tenant in self.tenants))
        object.__setattr__(self, "caller", {key.lower(): value for key, value in self.caller.items()})
        return self
