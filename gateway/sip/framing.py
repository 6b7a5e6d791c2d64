"""Cutting a byte stream into SIP messages by Content-Length (RFC 3261 18.3) and CRLF keep-alives (RFC
5626 3.5.1).
"""

from __future__ import annotations

import re
from enum import Enum

_LENGTH = re.compile(
    rb"\r\n(?:content-length|l)[ \t]*:[ \t]*((?:[^\r]|\r\n[ \t])*?)[ \t]*(?=\r\n(?![ \t]))", re.IGNORECASE
)
_DIGITS = re.compile(rb"\d{1,10}")
_MAX_FIRST_LINE = 8192
_PING = b"\r\n\r\n"


class KeepAlive(Enum):
    PING = "ping"
    """Double CRLF: wants a single CRLF back."""
    PONG = "pong"


class FramingError(Exception):
    """The stream cannot be followed any further: close it.

    `head` holds start line and headers when they came through, so that `code` can be answered first.
    """

    def __init__(self, code: int, text: str, head: bytes = b"") -> None:
        self.code, self.text, self.head = code, text, head
        super().__init__(text)


class StreamFramer:
    """Feed it what the socket gives; it gives back whole messages and keep-alives in order."""

    def __init__(self, max_message: int = 65536, max_head: int = 32768) -> None:
        self._max_message = max_message
        self._max_head = max_head
        self._buffer = bytearray()
        self._scanned = 0
        self._need = 0
        self.awaiting_pong = False
        """Set by whoever sent a ping: a lone CRLF is then its answer, not half of a ping."""

    @property
    def pending(self) -> bool:
        """A message has begun and is not complete."""
        return len(self._buffer.lstrip(b"\r\n")) > 0

    def feed(self, data: bytes) -> list[bytes | KeepAlive]:
        """FramingError when the bytes are no SIP, too large, or have no usable Content-Length; what was whole
        before that is lost with the connection only if the caller drops it: it is returned first."""
        self._buffer += data
        found: list[bytes | KeepAlive] = []
        while self._buffer:
            if self._need:
                if len(self._buffer) < self._need:
                    break
                found.append(bytes(self._buffer[: self._need]))
                self._drop(self._need)
                continue
            if self._buffer[0] in b"\r\n":
                if not self._keep_alive(found):
                    break
                continue
            try:
                if not self._head():
                    break
            except FramingError as error:
                if not found:
                    raise
                self._broken = error
                break
        return found

    _broken: FramingError | None = None

    def check(self) -> None:
        """Raise the FramingError that `feed` put off to deliver the whole messages before it."""
        if self._broken is not None:
            raise self._broken

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._scanned = self._need = 0

    def _keep_alive(self, found: list[bytes | KeepAlive]) -> bool:
        buffer = self._buffer
        if buffer.startswith(_PING):
            self._drop(4)
            found.append(KeepAlive.PING)
            return True
        if buffer == b"\r\n" and self.awaiting_pong:
            self._drop(2)
            self.awaiting_pong = False
            found.append(KeepAlive.PONG)
            return True
        if _PING.startswith(bytes(buffer[:4])):
            return False  # half a ping: the rest may be on its way
        stray = len(buffer) - len(buffer.lstrip(b"\r\n"))
        self._drop(stray)
        return True

    def _head(self) -> bool:
        """Find the end of the headers and from them the length of the message; False when more bytes are
        needed.
        """
        buffer = self._buffer
        if self._scanned == 0 and not (buffer[0] < 0x7F and chr(buffer[0]).isprintable()):
            raise FramingError(400, "not SIP")
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        first = buffer.find(b"\r\n", 0, _MAX_FIRST_LINE)
        if first < 0 and len(buffer) >= _MAX_FIRST_LINE:
            raise FramingError(400, "no start line")
        if first >= 0 and b"SIP/" not in buffer[:first].upper():
            raise FramingError(400, "not SIP")
        if end < 0:
            if len(buffer) > self._max_head:
                raise FramingError(513, "headers too large")
            self._scanned = len(buffer)
            return False
        if end > self._max_head:
            raise FramingError(513, "headers too large")
        head = bytes(buffer[: end + 4])
        length = self._content_length(head)
        if len(head) + length > self._max_message:
            raise FramingError(513, "message too large", head)
        self._need = len(head) + length
        return True

    @staticmethod
    def _content_length(head: bytes) -> int:
        values = {value.strip() for value in _LENGTH.findall(head)}
        if not values:
            raise FramingError(400, "no Content-Length", head)
        value = values.pop()
        if values or _DIGITS.fullmatch(value) is None:
            raise FramingError(400, "unusable Content-Length", head)
        return int(value)
