"""Logging to standard error: key=value lines for people and journald, or JSON lines for machines.

Messages are written by the rooms as `key=value` text. Here they get a time and a level, lose every secret
the configuration knows, and cannot break out of their line, whatever a peer put into a header.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_PAIR = re.compile(r'(?:^|\s)([a-z][a-z0-9_]*)=("(?:[^"\\]|\\.)*"|\S*)')
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_TALKATIVE = ("msal", "urllib3", "alembic")
"""Libraries whose debugging says what must not be said (msal: authorization codes), or nothing to us."""
_SHORTEST_SECRET = 4
"""A shorter one would blank out half of every line; the configuration's owner gets no protection for it."""


class Redactor:
    """Replaces known secrets in a text; the longest first, so that no tail of one stays behind."""

    def __init__(self, secrets: Iterable[str]) -> None:
        usable = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        ordered = sorted(usable, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text


class _Formatter(logging.Formatter):
    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self.redact = redact

    def one_line(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda match: repr(match[0])[1:-1], self.redact(record.getMessage()))

    def trace(self, record: logging.LogRecord) -> str:
        return self.redact(self.formatException(record.exc_info)) if record.exc_info else ""


class TextFormatter(_Formatter):
    """`2026-01-01T00:00:00.000Z INFO sip event=... `; under journald a priority mark instead of the time."""

    def __init__(self, redact: Redactor, *, journal: bool) -> None:
        super().__init__(redact)
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        room = record.name.removeprefix("tandem.")
        if self.journal:
            mark = f"<{_PRIORITY.get(record.levelno, 6)}>"
            head = f"{mark}{room} "
        else:
            mark = ""
            head = f"{_time(record)} {record.levelname} {room} "
        lines = [head + self.one_line(record)]
        lines += [f"{mark}    {_CONTROL.sub(' ', line)}" for line in self.trace(record).splitlines()]
        return "\n".join(lines)


class JsonFormatter(_Formatter):
    """One object a line: time, level, logger, message, each key=value of the message, and `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        message = self.redact(record.getMessage())
        fields: dict[str, Any] = {match[1]: match[2].strip('"') for match in _PAIR.finditer(message)}
        fields |= {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        trace = self.trace(record)
        if trace:
            fields["traceback"] = trace
        return json.dumps(fields)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def under_journald(stream: TextIO) -> bool:
    """Whether `stream` is the journal's (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class LogSetup:
    """The root logger's handler from here on; `close` gives back what was there before."""

    def __init__(
        self,
        *,
        level: str = "info",
        form: Literal["text", "json"] = "text",
        secrets: Iterable[str] = (),
        stream: TextIO | None = None,
    ) -> None:
        stream = stream or sys.stderr
        redact = Redactor(secrets)
        self._handler = logging.StreamHandler(stream)
        self._handler.setFormatter(
            JsonFormatter(redact) if form == "json" else TextFormatter(redact, journal=under_journald(stream))
        )
        root = logging.getLogger()
        self._before = root.level
        root.addHandler(self._handler)
        root.setLevel(level.upper())
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(max(root.level, logging.INFO))
        logging.captureWarnings(True)

    def close(self) -> None:
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._before)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.captureWarnings(False)
