"""What waits for a connection to be made, in order."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Protocol

from gateway.errors import SipError
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target

Use = Callable[[Flow], None]
Failed = Callable[[SipError], None]


class Connections(Protocol):
    """What this needs of gateway.sip.transport.TransportLayer."""

    def flow_now(self, target: Target) -> Flow | None:
        """A flow to `target` that is usable without waiting: UDP, or a stream that is connected already."""
        ...

    async def flow(self, target: Target) -> Flow:
        """TransportError when there is no way."""
        ...


class Waiting:
    """Sends by target. A connection is there some turns of the loop before those who wait for it run: whoever
    asks in between must not overtake them, a BYE the re-INVITE before it.
    """

    def __init__(
        self, connections: Connections, spawn: Callable[[Coroutine[None, None, None]], None]
    ) -> None:
        self._connections = connections
        self._spawn = spawn
        self._queues: dict[Target, list[tuple[Use, Failed]]] = {}

    def flow_now(self, target: Target) -> Flow | None:
        """A flow to `target` that is usable now and that nobody else waits for; TransportError: no way."""
        return None if target in self._queues else self._connections.flow_now(target)

    def when_connected(self, target: Target, use: Use, failed: Failed) -> None:
        """Call `use` with the connection, after all who asked before; one of the two is called, later.

        `failed` is told also what SipError `use` raises.
        """
        queue = self._queues.get(target)
        if queue is not None:
            queue.append((use, failed))
            return
        self._queues[target] = [(use, failed)]
        self._spawn(self._connect(target))

    async def _connect(self, target: Target) -> None:
        made: Flow | SipError
        try:
            made = await self._connections.flow(target)
        except SipError as error:
            made = error
        finally:
            queue = self._queues.pop(target)
        for use, failed in queue:
            if isinstance(made, SipError):
                failed(made)
                continue
            try:
                use(made)
            except SipError as error:
                failed(error)
