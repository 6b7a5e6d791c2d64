"""The values that tandem.toml is made of: endpoints, names, numbers, secrets, files, ranges.

Each refuses with a `problem` that names what is wrong and a `cure` that says what to write instead.
Relative paths are taken from the folder of the configuration file (validation context key `base`).
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, Strict, ValidationInfo
from pydantic_core import PydanticCustomError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
Kind = Literal["udp", "tcp", "tls"]
_KINDS: dict[str, Kind] = {"udp": "udp", "tcp": "tcp", "tls": "tls"}


def refusal(problem: str, cure: str = "") -> PydanticCustomError:
    """The error a validator raises; `gateway.config` turns it into a ConfigError with its line."""
    return PydanticCustomError("tandem", "{problem}", {"problem": problem, "cure": cure})


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` -> (host, port); ValueError when it is neither."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets")
    if not colon or not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not host:port")
    return host, int(port)


def split_endpoint(text: str) -> tuple[Kind, str, int]:
    """`udp:host:port` -> (kind, host, port); ValueError when it is not that."""
    kind, _, rest = text.partition(":")
    if kind not in _KINDS:
        raise ValueError(f"{text!r} does not start with udp:, tcp: or tls:")
    host, port = split_address(rest)
    return _KINDS[kind], host, port


def is_address(host: str) -> bool:
    """True for an IPv4 or IPv6 literal."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_host_name(host: str) -> bool:
    """True for a DNS host name (RFC 1123; underscores tolerated, at most 253 characters)."""
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise refusal("this is a text", 'write it in quotes: "..."')
    return value


def _host(value: object) -> str:
    text = _text(value)
    if is_address(text) or (is_host_name(text) and not re.fullmatch(r"[0-9.]+", text)):
        return text
    raise refusal(f"{text!r} is neither a host name nor an address")


def _address(value: object) -> str:
    text = _text(value)
    if is_address(text):
        return text
    raise refusal(f"{text!r} is not an IP address", "media addresses are numbers, not names")


def _endpoint(value: object) -> str:
    text = _text(value)
    try:
        _, host, _ = split_endpoint(text)
    except ValueError as error:
        raise refusal(str(error), 'like "udp:192.0.2.10:5060" or "tls:sip.example.com:5061"') from None
    _host(host)
    return text


def _listen(value: object) -> str:
    text = _endpoint(value)
    _, host, _ = split_endpoint(text)
    if not is_address(host):
        raise refusal(f"{host!r} is a name", "listen on an address of this machine")
    return text


def _addressed(value: object) -> str:
    text = _endpoint(value)
    if split_endpoint(text)[2] == 0:
        raise refusal(f"{text!r} has no port", "5060, or 5061 for tls")
    return text


def _peer(value: object) -> str:
    """As `_addressed`; a name may stand without a port: then SRV says where it is (RFC 3263 4.2)."""
    text = _text(value)
    kind, _, host = text.partition(":")
    if kind not in _KINDS or ":" in host or not is_host_name(host) or is_address(host):
        return _addressed(text)
    _host(host)
    return text


def _tcp_listen(value: object) -> str:
    text = _text(value)
    try:
        host, _ = split_address(text)
    except ValueError as error:
        raise refusal(str(error), 'like "127.0.0.1:8080"') from None
    return _host(host) and text


def _engine(value: object) -> str:
    text = _text(value)
    if text == "embedded":
        return text
    if not text.startswith("udp:") or split_endpoint(_addressed(text))[0] != "udp":
        raise refusal(
            f"{text!r} is no rtpengine",
            '"embedded", or "udp:127.0.0.1:2223" where one listens for ng commands',
        )
    return text


def _name(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", text):
        raise refusal(f"{text!r} cannot be a name", "letters, digits, '.', '_' and '-', at most 63")
    return text


def _url(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", text):
        raise refusal(
            "this is no http or https URL (user:password@ is not allowed in it)", "like https://host/path"
        )
    return text


def _nameserver(value: object) -> str:
    text = _text(value)
    host = text
    if not is_address(text):
        try:
            host, _ = split_address(text)
        except ValueError:
            host = ""
    if not is_address(host):
        raise refusal(f"{text!r} is no name server's address", 'like "192.0.2.53" or "127.0.0.1:5353"')
    return text


def _network(value: object) -> Network:
    text = _text(value)
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise refusal(str(error), 'like "192.0.2.0/24" or "192.0.2.7"') from None


def _pattern(value: object) -> re.Pattern[str]:
    text = _text(value)
    try:
        return re.compile(text)
    except re.error as error:
        at = f" at character {error.pos + 1}" if error.pos is not None else ""
        raise refusal(
            f"bad regular expression {text!r}: {error.msg}{at}",
            "TOML's single quotes keep backslashes: '\\+49.*'",
        ) from None


def _base(info: ValidationInfo) -> Path:
    context: dict[str, Any] = info.context or {}
    return Path(context.get("base", "."))


def _path(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    text = _text(value)
    if not text:
        raise refusal("the path is empty", "remove the key to get its default")
    return Path(os.path.abspath(_base(info) / Path(text).expanduser()))


def reveal(text: str, base: Path) -> str:
    """What `env:NAME` or `file:PATH` stands for; a refusal that never repeats the text if it is neither."""
    kind, _, name = text.partition(":")
    if kind == "env" and name:
        found = os.environ.get(name, "")
        if not found:
            raise refusal(f"the environment variable {name} is not set", "set it, or use file:PATH")
        return found
    if kind == "file" and name:
        path = base / Path(name).expanduser()
        try:
            found = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a text file"
            raise refusal(f"cannot read the secret from {path}: {why}") from None
        if not found:
            raise refusal(f"the secret file {path} is empty")
        return found
    raise refusal(
        "a secret is written into the file", 'write "env:NAME" or "file:PATH" and keep the secret there'
    )


def _secret(value: object, info: ValidationInfo) -> SecretStr:
    if isinstance(value, SecretStr):
        return value
    return SecretStr(reveal(_text(value), _base(info)))


def _database(value: object, info: ValidationInfo) -> SecretStr:
    if isinstance(value, SecretStr):
        return value
    text = _text(value)
    if text.startswith(("env:", "file:")):
        return SecretStr(reveal(text, _base(info)))
    scheme, slashes, rest = text.partition("://")
    if not slashes or scheme not in ("sqlite", "postgresql"):
        raise refusal(
            "the database is neither sqlite:/// nor postgresql://",
            '"sqlite:///tandem.db", "postgresql://host/name" or "env:NAME" holding one',
        )
    if scheme == "sqlite":
        if not rest.startswith("/") or rest == "/":
            raise refusal("the sqlite database has no file", '"sqlite:///tandem.db" has three slashes')
        return SecretStr(f"sqlite:///{os.path.abspath(_base(info) / rest[1:])}")
    if re.match(r"[^/@]*:[^/@]*@", rest):
        raise refusal(
            "a password is written into the database URL",
            'put the whole URL elsewhere: database = "env:NAME" or "file:PATH"',
        )
    return SecretStr(text)


Count = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Seconds = Annotated[float, Strict(), Field(gt=0, le=7 * 86400)]
SecondsOrOff = Annotated[float, Strict(), Field(ge=0, le=7 * 86400)]
Host = Annotated[str, BeforeValidator(_host)]
Address = Annotated[str, BeforeValidator(_address)]
Listen = Annotated[str, BeforeValidator(_listen)]
Peer = Annotated[str, BeforeValidator(_peer)]
HttpListen = Annotated[str, BeforeValidator(_tcp_listen)]
Nameserver = Annotated[str, BeforeValidator(_nameserver)]
Range = Annotated[Network, BeforeValidator(_network)]
Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]
FilePath = Annotated[Path, BeforeValidator(_path)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Database = Annotated[SecretStr, BeforeValidator(_database)]
Name = Annotated[str, BeforeValidator(_name)]
Url = Annotated[str, BeforeValidator(_url)]
Engine = Annotated[str, BeforeValidator(_engine)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
