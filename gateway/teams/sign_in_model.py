"""What a sign-in with Entra ID is made of, for those who need no msal: loading it takes a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.errors import TandemError

TokensKept = Callable[["EntraIdentity", str], None]


class EntraRefused(TandemError):
    """Entra, or what it told us, does not let this person in. reason: a bounded word; text: for logs."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {text}")


class EntraUnavailable(TandemError):
    """Entra does not answer."""


@dataclass(frozen=True, slots=True)
class EntraIdentity:
    """Who Entra says this is. oid: object id; roles: the app roles assigned to him."""

    oid: str
    tenant: str
    user_principal_name: str
    name: str
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class EntraFlow:
    """A sign-in under way: where the browser goes, what it comes back with, what msal must see again."""

    url: str
    state: str
    data: dict[str, Any]
