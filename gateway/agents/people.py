"""People who sign in, and what their roles allow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class UserRole(StrEnum):
    """Each may do what those before it may."""

    AGENT = "agent"
    SUPERVISOR = "supervisor"
    ADMINISTRATOR = "administrator"

    def reaches(self, least: UserRole) -> bool:
        order = list(UserRole)
        return order.index(self) >= order.index(least)


class Source(StrEnum):
    """Who vouches for a person."""

    LOCAL = "local"
    ENTRA = "entra"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has signed in; `login` is also the agent's, where he is one."""

    login: str
    name: str
    role: UserRole
    source: Source = Source.LOCAL
