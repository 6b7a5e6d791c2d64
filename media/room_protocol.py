"""What the gateway and a conference room say to each other: one JSON object a line, both ways.

    room    -> {"hello": pid}                                 first line on every connection
    gateway -> {"id": 7, "do": "place", "port": "leg…", "remote": 41000, "codec": "PCMA"}
    room    -> {"id": 7, "ok": {"local": 52110}}              or {"id": 7, "error": "no stream is free"}

A *port* is what the mixer connects: a leg, or a link to another room. Its name is chosen by the gateway.
Commands are carried out one after the other in the order sent.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar

CODECS = {"PCMU": 0, "PCMA": 8, "G722": 9}
"""Codecs of a room's inside half and their static payload types (RFC 3551 6)."""

LINE_LIMIT = 1 << 22
"""Bytes a line may have: the matrix of thirty parties with real leg ids is beyond asyncio's 64 KiB."""
PRIVATE_DIRECTORY = "tandem-room-"
"""Prefix of a temporary directory that holds one room's socket and goes with it."""


class RoomProtocolError(ValueError):
    """A line that is not a command or reply of this protocol."""


@dataclass(frozen=True, slots=True)
class Place:
    """Give `port` a stream and send its sound to 127.0.0.1:`remote`; reply {"local": our RTP port}.

    remote 0 only reserves: nothing is sent until the port is placed again. Placing it again with another
    remote port or codec re-points it and keeps the local port.
    """

    verb: ClassVar[str] = "place"
    port: str
    remote: int
    codec: str = "PCMA"


@dataclass(frozen=True, slots=True)
class Remove:
    """Free the stream of `port` at once; unknown names are fine."""

    verb: ClassVar[str] = "remove"
    port: str


@dataclass(frozen=True, slots=True)
class Wire:
    """The whole truth about who hears what: (source, sink) pairs and those who hear the music.

    Names without a stream yet are remembered and connected when they are placed.
    """

    verb: ClassVar[str] = "wire"
    pairs: tuple[tuple[str, str], ...]
    music: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tone:
    """One beep of `hz` for `ms` milliseconds to these ports (the announcement that somebody joined)."""

    verb: ClassVar[str] = "tone"
    ports: tuple[str, ...]
    hz: int = 880
    ms: int = 200


@dataclass(frozen=True, slots=True)
class Stats:
    """Reply: port name -> {"received", "sent", "lost", "discarded": packets, "jitter_ms": float}."""

    verb: ClassVar[str] = "stats"


@dataclass(frozen=True, slots=True)
class Ping:
    """Reply {}: the room's one thread still turns."""

    verb: ClassVar[str] = "ping"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Reply {}, then the process ends at once; every port falls silent."""

    verb: ClassVar[str] = "shutdown"


Command = Place | Remove | Wire | Tone | Stats | Ping | Shutdown
_COMMANDS: dict[str, type[Command]] = {
    cls.verb: cls for cls in (Place, Remove, Wire, Tone, Stats, Ping, Shutdown)
}


def encode_command(number: int, command: Command) -> bytes:
    return _line({"id": number, "do": command.verb, **dataclasses.asdict(command)})


def decode_command(line: bytes) -> tuple[int, Command]:
    """Inverse of `encode_command`; RoomProtocolError says what is wrong."""
    record = decode_object(line)
    cls = _COMMANDS.get(str(record.get("do")))
    if cls is None or not isinstance(record.get("id"), int):
        raise RoomProtocolError(f"no such command: {record.get('do')!r}")
    values = {key: value for key, value in record.items() if key not in ("id", "do")}
    try:
        return int(record["id"]), _checked(cls(**values))
    except (TypeError, ValueError) as error:
        raise RoomProtocolError(f"{cls.verb}: {error}") from error


def _checked(command: Command) -> Command:
    """The command with its tuples restored (JSON has only lists); ValueError or TypeError when it is off."""
    match command:
        case Place(remote=remote, codec=codec):
            if codec not in CODECS:
                raise ValueError(f"codec {codec!r}")
            if not isinstance(remote, int) or not 0 <= remote <= 0xFFFF:
                raise ValueError(f"port {remote!r}")
        case Wire(pairs, music):
            return Wire(tuple((str(a), str(b)) for a, b in pairs), tuple(map(str, music)))
        case Tone(ports, hz, ms):
            return Tone(tuple(map(str, ports)), int(hz), int(ms))
    return command


def encode_reply(number: int, *, ok: dict[str, Any] | None = None, error: str = "") -> bytes:
    return _line({"id": number, "error": error} if error else {"id": number, "ok": ok or {}})


def decode_object(line: bytes) -> dict[str, Any]:
    """One line as an object; RoomProtocolError when it is none."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise RoomProtocolError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise RoomProtocolError("not an object")
    return record


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
