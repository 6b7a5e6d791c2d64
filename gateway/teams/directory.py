"""The tenant's people: search as you type, presence, and how to call them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.teams.client import GraphClient, Json, segment
from gateway.teams.presence_graph import Presences

_SELECT = "id,displayName,userPrincipalName,mail,jobTitle,department,businessPhones,mobilePhone"
_PAGE = 25


@dataclass(frozen=True)
class Attendant:
    """The Teams auto attendant for experts without a phone licence.

    digits: sent after it has answered; `{user}` stands for the part of the user principal name before the @
    """

    number: str
    digits: str = ""


@dataclass(frozen=True)
class Person:
    """number: what to dial; digits: sent afterwards; both "" where nobody can be called."""

    oid: str
    name: str
    user_principal_name: str
    mail: str
    title: str
    department: str
    numbers: tuple[str, ...]
    number: str
    digits: str
    availability: str = ""
    activity: str = ""


class Directory:
    """All with the application's own token: a search needs no sign-in. Raises what GraphClient raises."""

    def __init__(self, client: GraphClient, presences: Presences, attendant: Attendant | None = None) -> None:
        self._client, self._presences, self._attendant = client, presences, attendant

    async def search(self, text: str, most: int = _PAGE) -> list[Person]:
        """People whose name, mail address or user name begins so; with their presence. "" finds the first."""
        query = {"$select": _SELECT, "$top": str(most)}
        headers = {}
        if text.strip():
            query["$search"] = search_clause(text)
            headers = {"ConsistencyLevel": "eventual"}
        pages = self._client.pages("/users", who=None, query=query, headers=headers, most=most)
        return await self._with_presence([self.person(one) async for one in pages])

    async def show(self, oid: str) -> Person:
        body = await self._client.get(f"/users/{segment(oid)}", who=None, query={"$select": _SELECT})
        return (await self._with_presence([self.person(body)]))[0]

    async def _with_presence(self, people: Sequence[Person]) -> list[Person]:
        if not people:
            return []
        found = await self._presences.read_many([one.oid for one in people])
        return [
            replace(one, availability=found[one.oid].pair[0], activity=found[one.oid].pair[1])
            if one.oid in found
            else one
            for one in people
        ]

    def person(self, body: Json) -> Person:
        phones = [*(body.get("businessPhones") or []), body.get("mobilePhone")]
        numbers = tuple(str(one) for one in phones if one)
        business = [_dialled(str(one)) for one in body.get("businessPhones") or [] if one]
        number, digits = (business[0], "") if business else ("", "")
        name = str(body.get("userPrincipalName") or "")
        if not number and self._attendant is not None:
            number = self._attendant.number
            digits = self._attendant.digits.replace("{user}", _keypad(name.partition("@")[0]))
        return Person(
            oid=str(body.get("id") or ""),
            name=str(body.get("displayName") or ""),
            user_principal_name=name,
            mail=str(body.get("mail") or ""),
            title=str(body.get("jobTitle") or ""),
            department=str(body.get("department") or ""),
            numbers=numbers,
            number=number,
            digits=digits,
        )


def search_clause(text: str) -> str:
    """`$search` over name, mail and user name; quotes and backslashes escaped (facts/graph.md 1.6)."""
    clean = re.sub(r"[\x00-\x1f&]", " ", text).strip()[:100]
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
    return " OR ".join(f'"{name}:{escaped}"' for name in ("displayName", "mail", "userPrincipalName"))


def _dialled(number: str) -> str:
    return re.sub(r"[^+\d]", "", number)


_KEYS = {letter: key for key, letters in {
    "2": "abc", "3": "def", "4": "ghi", "5": "jkl", "6": "mno", "7": "pqrs", "8": "tuv", "9": "wxyz",
}.items() for letter in letters}  # fmt: skip


def _keypad(name: str) -> str:
    """A name as an attendant's dial-by-name takes it."""
    return "".join(_KEYS.get(letter, letter if letter.isdigit() else "") for letter in name.lower())
