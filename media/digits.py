"""Digits that parties press, as rtpengine reports them: one JSON datagram for each event, at its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.model import LegId

log = logging.getLogger("tandem.media")

_KEYS = "0123456789*#ABCD"


@dataclass(frozen=True, slots=True)
class Digit:
    """`leg` pressed `digit` (0-9, *, #, A-D) for `ms` milliseconds."""

    leg: LegId
    digit: str
    ms: int


class DigitListener(asyncio.DatagramProtocol):
    """Bound to the port that rtpengine was told; calls `on_digit` once for each digit of a party."""

    def __init__(self, on_digit: Callable[[Digit], None]) -> None:
        self._on_digit = on_digit

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        digit = read_report(data)
        if digit is not None:
            try:
                self._on_digit(digit)
            except Exception:
                log.exception("digit_handler_failed leg=%s", digit.leg)

    def error_received(self, exc: Exception) -> None:
        """Nothing is ever sent from here."""


def read_report(data: bytes) -> Digit | None:
    """A report, or None when it is unreadable or tells of our inside half.

    In a chain of two legs each digit is reported twice: where it came in (tag ext) and inside the other leg.
    """
    try:
        report = json.loads(data)
        if report["type"] != "DTMF" or report["source_tag"] != "ext":
            return None
        return Digit(LegId(str(report["callid"])), _KEYS[report["event"]], int(report["duration"]))
    except (ValueError, TypeError, KeyError, IndexError):
        return None
