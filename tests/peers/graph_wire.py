"""Requests, replies and errors of the Graph stand-in, apart from how they travel ($batch or HTTP)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.peers.entra import Grant

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One request; `path` without the root and its version, percent-decoded."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Json
    grant: Grant
    match: re.Match[str] | None = None

    def part(self, name: str) -> str:
        assert self.match is not None
        return self.match[name]

    @property
    def user(self) -> str:
        """Who signed in; 400 for the application itself, which has no /me."""
        if self.grant.user is None:
            raise Refusal(400, "BadRequest", "/me request is only valid with delegated authentication flow.")
        return self.grant.user


@dataclass(frozen=True)
class Reply:
    status: int
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """Becomes Graph's error envelope."""

    def __init__(self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.code, self.text, self.headers = status, code, text, dict(headers or {})
        super().__init__(f"{status} {code}")

    def reply(self, client_request_id: str) -> Reply:
        inner = {
            "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": str(uuid.uuid4()),
            "client-request-id": client_request_id,
        }
        body = {"error": {"code": self.code, "message": self.text, "innerError": inner}}
        return Reply(self.status, body, self.headers)


@dataclass(frozen=True)
class Seen:
    """One request as it arrived, for tests that count; inner requests of a batch count each."""

    at: float
    method: str
    path: str
    status: int
    app_only: bool
    request_id: str


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def moment_of(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(400, "BadRequest", "Invalid date and time.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
