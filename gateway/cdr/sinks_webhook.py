"""Call detail to somebody's HTTP server: each row is one signed POST, as `gateway.webhook` describes it.

Idempotency-Key: <row id>                of the first revision, <row id>-<revision> of a later one

{"type": "call_detail", "schema_version": 1, "row": {...}}

(`row.detail.revision`: a row is told again when agents' after-call work has changed it; keep the highest)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from gateway.cdr.call_detail import CallDetail
from gateway.cdr.columns import SCHEMA_VERSION
from gateway.cdr.sinks import SinkRejected, SinkUnavailable
from gateway.clock import Clock
from gateway.webhook import Hook, HookRefused, HookUnavailable


class WebhookSink:
    """POSTs rows to `url`, some at a time; `secret` is what the signature is made with."""

    def __init__(
        self,
        url: str,
        secret: str,
        name: str = "webhook",
        *,
        timeout_seconds: float = 10.0,
        at_once: int = 8,
        clock: Clock | None = None,
    ) -> None:
        self._name, self._at_once = name, at_once
        self._hook = Hook(url, secret, timeout_seconds=timeout_seconds, at_once=at_once, clock=clock)
        self._kept: set[str] = set()

    @property
    def name(self) -> str:
        return self._name

    async def open(self) -> None:
        self._hook.open()

    async def close(self) -> None:
        await self._hook.close()

    async def write(self, rows: Sequence[CallDetail]) -> None:
        """The newest revision of each row, up to `at_once` rows together; of a batch that is repeated only
        what was not kept yet.
        """
        newest = {row.id: row for row in rows}
        waiting = [row for row in newest.values() if _key(row) not in self._kept]
        for start in range(0, len(waiting), self._at_once):
            results = await asyncio.gather(
                *(self._post(row) for row in waiting[start : start + self._at_once]), return_exceptions=True
            )
            errors = [result for result in results if isinstance(result, BaseException)]
            for error in sorted(errors, key=lambda e: isinstance(e, SinkRejected)):
                raise error
        self._kept.difference_update(map(_key, newest.values()))

    async def _post(self, row: CallDetail) -> None:
        body = json.dumps(
            {"type": "call_detail", "schema_version": SCHEMA_VERSION, "row": row.to_dict()},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        try:
            await self._hook.post(_key(row), body)
        except HookRefused as error:
            raise SinkRejected(str(error)) from error
        except HookUnavailable as error:
            raise SinkUnavailable(str(error), error.retry_after) from error
        self._kept.add(_key(row))


def _key(row: CallDetail) -> str:
    return row.id if row.revision == 1 else f"{row.id}-{row.revision}"
