"""Presences in Graph, read and written with the application's own token (facts/graph.md 2.2, N15)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.teams.client import GraphClient, Json, segment
from gateway.teams.errors import NotThere
from gateway.teams.presence_rules import Pair

BULK = 650
_AVAILABLE_FOR = 300.0


@dataclass(frozen=True)
class Shown:
    """What others see of a user; words that Graph may add later are kept as they come."""

    pair: Pair
    sequence: int | None = None


def shown(body: Json) -> Shown:
    """Of a `presence` resource; ValueError for something else."""
    availability, activity = body.get("availability"), body.get("activity")
    if not isinstance(availability, str) or not isinstance(activity, str):
        raise ValueError("no presence")
    number = body.get("sequenceNumber")
    sequence = int(number) if isinstance(number, str) and number.isdecimal() else None
    return Shown((availability, activity), sequence)


class Presences:
    """All methods raise what GraphClient raises. `client_id` names our session (facts/graph.md 2.2)."""

    def __init__(self, client: GraphClient, client_id: str) -> None:
        self._client, self._session = client, client_id

    @property
    def may_write(self) -> bool:
        return self._client.cloud.may_set_presence

    async def read(self, oid: str) -> Shown:
        return shown(await self._client.get(f"/users/{segment(oid)}/presence", who=None))

    async def read_many(self, oids: Sequence[str]) -> dict[str, Shown]:
        """By object id, 650 a request; users whom Graph does not know are missing."""
        found: dict[str, Shown] = {}
        for start in range(0, len(oids), BULK):
            body = await self._client.post(
                "/communications/getPresencesByUserId",
                {"ids": list(oids[start : start + BULK])},
                who=None,
                repeatable=True,
            )
            for one in body.get("value", []):
                try:
                    found[str(one["id"])] = shown(one)
                except (KeyError, ValueError, TypeError):
                    continue
        return found

    async def write(self, oid: str, pair: Pair, seconds: float) -> None:
        body = {
            "sessionId": self._session,
            "availability": pair[0],
            "activity": pair[1],
            "expirationDuration": f"PT{round(seconds / 60)}M",
        }
        await self._client.post(
            f"/users/{segment(oid)}/presence/setPresence", body, who=None, repeatable=True
        )

    async def write_available(self, oid: str) -> None:
        """For five minutes at most, without repeating it (N10)."""
        await self.write(oid, ("Available", "Available"), _AVAILABLE_FOR)

    async def clear(self, oid: str) -> None:
        """Take our session away; that there is none is as good."""
        try:
            await self._client.post(
                f"/users/{segment(oid)}/presence/clearPresence",
                {"sessionId": self._session},
                who=None,
                repeatable=True,
            )
        except NotThere:
            return
