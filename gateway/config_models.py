"""The sections of tandem.toml as frozen models; config/tandem.toml explains each key to the operator.

Checks that need one section only are here; what contradicts what is in `config_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from gateway.config_trunk import Trunk
from gateway.config_types import (
    Address,
    Count,
    Database,
    Engine,
    FilePath,
    Flag,
    Host,
    HttpListen,
    Listen,
    Name,
    Nameserver,
    Pattern,
    Range,
    Seconds,
    SecondsOrOff,
    Secret,
    Section,
    Url,
)


class Gateway(Section):
    """[gateway]: what this installation is called and where it keeps its state."""

    fqdn: Host = "localhost"
    """Our public name; also the tenant of a direct-routing trunk that lists none."""
    state_dir: FilePath = Path("/var/lib/tandem")
    """Journal, SQLite database, spools, the run file of the command line tools. Created when missing."""
    database: Database = SecretStr("")
    """URL as text; empty in the file means SQLite in `state_dir` (see Config.database_url)."""


class Log(Section):
    """[log]: standard error, for journald or a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Sip(Section):
    """[sip]: our listeners, our certificate, our timers."""

    listen: tuple[Listen, ...] = ("udp:127.0.0.1:5060", "tcp:127.0.0.1:5060")
    certificate: FilePath | None = None
    """PEM: our certificate and every intermediate (T7)."""
    private_key: FilePath | None = None
    trusted_roots: FilePath | None = None
    """PEM bundle that TLS peers must chain to; None = the system's store."""
    require_client_certificate: Flag = True
    """Whether a TLS peer that dials us must present a certificate (T22)."""
    advertise: Host | None = None
    """Host for Contact and Via toward plain trunks; None = the listener's own address."""
    user_agent: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[ -~]+$")] = "Tandem"
    t1: Annotated[float, Field(strict=True, ge=0.01, le=5)] = 0.5
    """RFC 3261 17.1.1.1, seconds; T2 and T4 likewise."""
    t2: Annotated[float, Field(strict=True, ge=0.01, le=30)] = 4.0
    t4: Annotated[float, Field(strict=True, ge=0.01, le=30)] = 5.0
    connect_timeout: Seconds = 5.0
    idle_timeout: Seconds = 600.0
    """A stream connection without traffic for so many seconds is closed."""

    @property
    def roots(self) -> Path | None:
        """`trusted_roots`, or Debian's store, or None where there is neither."""
        return self.trusted_roots or (SYSTEM_ROOTS if SYSTEM_ROOTS.exists() else None)


SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Resolver(Section):
    """[resolver]: names. For split-horizon sites, demonstrations and tests."""

    nameservers: tuple[Nameserver, ...] = ()
    """`address` or `address:port`; empty = the system's resolver configuration."""
    hosts: dict[Host, Annotated[tuple[Address, ...], BeforeValidator(_one_or_more)]] = Field(
        default_factory=dict
    )
    """Name -> addresses, asked before DNS."""


class Media(Section):
    """[media]: rtpengine and what it plays."""

    rtpengine: Engine = "embedded"
    """"embedded" starts one (or adopts the one it started earlier); "udp:host:port" uses one that runs."""
    address: Address = "127.0.0.1"
    """Local address of the outside halves of all legs."""
    public_address: Address | None = None
    """What peers are told instead of `address` when a NAT stands between."""
    ports: tuple[Count, Count] = (30000, 39999)
    """First and last UDP port; a call takes eight (two legs, each outside and inside, RTP and RTCP)."""
    music: FilePath | None = None
    """WAV or raw file; None = the music that comes with Tandem."""
    hold_music: Literal["remaining", "alone", "never"] = "remaining"
    join_tone: Flag = False
    """Whether those in a conference hear a short tone when somebody joins."""
    rtp_timeout: SecondsOrOff = 60.0
    """A leg from which no RTP comes for so long, and which is not held, is hung up; 0 = never."""

    @property
    def embedded(self) -> bool:
        return self.rtpengine == "embedded"

    @property
    def call_capacity(self) -> int:
        """Two-party calls that `ports` has room for."""
        return (self.ports[1] - self.ports[0] + 1) // PORTS_PER_CALL


PORTS_PER_CALL = 8
"""facts/media-prototype.md 10: four UDP ports a leg, two legs a call."""


class Token(Section):
    """One bearer token of the control API."""

    name: Name
    secret: Secret
    access: Literal["all", "read"] = "all"
    """"read": it may ask for calls, events and call detail and command nothing."""


class Http(Section):
    """[http]: health, metrics and the control API."""

    listen: HttpListen = "127.0.0.1:8080"
    tokens: tuple[Token, ...] = ()


class Limits(Section):
    """[limits]: what we refuse with 503 before it hurts the calls we have."""

    max_calls: Annotated[int, Field(strict=True, ge=1)] | None = None
    """None = as many as `[media] ports` has room for."""
    calls_per_second: Annotated[float, Field(strict=True, ge=0)] = 50.0
    """New calls a second, averaged over one; 0 = no limit."""
    max_setup_delay: SecondsOrOff = 1.0
    """No new call while one waits longer than this, in seconds, for its caller's media: we or rtpengine are
    overloaded then. 0 = no limit."""
    drain_timeout: SecondsOrOff = 300.0
    """How long SIGTERM waits for the calls that are up."""
    min_free_disk: Annotated[int, Field(strict=True, ge=0)] = 64
    """MiB; with less left in `state_dir` no new call is taken, so that records can still be written."""


class Journal(Section):
    """[journal]: the durable event log."""

    directory: FilePath | None = None
    """None = `journal` in `state_dir` (see Config.journal_dir)."""


class Webhook(Section):
    """[cdr.webhook], [web_chat.webhook]: each row or event as a signed POST."""

    url: Url
    secret: Secret
    """Key of the HMAC-SHA256 signature."""
    timeout: Seconds = 10.0


class Cdr(Section):
    """[cdr]: where call detail goes besides the database, which always gets it."""

    json_lines: FilePath | None = None
    """Folder for one JSON Lines file a day; None = none are written."""
    webhook: Webhook | None = None


class WebChat(Section):
    """[web_chat]: customers' web chats that a Teams expert may join; needs [graph]."""

    webhook: Webhook | None = None
    """Where the contact center's chat server is told what is written; None = it asks."""


class Route(Section):
    """[[route]]: the first whose `from` and `number` fit decides."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    source: Annotated[str, Field(strict=True, alias="from")]
    """Name of the trunk the call comes from (the file's key is `from`)."""
    number: Pattern = Field(default=".*", validate_default=True)
    """Must match the whole called number."""
    to: Annotated[str, Field(strict=True)]
    """Name of the trunk the call goes to."""
    rewrite: Annotated[str, Field(strict=True)] | None = None
    """Template of the number sent on (`re.Match.expand`: \\1, \\g<name>); None = unchanged."""
    tenant: Host | None = None
    """Which FQDN a direct-routing `to` uses; None = its first."""
    from_tenant: Host | None = None
    """Only calls that a direct-routing `from` received under this FQDN; None = under any."""


class Agent(Section):
    """[[agent]]: who is an agent, and by which numbers a leg is recognised as theirs."""

    login: Annotated[str, Field(strict=True, min_length=1, max_length=254)]
    name: Annotated[str, Field(strict=True)] = ""
    team: Annotated[str, Field(strict=True)] = ""
    numbers: tuple[Annotated[str, Field(strict=True, min_length=1)], ...] = ()
    teams_user: Annotated[str, Field(strict=True, min_length=1)] | None = None
    """Object id or user principal name in Entra ID."""
    after_call_work: SecondsOrOff | None = None
    """Seconds; None = the team's, else everybody's (see AgentRules)."""


Reason = Annotated[str, Field(strict=True, min_length=1, max_length=100)]


class AgentRules(Section):
    """[agent_states]: what holds for all agents."""

    not_ready_reasons: tuple[Reason, ...] = ("Break", "Lunch", "Meeting", "Training")
    """What a person may give as the reason; systems have their own."""
    after_call_work: SecondsOrOff = 0.0
    """Seconds after an agent's last call before he gets his state back; 0 = at once."""
    team_after_call_work: dict[str, SecondsOrOff] = Field(default_factory=dict)
    """Team -> seconds, where a team's differ."""
    page_grace: Seconds = 30.0
    """How long a call waits for a desktop page that is gone: a reload picks it up again."""


RoleName = Literal["agent", "supervisor", "administrator"]


def _entra_roles() -> dict[str, RoleName]:
    return {"supervisor": "supervisor", "administrator": "administrator"}


class SignIn(Section):
    """[sign_in]: how people come to the desktop; programs have the tokens of [http]."""

    local: Flag = True
    """Accounts made with `tandem account add`."""
    entra: Flag = False
    """Microsoft Entra ID; needs [graph] and `public_url`."""
    public_url: Url | None = None
    """What people type into the browser; None = what the request says."""
    entra_roles: dict[str, RoleName] = Field(default_factory=_entra_roles)
    """App role of the Entra application -> role here. Whoever is an [[agent]]'s teams_user is an agent."""
    idle_timeout: Seconds = 3600.0
    """A session that asks for nothing ends after so many seconds."""
    longest: Seconds = 43200.0
    """And every session after so many."""
    failures: Annotated[int, Field(strict=True, ge=1, le=1000)] = 10
    """Failed sign-ins of an account in 15 minutes before it must wait; an address has five times as many."""
    trusted_proxies: tuple[Range, ...] = ()
    """Whose X-Forwarded-For and X-Forwarded-Proto are believed."""


class Graph(Section):
    """[graph]: Microsoft Entra ID and Graph."""

    tenant: Annotated[str, Field(strict=True, min_length=1)]
    client_id: Annotated[str, Field(strict=True, min_length=1)]
    client_secret: Secret
    authority: Url = "https://login.microsoftonline.com"
    trusted_roots: FilePath | None = None
    """PEM bundle that the authority must chain to; None = the well-known ones."""
    root: Url = "https://graph.microsoft.com/v1.0"
    object_id: Annotated[str, Field(strict=True)] = ""
    secret_expires: date | None = None
    """Last day of `client_secret`; a warning begins 15 days before."""
    public_url: Url | None = None
    """Under which Microsoft and browsers reach [http]; None = the one of [sign_in]."""
    attendant: Annotated[str, Field(strict=True)] = ""
    """Number of the Teams auto attendant, for experts without a phone licence."""
    attendant_digits: Annotated[str, Field(strict=True, pattern=r"^([0-9*#,]|\{user\})*$")] = ""
    """Sent after it answered; {user} = the expert's user name on a keypad."""
    busy: Literal["calls", "meetings"] = "calls"
    """"meetings": meetings, group calls and presenting in Teams make an agent Not Ready too."""
    busy_marker: Flag = False
    """While Busy, show a conference call in Teams, which our own state can be told by."""


class Probe(Section):
    """[probe]: what `tandem probe` does when it is not told otherwise, and what passes."""

    agent: Annotated[str, Field(strict=True, min_length=1)] | None = None
    """Login of the agent that the call is placed for."""
    number: Annotated[str, Field(strict=True, min_length=1)] | None = None
    """A number that sends back what it hears."""
    max_setup: Seconds = 10.0
    max_delay: Seconds = 400.0
    """Milliseconds, one way."""
    max_loss: SecondsOrOff = 2.0
    """Percent."""
    min_mos: SecondsOrOff = 3.5


class Config(Section):
    """The whole file. `trunks`, `routes` and `agents` are [[trunk]], [[route]] and [[agent]] in it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    gateway: Gateway = Field(default_factory=Gateway)
    log: Log = Field(default_factory=Log)
    sip: Sip = Field(default_factory=Sip)
    resolver: Resolver = Field(default_factory=Resolver)
    media: Media = Field(default_factory=Media)
    http: Http = Field(default_factory=Http)
    limits: Limits = Field(default_factory=Limits)
    journal: Journal = Field(default_factory=Journal)
    cdr: Cdr = Field(default_factory=Cdr)
    web_chat: WebChat = Field(default_factory=WebChat)
    trunks: tuple[Trunk, ...] = Field(default=(), alias="trunk")
    routes: tuple[Route, ...] = Field(default=(), alias="route")
    agents: tuple[Agent, ...] = Field(default=(), alias="agent")
    agent_states: AgentRules = Field(default_factory=AgentRules)
    sign_in: SignIn = Field(default_factory=SignIn)
    probe: Probe = Field(default_factory=Probe)
    graph: Graph | None = None

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL without a driver; may hold a password, so never log it."""
        written = self.gateway.database.get_secret_value()
        return written or f"sqlite:///{self.gateway.state_dir / 'tandem.db'}"

    @property
    def journal_dir(self) -> Path:
        return self.journal.directory or self.gateway.state_dir / "journal"

    @property
    def max_calls(self) -> int:
        return self.limits.max_calls or self.media.call_capacity

    def trunk(self, name: str) -> Trunk:
        """The trunk of that name; KeyError when there is none."""
        for trunk in self.trunks:
            if trunk.name == name:
                return trunk
        raise KeyError(name)

    def secrets(self) -> Iterator[str]:
        """Every secret value, for the log filter."""
        yield from _secrets(self)


def _secrets(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        if text and not text.startswith("sqlite:"):
            yield text
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _secrets(item)
