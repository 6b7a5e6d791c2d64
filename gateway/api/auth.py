"""Bearer tokens for everything under /api (RFC 6750); health and metrics need none."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping

from aiohttp import web

from gateway.api.problems import Handler, Problem

PREFIX = "/api/"
_READING = ("GET", "HEAD")
WHO = web.RequestKey("who", str)
"""Name of the token that a request showed."""


class BearerTokens:
    """Tokens by name. Only digests are kept; comparing takes the same time for every token.

    readers: names of those that may look and not touch: only GET and HEAD
    """

    def __init__(self, tokens: Mapping[str, str], readers: Collection[str] = ()) -> None:
        self._digests = {name: _digest(secret) for name, secret in tokens.items()}
        self._readers = frozenset(readers)

    def name_of(self, authorization: str) -> str | None:
        """Whose token the Authorization header shows; None when nobody's."""
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            return None
        shown = _digest(secret.strip())
        found = None
        for name, digest in self._digests.items():
            if hmac.compare_digest(digest, shown):
                found = name
        return found

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(PREFIX):
            name = self.name_of(request.headers.get("Authorization", ""))
            if name is None:
                raise Problem(
                    401,
                    "a bearer token of [http] tokens is needed",
                    headers={"WWW-Authenticate": 'Bearer realm="tandem"'},
                )
            if name in self._readers and request.method not in _READING:
                raise Problem(
                    403,
                    f'the token {name!r} may only read: use one whose [http] tokens entry has access = "all"',
                    headers={"WWW-Authenticate": 'Bearer realm="tandem", error="insufficient_scope"'},
                    reason="read_only_token",
                )
            request[WHO] = name
        return await handler(request)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
