"""The typed error tree. Every error names the cause and, where there is one, the cure."""

from __future__ import annotations


class TandemError(Exception):
    """Root of everything the gateway raises on purpose."""


class ConfigError(TandemError):
    """tandem.toml cannot be used; `line` is 1-based, 0 when no single line is to blame."""

    def __init__(self, path: str, line: int, problem: str, cure: str = "") -> None:
        self.path, self.line, self.problem, self.cure = path, line, problem, cure
        where = f"{path}:{line}" if line else path
        super().__init__(f"{where}: {problem}" + (f" ({cure})" if cure else ""))


class IllegalTransition(TandemError):
    """A state machine was asked for an edge its table does not have."""

    def __init__(self, machine: str, state: str, event: str) -> None:
        self.machine, self.state, self.event = machine, state, event
        super().__init__(f"{machine}: no edge from {state} on {event}")


class SipError(TandemError):
    """A SIP failure that has a SIP answer: `code` and the phrase or Warning text to send."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(f"{code} {text}")


class MessageError(SipError):
    """A SIP message that breaks the grammar or a rule of RFC 3261."""


class SdpError(SipError):
    """A session description we refuse: 400 malformed, 415 wrong type, 488 not acceptable here."""


class TransportError(SipError):
    """No way to deliver: connect failed, TLS refused, name unknown, connection lost (answered 503)."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text)


class TransactionTimeout(SipError):
    """Timer B, F or H fired (RFC 3261 17)."""

    def __init__(self, text: str) -> None:
        super().__init__(408, text)


class SessionRefused(SipError):
    """The peer answered a request of ours inside a session with a final non-2xx `code`."""


class MediaError(SipError):
    """rtpengine could not do what the call needs."""


class MediaUnavailable(MediaError):
    """rtpengine does not answer."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text)


class PortsExhausted(MediaError):
    """Every port of `[media] ports` is taken, or the session limit is reached."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text)


class MediaRejected(MediaError):
    """rtpengine refused a description that our own policy had let through."""

    def __init__(self, text: str) -> None:
        super().__init__(488, text)


class Overloaded(SipError):
    """More than may be taken on now; answered 503. `reason`: one bounded word, as in `Termination`."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(503, text)


class JournalError(TandemError):
    """The journal cannot be written (disk full, read-only): no new call may be accepted."""
