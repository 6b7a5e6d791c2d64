"""What a leg needs of the one it talks through: a SIP session, or a page with a browser's telephone."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.sip.session_ports import Headers
from gateway.sip.session_state import SessionState


class HasCallId(Protocol):
    @property
    def call_id(self) -> str: ...


class LegSession(Protocol):
    """The part of `gateway.sip.session.Session` that legs and dialling use; the events are its events.

    handler: gets (session, event) for everything that happens; Any, because each kind hands in itself
    """

    handler: Any

    @property
    def request(self) -> HasCallId: ...

    @property
    def remote_offer(self) -> bytes | None: ...

    @property
    def state(self) -> SessionState: ...

    @property
    def over(self) -> bool: ...

    def provisional(
        self, code: int, phrase: str | None = None, sdp: bytes | None = None, headers: Headers = ()
    ) -> None: ...

    def accept(self, sdp: bytes, headers: Headers = ()) -> None: ...

    def confirm(self) -> None: ...

    def cancel(self, headers: Headers = ()) -> None: ...

    def end(self, code: int, headers: Headers = ()) -> None: ...

    async def talk(self) -> int: ...

    async def offer(self, sdp: bytes) -> bytes: ...
