"""How records lie in a file: one checksummed line each, readable with `less` at three in the morning.

    5f3c1a2b 187 42 {"kind":"leg_held","call":...}
    |        |   |  `-- JSON, never a raw line break
    |        |   `-- sequence number, counts up over the whole log, never used twice
    |        `-- length of the JSON in bytes
    `-- CRC-32 of `42 {...}`

The line break is the mark to find the next record by when one is damaged.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = re.compile(rb"([0-9a-f]{8}) (\d{1,9}) (\d{1,19}) ")


@dataclass(frozen=True, slots=True)
class Record:
    """A record whose checksum is right; `offset` in bytes from the start of the file."""

    offset: int
    seq: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Flaw:
    """Bytes that are no record; `torn` when they end the file without a line break (a write cut short)."""

    offset: int
    length: int
    torn: bool


def encode(seq: int, body: bytes) -> bytes:
    """One line; `body` must not hold a line break."""
    summed = b"%d %b" % (seq, body)
    return b"%08x %d %b\n" % (zlib.crc32(summed), len(body), summed)


def scan(data: bytes) -> Iterator[Record | Flaw]:
    """Records and flaws of a whole file, in order; never raises."""
    position, size = 0, len(data)
    while position < size:
        header = _HEADER.match(data, position)
        if header is not None:
            end = header.end() + int(header[2])
            if end < size and zlib.crc32(data[header.start(3) : end]) == int(header[1], 16):
                yield Record(position, int(header[3]), data[header.end() : end])
                if data[end] != 0x0A:
                    yield Flaw(end, 1, torn=False)
                position = end + 1
                continue
        line_break = data.find(b"\n", position)
        if line_break < 0:
            yield Flaw(position, size - position, torn=True)
            return
        yield Flaw(position, line_break + 1 - position, torn=False)
        position = line_break + 1
