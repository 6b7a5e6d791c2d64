"""What a removed account leaves in Graph is taken away while nobody waits for it."""

from __future__ import annotations

import asyncio
import logging

from gateway.teams.room_parts import Connection
from gateway.teams.tasks import Tasks

log = logging.getLogger("tandem.teams")

_LIMIT = 60.0
_AT_ONCE = 8


class CleanUps:
    """As far as Graph can be reached; what is left there ends by itself within the hour."""

    def __init__(self) -> None:
        self._gone: list[Connection] = []
        self._tasks = Tasks("clean_up")

    def begin(self, gone: Connection, logins: list[str]) -> None:
        """Subscriptions and presence of these users; then the connection is closed."""
        self._gone.append(gone)
        self._tasks.spawn(self._clean_up(gone, logins), "account")

    async def stop(self) -> None:
        """Leave the rest as it is."""
        await self._tasks.close()
        for gone in list(self._gone):
            await self._close(gone)

    @property
    def idle(self) -> bool:
        return self._tasks.idle

    async def _clean_up(self, gone: Connection, logins: list[str]) -> None:
        waiting = list(logins)

        async def one_after_the_other() -> None:
            while waiting:
                await gone.subscriptions.unwatch(waiting.pop())

        try:
            async with asyncio.timeout(_LIMIT):
                # All at once: from the first moment on nobody's presence is followed any more.
                disabled = (gone.sync.disable(login) for login in logins)
                workers = (one_after_the_other() for _ in range(_AT_ONCE))
                await asyncio.gather(*disabled, *workers, return_exceptions=True)
        except TimeoutError:
            log.warning("event=account_clean_up_cut_off left=%d", len(waiting))
        finally:
            await self._close(gone)

    async def _close(self, gone: Connection) -> None:
        self._gone.remove(gone)
        # first: what has not been taken away by now is left as it is
        await gone.client.close()
        await gone.end()
