"""One signed POST to somebody's HTTP server.

    Content-Type: application/json
    Idempotency-Key: <what makes a repetition known>
    Tandem-Signature: t=<seconds since the epoch>,v1=<hex HMAC-SHA256(secret, "<t>." + body)>

A receiver recomputes the signature, refuses a `t` more than some minutes old, and answers 2xx when it has
kept what came. 400, 413, 415 and 422 mean that it never will; anything else is worth trying again, with the
same key. Redirects are not followed: what is signed for one address is not for another.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

import aiohttp

from gateway.clock import Clock, LoopClock
from gateway.errors import TandemError

_NEVER = frozenset({400, 413, 415, 422})


class HookUnavailable(TandemError):
    """Not now; `retry_after` in seconds when the other side named them."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(text)


class HookRefused(TandemError):
    """Never, however often it is tried."""


class Hook:
    """`secret` is what the signature is made with; at_once: connections."""

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        timeout_seconds: float = 10.0,
        at_once: int = 8,
        clock: Clock | None = None,
    ) -> None:
        self.at_once = at_once
        self._url, self._secret = url, secret.encode()
        self._timeout, self._clock = timeout_seconds, clock
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                connector=aiohttp.TCPConnector(limit=self.at_once),
            )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, key: str, body: bytes) -> None:
        """Return when the other side has it. HookUnavailable, HookRefused."""
        assert self._session is not None
        moment = (self._clock or LoopClock()).wall()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "Tandem-Signature": signature(self._secret, int(moment.timestamp()), body),
        }
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
                retry_after = _seconds(response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise HookUnavailable(f"{type(error).__name__}: {error}") from error
        if status in _NEVER:
            raise HookRefused(f"answered {status}")
        if not 200 <= status < 300:
            raise HookUnavailable(f"answered {status}", retry_after)


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
