"""Session descriptions (RFC 4566) read for the one thing the gateway does: a single audio stream.

Parsing is lenient in form (bare LF, attributes in any order, unknown lines) and strict in what is used. The
only exception that leaves this module is `SdpError`: 400 for text that is no session description, 488 for one
that is, but cannot work here. Nothing here decides whether a description is *wanted*: see `sdp_policy`.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gateway.errors import SdpError

MAX_BODY = 65536
"""Bytes; a longer body is refused before it is looked at."""


class Codec(StrEnum):
    """What the gateway understands; the value is the name in rtpmap, logs and call detail."""

    PCMA = "PCMA"
    PCMU = "PCMU"
    G722 = "G722"

    @property
    def payload_type(self) -> int:
        """RFC 3551 table 4; these three are never used under another number."""
        return _PAYLOAD_TYPES[self]

    @property
    def rtpmap(self) -> str:
        """Encoding name and clock; G.722 says 8000 although it samples at 16000 (RFC 3551 4.5.2)."""
        return f"{self.value}/8000"


_PAYLOAD_TYPES = {Codec.PCMU: 0, Codec.PCMA: 8, Codec.G722: 9}
_BY_PAYLOAD_TYPE = {number: codec for codec, number in _PAYLOAD_TYPES.items()}


class Direction(StrEnum):
    """RFC 4566 6, seen from the one whose description it is."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"


SUITE = "AES_CM_128_HMAC_SHA1_80"
"""The one SRTP suite the gateway uses (facts: direct-routing section 4)."""
KEY_LENGTH = 30
"""Bytes of master key and salt together in that suite (RFC 4568 6.2)."""


@dataclass(frozen=True, slots=True)
class CryptoLine:
    """One `a=crypto` (RFC 4568 9.1).

    key_params: as received, e.g. `inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:4`
    key:        the base64 text of the first key alone
    lifetime:   packets, or None; mki: (value, length in bytes), or None
    session_params: what follows the key, as received
    """

    tag: int
    suite: str
    key_params: str
    key: str
    lifetime: int | None = None
    mki: tuple[int, int] | None = None
    session_params: str = ""

    @property
    def key_bytes(self) -> bytes | None:
        """The key and salt, or None when the text is not base64."""
        try:
            return base64.b64decode(self.key + "=" * (-len(self.key) % 4), validate=True)
        except (binascii.Error, ValueError):
            return None


class MediaLine(NamedTuple):
    """An `m=` line: `formats` as received."""

    media: str
    port: int
    profile: str
    formats: str


@dataclass(frozen=True, slots=True)
class AudioDescription:
    """The audio stream of a description.

    codecs:          (payload type, codec) in the sender's order of preference, only those we know
    telephone_event: payload type of telephone-event/8000, or None
    direction:       as the description says it (default sendrecv)
    held:            it puts the receiver on hold: inactive, sendonly or the address 0.0.0.0 (RFC 3264 8.4)
    rtcp_port:       of `a=rtcp`, None when not given; rtcp_mux: RFC 5761
    media:           all m-lines in order; `index` is the place of this stream among them
    """

    address: str
    port: int
    profile: str
    codecs: tuple[tuple[int, Codec], ...]
    telephone_event: int | None = None
    direction: Direction = Direction.SENDRECV
    crypto: tuple[CryptoLine, ...] = ()
    ptime: int | None = None
    held: bool = False
    session_id: str = "0"
    version: int = 0
    rtcp_port: int | None = None
    rtcp_mux: bool = False
    media: tuple[MediaLine, ...] = ()
    index: int = 0

    @property
    def ipv6(self) -> bool:
        return ":" in self.address

    @property
    def secure(self) -> bool:
        """The profile is one of SRTP (RTP/SAVP, RTP/SAVPF, UDP/TLS/RTP/SAVP…)."""
        return "SAVP" in self.profile


def parse_description(body: bytes) -> AudioDescription:
    """The audio stream that `body` describes: its first m=audio line that has a port.

    Raises SdpError: 400 (not a session description), 488 (no audio, port 0, host name or multicast in c=).
    """
    if len(body) > MAX_BODY:
        raise SdpError(400, "session description is longer than 64 KiB")
    session, sections = _split(_lines(body))
    session_id, version = _origin(session)
    media = tuple(_media_line(section[0][1]) for section in sections)
    audio = [index for index, line in enumerate(media) if line.media == "audio"]
    if not audio:
        raise SdpError(488, "no audio in the session description")
    index = next((i for i in audio if media[i].port), audio[0])
    chosen, section = media[index], sections[index][1:]
    if chosen.port == 0:
        raise SdpError(488, "audio is offered with port 0")
    address = _connection(section) or _connection(session)
    if address is None:
        raise SdpError(400, "no c= line for the audio stream")
    attributes = _attributes(section)
    codecs, event = _codecs(chosen.formats, attributes)
    direction = _direction(attributes) or _direction(_attributes(session)) or Direction.SENDRECV
    return AudioDescription(
        address=address,
        port=chosen.port,
        profile=chosen.profile,
        codecs=codecs,
        telephone_event=event,
        direction=direction,
        crypto=tuple(
            line for name, value in attributes if name == "crypto" and (line := _crypto(value)) is not None
        ),
        ptime=_ptime(attributes),
        held=direction in (Direction.INACTIVE, Direction.SENDONLY) or _unspecified(address),
        session_id=session_id,
        version=version,
        rtcp_port=_rtcp_port(attributes),
        rtcp_mux=any(name == "rtcp-mux" for name, _ in attributes),
        media=media,
        index=index,
    )


def printable(text: str, limit: int = 40) -> str:
    """`text` made safe for a Warning or Reason: ASCII, no quotes or backslashes, at most `limit` long."""
    safe = "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text[:limit])
    return safe + ("..." if len(text) > limit else "")


_Line = tuple[str, str]
_Attributes = list[tuple[str, str]]


def _lines(body: bytes) -> list[_Line]:
    text = body.decode("utf-8", "replace")
    lines: list[_Line] = []
    for raw in re.split(r"\r\n|\n|\r", text):
        if not raw.strip(" \t\0"):
            continue
        if len(raw) < 2 or raw[1] != "=" or not ("a" <= raw[0].lower() <= "z"):
            raise SdpError(400, f"not a line of a session description: {printable(raw)}")
        lines.append((raw[0], raw[2:].strip()))
    if not lines or lines[0] != ("v", "0"):
        raise SdpError(400, "session description does not begin with v=0")
    return lines


def _split(lines: list[_Line]) -> tuple[list[_Line], list[list[_Line]]]:
    """Session-level lines, and one list for each m= line, beginning with it."""
    session: list[_Line] = []
    sections: list[list[_Line]] = []
    for line in lines:
        if line[0] == "m":
            sections.append([line])
        elif sections:
            sections[-1].append(line)
        else:
            session.append(line)
    return session, sections


def _origin(session: list[_Line]) -> tuple[str, int]:
    value = next((value for name, value in session if name == "o"), None)
    if value is None:
        raise SdpError(400, "no o= line")
    fields = value.split()
    if len(fields) < 6 or _number(fields[2], 20) is None:
        raise SdpError(400, f"malformed o= line: {printable(value)}")
    return fields[1], int(fields[2])


def _media_line(value: str) -> MediaLine:
    fields = value.split(None, 3)
    if len(fields) < 4:
        raise SdpError(400, f"malformed m= line: {printable(value)}")
    port = _number(fields[1].partition("/")[0], 5)
    if port is None or port > 65535:
        raise SdpError(400, f"malformed port in m= line: {printable(value)}")
    return MediaLine(fields[0].lower(), port, fields[2].upper(), fields[3])


def _connection(lines: Iterable[_Line]) -> str | None:
    value = next((value for name, value in lines if name == "c"), None)
    if value is None:
        return None
    fields = value.split()
    if len(fields) != 3 or fields[0].upper() != "IN" or fields[1].upper() not in ("IP4", "IP6"):
        raise SdpError(400, f"malformed c= line: {printable(value)}")
    text, slash, _ = fields[2].partition("/")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\.?", text) and re.search(r"[A-Za-z]", text):
            raise SdpError(488, f"host name instead of an address in c= line: {printable(text)}") from None
        raise SdpError(400, f"malformed address in c= line: {printable(text)}") from None
    if slash or address.is_multicast:
        raise SdpError(488, "multicast audio is not supported")
    if (address.version == 6) != (fields[1].upper() == "IP6"):
        raise SdpError(400, f"address family and address differ in c= line: {printable(value)}")
    if "%" in text:
        raise SdpError(488, "scoped IPv6 address in c= line")
    return str(address)


def _attributes(lines: Iterable[_Line]) -> _Attributes:
    found: _Attributes = []
    for name, value in lines:
        if name == "a":
            key, _, text = value.partition(":")
            found.append((key.strip().lower(), text.strip()))
    return found


def _codecs(formats: str, attributes: _Attributes) -> tuple[tuple[tuple[int, Codec], ...], int | None]:
    maps: dict[int, str] = {}
    for name, value in attributes:
        if name == "rtpmap":
            number, _, encoding = value.partition(" ")
            payload_type = _number(number, 3)
            if payload_type is not None:
                maps.setdefault(payload_type, encoding.strip().upper())
    codecs: list[tuple[int, Codec]] = []
    event: int | None = None
    for text in formats.split():
        payload_type = _number(text, 3)
        if payload_type is None or payload_type > 127:
            raise SdpError(400, f"malformed payload type in m= line: {printable(text)}")
        encoding = maps.get(payload_type, "")
        codec = _BY_PAYLOAD_TYPE.get(payload_type)
        if codec is not None and encoding.partition("/")[0] in ("", codec.value):
            if (payload_type, codec) not in codecs:
                codecs.append((payload_type, codec))
        elif encoding.startswith("TELEPHONE-EVENT/8000") and event is None:
            event = payload_type
    return tuple(codecs), event


def _direction(attributes: _Attributes) -> Direction | None:
    names = {str(direction) for direction in Direction}
    return next((Direction(name) for name, _ in attributes if name in names), None)


def _ptime(attributes: _Attributes) -> int | None:
    value = next((_number(value, 3) for name, value in attributes if name == "ptime"), None)
    return value if value and value <= 200 else None


def _rtcp_port(attributes: _Attributes) -> int | None:
    value = next((value for name, value in attributes if name == "rtcp"), None)
    port = _number(value.split()[0], 5) if value else None
    return port if port and port <= 65535 else None


_CRYPTO = re.compile(
    r"(?P<tag>[0-9]{1,9})\s+(?P<suite>[A-Za-z0-9_]{1,64})\s+(?P<key>\S+)(?:\s+(?P<params>.*))?"
)


def _crypto(value: str) -> CryptoLine | None:
    """Tag 0, lifetimes as `2^31` or a number, MKI `1:1`, several keys, unknown suites: all taken (T13).

    A line that cannot be read is passed over: another one may do, and where none does the policy says so.
    """
    match = _CRYPTO.fullmatch(value)
    if match is None:
        return None
    method, _, info = match["key"].partition(";")[0].partition(":")
    key, *rest = info.split("|")
    lifetime: int | None = None
    mki: tuple[int, int] | None = None
    for field in rest:
        if pair := re.fullmatch(r"([0-9]{1,38}):([0-9]{1,3})", field):
            mki = (int(pair[1]), int(pair[2]))
        elif power := re.fullmatch(r"2\^([0-9]{1,2})", field):
            lifetime = 2 ** int(power[1])
        elif re.fullmatch(r"[0-9]{1,20}", field):
            lifetime = int(field)
        else:
            return None
    if method.lower() != "inline" or (mki is not None and not 1 <= mki[1] <= 128):
        return None
    return CryptoLine(
        int(match["tag"]), match["suite"].upper(), match["key"], key, lifetime, mki, match["params"] or ""
    )


def _unspecified(address: str) -> bool:
    return ipaddress.ip_address(address).is_unspecified


def _number(text: str, digits: int) -> int | None:
    """A decimal number of at most so many ASCII digits, or None."""
    return int(text) if re.fullmatch(f"[0-9]{{1,{digits}}}", text) else None
