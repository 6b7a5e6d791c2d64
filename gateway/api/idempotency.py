"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a repeated POST gets the first one's answer.

A client that lost the answer to "place a call" asks again with the same key and no second call is placed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from gateway.api.auth import WHO
from gateway.api.problems import Problem

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
LIFETIME = 3600.0
"""Seconds for which an answer is kept."""
_MOST = 10_000
_LONGEST = 255


@dataclass(slots=True)
class _Kept:
    fingerprint: bytes
    at: float
    answer: web.Response | None = None


class Idempotency:
    """Answers by whose token and which key; the oldest go first when there are too many."""

    def __init__(self, *, most: int = _MOST, lifetime: float = LIFETIME) -> None:
        self._most, self._lifetime = most, lifetime
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def once(
        self, request: web.Request, act: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """`act`'s answer, or the one it gave before. A failure is not kept: it changed nothing.

        Problem 409 while the first is under way, 422 for a key that stood for something else.
        """
        key = request.headers.get(HEADER)
        if key is None:
            return await act()
        if not 0 < len(key) <= _LONGEST:
            raise Problem(422, f"{HEADER} must have 1 to {_LONGEST} characters", reason="invalid")
        now = asyncio.get_running_loop().time()
        self._forget(now)
        whose = (request.get(WHO, ""), key)
        fingerprint = hashlib.sha256(f"{request.method} {request.path}\n".encode() + await request.read())
        kept = self._kept.get(whose)
        if kept is not None:
            return _again(kept, fingerprint.digest())
        mine = self._kept[whose] = _Kept(fingerprint.digest(), now)
        try:
            answer = await act()
        except BaseException:
            del self._kept[whose]
            raise
        assert isinstance(answer, web.Response)
        mine.answer = answer
        return answer

    def _forget(self, now: float) -> None:
        over, old = len(self._kept) - self._most, []
        for whose, kept in self._kept.items():
            if over < 0 and now - kept.at < self._lifetime:
                break
            if kept.answer is not None:
                old.append(whose)
                over -= 1
        for whose in old:
            del self._kept[whose]


def _again(kept: _Kept, fingerprint: bytes) -> web.Response:
    if kept.fingerprint != fingerprint:
        raise Problem(
            422, f"this {HEADER} stood for another request: take a new one", reason="idempotency_key_reused"
        )
    if kept.answer is None:
        raise Problem(
            409,
            f"the first request with this {HEADER} is still under way: ask again later",
            reason="idempotency_key_in_use",
        )
    headers = kept.answer.headers.copy()
    headers[REPLAYED] = "true"
    return web.Response(status=kept.answer.status, body=kept.answer.body, headers=headers)
