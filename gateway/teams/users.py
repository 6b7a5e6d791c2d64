"""Which agents have Teams: mapped by configuration, enabled by signing in once, checked each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.teams.entra import Identity
from gateway.teams.errors import WrongIdentity
from gateway.teams.store import Shelf, Store


@dataclass(frozen=True)
class TeamsUser:
    """An agent's user in Teams; oid and tid as Entra ID said when he first signed in."""

    login: str
    oid: str
    tid: str
    name: str
    user_principal_name: str

    def document(self) -> dict[str, Any]:
        return {"oid": self.oid, "tid": self.tid, "name": self.name, "upn": self.user_principal_name}

    @classmethod
    def of(cls, login: str, document: dict[str, Any]) -> TeamsUser:
        return cls(login, document["oid"], document["tid"], document["name"], document["upn"])


class Users:
    """mapped: login -> object id or user principal name, as the agents' `teams_user` says now."""

    def __init__(self, store: Store, mapped: Callable[[], Mapping[str, str]]) -> None:
        self._store, self._mapped = store, mapped
        self.enabled: dict[str, TeamsUser] = {}

    async def start(self) -> None:
        self.enabled.clear()
        for login, document in (await self._store.all(Shelf.USER)).items():
            user = TeamsUser.of(login, document)
            if self._fits(login, user.oid, user.user_principal_name):
                self.enabled[login] = user

    def check(self, login: str, identity: Identity) -> None:
        """WrongIdentity, unless this is the user whom the agent is mapped to."""
        if login not in self._mapped():
            raise WrongIdentity(f"no Teams user is mapped to {login}: set teams_user")
        known = self.enabled.get(login)
        if known is not None and (known.oid, known.tid) != (identity.oid, identity.tid):
            raise WrongIdentity(f"{login} is another Teams user than the one who signed in")
        if not self._fits(login, identity.oid, identity.user_principal_name):
            raise WrongIdentity(f"{login} is mapped to another Teams user than the one who signed in")
        for other in self.enabled.values():
            if other.login != login and other.oid == identity.oid:
                raise WrongIdentity(f"this Teams user belongs to {other.login}")

    def hint(self, login: str) -> str:
        """For the sign-in page: the user principal name, where that is known."""
        mapped = self._mapped().get(login, "")
        return mapped if "@" in mapped else ""

    async def enable(self, login: str, identity: Identity) -> TeamsUser:
        user = TeamsUser(login, identity.oid, identity.tid, identity.name, identity.user_principal_name)
        await self._store.put(Shelf.USER, login, user.document())
        self.enabled[login] = user
        return user

    def misfits(self) -> list[str]:
        """Who is enabled, and is not the user any more whom the agent is mapped to."""
        return [
            user.login
            for user in self.enabled.values()
            if not self._fits(user.login, user.oid, user.user_principal_name)
        ]

    async def disable(self, login: str) -> None:
        self.enabled.pop(login, None)
        await self._store.remove(Shelf.USER, login)

    def _fits(self, login: str, oid: str, name: str) -> bool:
        mapped = self._mapped().get(login, "").lower()
        return mapped != "" and mapped in (oid.lower(), name.lower())
