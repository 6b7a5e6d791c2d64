"""The session descriptions we send: one audio stream and nothing that was not asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.sip.sdp import Codec, Direction, MediaLine

PTIME = 20
"""Milliseconds in each of our packets."""


@dataclass(frozen=True, slots=True)
class Description:
    """Everything one description of ours says; `text()` is it on the wire.

    address, port: ours, exactly as the configuration advertises them
    crypto:        value of the one a=crypto line, None for plain RTP
    profile:       of the m= line; answers repeat the offer's
    rtcp_port:     0 for the port above `port`; with rtcp_mux in an offer that is where RTCP goes if refused
    media, index:  the m-lines of the offer this answers and our place among them; the others are refused with
                   port 0 (RFC 3264 6)
    """

    address: str
    port: int
    codecs: tuple[Codec, ...]
    telephone_event: int | None = None
    direction: Direction = Direction.SENDRECV
    profile: str = "RTP/AVP"
    crypto: str | None = None
    rtcp_port: int = 0
    rtcp_mux: bool = False
    session_id: int = 0
    version: int = 0
    media: tuple[MediaLine, ...] = ()
    index: int = 0

    def text(self) -> bytes:
        """The description, lines ended by CRLF."""
        family = "IP6" if ":" in self.address else "IP4"
        lines = [
            "v=0",
            f"o=- {self.session_id} {self.version} IN {family} {self.address}",
            "s=-",
            f"c=IN {family} {self.address}",
            "t=0 0",
        ]
        for place, line in enumerate(self.media or (None,)):
            if place == self.index or line is None:
                lines += self._audio()
            else:
                lines.append(f"m={line.media} 0 {line.profile} {line.formats}")
        return "".join(line + "\r\n" for line in lines).encode("utf-8", "replace")

    def _audio(self) -> list[str]:
        formats = [codec.payload_type for codec in self.codecs]
        maps = [f"a=rtpmap:{codec.payload_type} {codec.rtpmap}" for codec in self.codecs]
        if self.telephone_event is not None:
            formats.append(self.telephone_event)
            maps += [
                f"a=rtpmap:{self.telephone_event} telephone-event/8000",
                f"a=fmtp:{self.telephone_event} 0-16",
            ]
        lines = [f"m=audio {self.port} {self.profile} {' '.join(map(str, formats))}", *maps]
        lines += [f"a=ptime:{PTIME}", f"a={self.direction}"]
        if self.crypto is not None:
            lines.append(f"a=crypto:{self.crypto}")
        lines.append(f"a=rtcp:{self.rtcp_port or self.port + 1}")
        return [*lines, "a=rtcp-mux"] if self.rtcp_mux else lines


def stamp_origin(description: Description, previous: Description | None) -> Description:
    """Give it the session id and version of `previous`, the version raised by one only when anything differs.

    RFC 3264 8: an unchanged description keeps its version; Teams re-keys or hangs up otherwise (T15, T16).
    """
    if previous is None:
        return description
    same = replace(description, session_id=previous.session_id, version=previous.version)
    comparable = replace(same, media=previous.media, index=previous.index)
    return same if comparable == previous else replace(same, version=previous.version + 1)
