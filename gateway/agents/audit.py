"""The audit log: who did what, from where, with what result. It only grows: the database refuses the rest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import insert, select

from gateway.agents import tables
from gateway.agents.database import AgentDatabase, StoreUnavailable
from gateway.clock import Clock

log = logging.getLogger("tandem.audit")

_LONGEST = 300
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Without secrets. who: login or token; what: bounded words; result: ok, failed, refused or limited."""

    id: int
    at: datetime
    who: str
    what: str
    target: str
    remote: str
    result: str
    detail: str


class AuditLog:
    """Every record is a line in the gateway's log as well, so a database that is down hides nothing."""

    def __init__(self, database: AgentDatabase, clock: Clock | None = None) -> None:
        self._database, self._clock = database, clock

    async def record(
        self, who: str, what: str, *, target: str = "", remote: str = "", result: str = "ok", detail: str = ""
    ) -> None:
        """Never raises: what was done is done. A record the database did not take is in the log alone."""
        values = {
            "who": who, "what": what, "target": target, "remote": remote, "result": result, "detail": detail
        }  # fmt: skip
        shown = {name: _plain(value) for name, value in values.items()}
        log.info("audit %s", " ".join(f"{name}={value}" for name, value in shown.items() if value))
        at = self._clock.wall() if self._clock is not None else datetime.now(UTC)
        statement = insert(tables.audit).values(at=at, **shown)
        try:
            await self._database.run(lambda connection: connection.execute(statement))
        except StoreUnavailable as error:
            log.error("audit_not_stored what=%s cause=%s", what, error)

    async def latest(self, *, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """Newest first, with ids below `before`. StoreUnavailable."""
        wanted = select(tables.audit).order_by(tables.audit.c.id.desc()).limit(min(limit, MAX_LIMIT))
        if before is not None:
            wanted = wanted.where(tables.audit.c.id < before)
        return await self._database.run(
            lambda connection: [AuditRecord(**row) for row in connection.execute(wanted).mappings()]
        )


def _plain(text: str) -> str:
    """What a stranger typed as his login must neither forge lines nor fill the disk."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:_LONGEST])
