"""Outbound connections: made once for each target, shared, and remembered while they live."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from gateway.errors import TransportError
from gateway.sip.tls import TlsContexts, refusal
from gateway.sip.transport_listen import keep_alive
from gateway.sip.transport_stream import StreamFlow
from gateway.sip.transport_types import Target, TransportKind, TransportLimits

log = logging.getLogger("tandem.sip.transport")

_SHUTDOWN_TIMEOUT = 1.0


class OutboundPool:
    """Connections we dialled, by target: kind, address, port and the name that was verified."""

    def __init__(
        self,
        make_flow: Callable[[TransportKind], StreamFlow],
        local_address: Callable[[Target], tuple[str, int] | None],
        tls: TlsContexts | None,
        limits: TransportLimits,
        counters: Counter[str],
    ) -> None:
        self._make_flow = make_flow
        self._local_address = local_address
        self._tls = tls
        self._limits = limits
        self._counters = counters
        self._flows: dict[Target, StreamFlow] = {}
        self._connecting: dict[Target, asyncio.Task[StreamFlow]] = {}

    def ready(self, target: Target) -> StreamFlow | None:
        """A connection to `target` that can take another request."""
        flow = self._flows.get(target)
        return None if flow is None or flow.closed or flow.draining else flow

    async def connect(self, target: Target) -> StreamFlow:
        """Reuse or connect; those who ask meanwhile wait for the same connection. TransportError says why
        not.
        """
        flow = self.ready(target)
        if flow is not None:
            return flow
        task = self._connecting.get(target)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._connect(target))
            self._connecting[target] = task
            task.add_done_callback(lambda done: self._connected(target, done))
        return await asyncio.shield(task)

    def forget(self, flow: StreamFlow) -> None:
        for target in [target for target, known in self._flows.items() if known is flow]:
            del self._flows[target]

    async def close(self) -> None:
        tasks = list(self._connecting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, target: Target, task: asyncio.Task[StreamFlow]) -> None:
        self._connecting.pop(target, None)
        if not task.cancelled():
            task.exception()  # whoever asked may have been cancelled: nobody is left to fetch it

    async def _connect(self, target: Target) -> StreamFlow:
        context = None
        if target.kind is TransportKind.TLS:
            if self._tls is None:
                raise TransportError(f"no way to {target}: TLS is not configured")
            context = self._tls.client
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.connect_timeout):
                _, flow = await loop.create_connection(
                    lambda: self._make_flow(target.kind),
                    target.address,
                    target.port,
                    ssl=context,
                    server_hostname=None if context is None else target.name or target.address,
                    ssl_shutdown_timeout=None if context is None else _SHUTDOWN_TIMEOUT,
                    local_addr=self._local_address(target),
                )
        except (OSError, ValueError) as error:
            # OSError holds ssl.SSLError and TimeoutError; ValueError is a host name TLS cannot take.
            why = refusal(error)
            if target.kind is TransportKind.TLS:
                self._counters[f"tls_out_{why}"] += 1
            log.warning("event=connect-failed peer=%s why=%s reason=%r", target, why, str(error))
            raise TransportError(f"cannot connect to {target}: {error or why}") from error
        if flow.closed:
            raise TransportError(f"{target} closed the connection at once")
        sock = flow.socket
        if sock is not None:
            keep_alive(sock)
        flow.target = target
        self._flows[target] = flow
        log.info("event=connected peer=%s", target)
        return flow
