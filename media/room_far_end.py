"""The far end of a room's SIP calls: answers INVITE with the remote ports it is told, BYE with 200.

pjsua2 creates a stream only inside a SIP call, so the room calls this responder, which lives in the same
process and thread, over loopback UDP. One call carries many audio lines; a line's remote port is changed by
letting pjsua2 re-offer and answering with the present table. Nothing of it is visible outside the room.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import cast

from media.room_protocol import CODECS

_COPIED = re.compile(r"^(via|v|from|f|call-id|i|cseq|record-route)\s*:", re.IGNORECASE)
_TO = re.compile(r"^(to|t)\s*:", re.IGNORECASE)
_AUDIO = re.compile(r"^m=audio (\d+)", re.MULTILINE)
_USER = re.compile(r"sip:([^@;>\s]+)@")


@dataclass(slots=True)
class Line:
    """One audio line of a call: remote 0 is parked (inactive), local is pjsua2's RTP port once offered."""

    remote: int = 0
    codec: str = "PCMA"
    local: int = 0


class FarEnd(asyncio.DatagramProtocol):
    """`port` is where it is bound; `calls` maps the user part of a called URI to its lines, which are read at
    every offer."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.calls: dict[str, list[Line]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self.answer(data.decode("utf-8", "replace"))
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer.encode(), addr)

    def error_received(self, exc: Exception) -> None:
        """ICMP errors mean that pjsua2's socket is gone, and this process with it."""

    def answer(self, text: str) -> str | None:
        """The response to one request of our own pjsua2; None for ACKs, responses and anything odd."""
        head, _, offer = text.partition("\r\n\r\n")
        start, *headers = head.split("\r\n")
        method = start.split(" ", 1)[0]
        to = next((header for header in headers if _TO.match(header)), None)
        user = _USER.search(to or "")
        if method in ("ACK", "") or method.startswith("SIP/") or to is None or user is None:
            return None
        lines = self.calls.get(user[1])
        if lines is None:
            return self._response("404 Not Found", headers, to, user[1])
        if method != "INVITE":
            return self._response("200 OK", headers, to, user[1])
        for line, local in zip(lines, _AUDIO.findall(offer), strict=False):
            line.local = int(local)
        return self._response("200 OK", headers, to, user[1], describe(lines))

    def _response(self, status: str, headers: list[str], to: str, user: str, body: str = "") -> str:
        tagged = to if ";tag=" in to else f"{to};tag=far"
        contact = f"Contact: <sip:{user}@127.0.0.1:{self.port}>"
        lines = [f"SIP/2.0 {status}", *(h for h in headers if _COPIED.match(h)), tagged, contact]
        if body:
            lines.append("Content-Type: application/sdp")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body])


def describe(lines: list[Line]) -> str:
    """The answer: one audio line each, on its remote port with its one codec, or parked."""
    body = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    for line in lines:
        body += f"m=audio {line.remote or 9} RTP/AVP {CODECS[line.codec]}\r\n"
        body += "a=sendrecv\r\n" if line.remote else "a=inactive\r\n"
    return body
