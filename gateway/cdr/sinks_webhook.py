"""Call detail to somebody's HTTP server, signed.

Each row is one POST:

    Content-Type: application/json
    Idempotency-Key: <row id>                of the first revision, <row id>-<revision> of a later one
    Tandem-Signature: t=<seconds since the epoch>,v1=<hex HMAC-SHA256(secret, "<t>." + body)>

    {"type": "call_detail", "schema_version": 1, "row": {...}}

    (`row.detail.revision`: a row is told again when agents' after-call work has changed it; keep the highest)

A receiver recomputes the signature, refuses a `t` more than some minutes old, and answers 2xx when it has
kept the row. 400, 413, 415 and 422 mean that it never will; anything else is tried again later, with the
same key. Redirects are not followed: what is signed for one address is not for another.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import aiohttp

from gateway.cdr.call_detail import CallDetail
from gateway.cdr.columns import SCHEMA_VERSION
from gateway.cdr.sinks import SinkRejected, SinkUnavailable
from gateway.clock import Clock, LoopClock

log = logging.getLogger("tandem.cdr")

_NEVER = frozenset({400, 413, 415, 422})


class WebhookSink:
    """POSTs rows to `url`, some at a time; `secret` is what the signature is made with."""

    def __init__(
        self,
        url: str,
        secret: str,
        name: str = "webhook",
        *,
        timeout_seconds: float = 10.0,
        at_once: int = 8,
        clock: Clock | None = None,
    ) -> None:
        self._url, self._secret, self._name = url, secret.encode(), name
        self._timeout, self._at_once, self._clock = timeout_seconds, at_once, clock
        self._session: aiohttp.ClientSession | None = None
        self._kept: set[str] = set()

    @property
    def name(self) -> str:
        return self._name

    async def open(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                connector=aiohttp.TCPConnector(limit=self._at_once),
            )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def write(self, rows: Sequence[CallDetail]) -> None:
        """The newest revision of each row, up to `at_once` rows together; of a batch that is repeated only
        what was not kept yet.
        """
        newest = {row.id: row for row in rows}
        waiting = [row for row in newest.values() if _key(row) not in self._kept]
        for start in range(0, len(waiting), self._at_once):
            results = await asyncio.gather(
                *(self._post(row) for row in waiting[start : start + self._at_once]), return_exceptions=True
            )
            errors = [result for result in results if isinstance(result, BaseException)]
            for error in sorted(errors, key=lambda e: isinstance(e, SinkRejected)):
                raise error
        self._kept.difference_update(map(_key, newest.values()))

    async def _post(self, row: CallDetail) -> None:
        assert self._session is not None
        body = json.dumps(
            {"type": "call_detail", "schema_version": SCHEMA_VERSION, "row": row.to_dict()},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        moment = (self._clock or LoopClock()).wall()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": _key(row),
            "Tandem-Signature": signature(self._secret, int(moment.timestamp()), body),
        }
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
                retry_after = _seconds(response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SinkUnavailable(f"{type(error).__name__}: {error}") from error
        if 200 <= status < 300:
            self._kept.add(_key(row))
        elif status in _NEVER:
            raise SinkRejected(f"answered {status}")
        else:
            raise SinkUnavailable(f"answered {status}", retry_after)


def _key(row: CallDetail) -> str:
    return row.id if row.revision == 1 else f"{row.id}-{row.revision}"


def signature(secret: bytes, at: int, body: bytes) -> str:
    """The value of Tandem-Signature for `body` at `at` (seconds since the epoch)."""
    digest = hmac.new(secret, b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds (RFC 9110 10.2.3): a number, or a date; None when it is neither."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        until = datetime.strptime(value.strip(), "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)
