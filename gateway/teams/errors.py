"""What can go wrong with Entra ID and Graph, by what somebody can do about it. No text holds a secret."""

from __future__ import annotations

from gateway.errors import TandemError


class TeamsError(TandemError):
    """Root of this room's errors. `reason` is one word of a bounded set, for programs and metrics."""

    reason = "teams"


class NoAccount(TeamsError):
    """There is no integration account: an administrator makes it."""

    reason = "no_account"


class SignInNeeded(TeamsError):
    """This user's tokens are gone or refused: the user signs in again."""

    reason = "sign_in_needed"


class WrongIdentity(TeamsError):
    """Somebody else signed in than the user this agent is mapped to."""

    reason = "wrong_identity"


class EntraRefused(TeamsError):
    """Entra ID refused: `code` is its error word, `number` the first AADSTS number or 0."""

    reason = "entra_refused"

    def __init__(self, code: str, number: int, text: str) -> None:
        self.code, self.number = code, number
        super().__init__(text)


class GraphError(TeamsError):
    """Graph answered with an error (facts/graph.md 6).

    status: HTTP status; code: Graph's word, compare it without case; request_id: what Microsoft asks for
    """

    reason = "graph_error"

    def __init__(self, status: int, code: str, request_id: str, what: str) -> None:
        self.status, self.code, self.request_id = status, code, request_id
        super().__init__(f"{what}: Graph answered {status} {code}, request {request_id}")


class PermissionMissing(GraphError):
    """403: the application lacks a permission or its consent; the administrator grants it."""

    reason = "permission_missing"


class NotThere(GraphError):
    """404 or 410: forget what was known of it."""

    reason = "not_there"


class Throttled(GraphError):
    """429, and not better within the time a request may take."""

    reason = "throttled"


class GraphUnavailable(TeamsError):
    """No answer, or 5xx, and not better within the time a request may take.

    sent: whether Graph may have done it all the same
    """

    reason = "graph_unavailable"

    def __init__(self, text: str, *, sent: bool = True) -> None:
        self.sent = sent
        super().__init__(text)


class Untrusted(TeamsError):
    """Graph's answer leads to an address that is not Graph's: nobody there gets our token."""

    reason = "untrusted"


class StoreFault(TeamsError):
    """The database, or the key of what is in it, cannot be used."""

    reason = "store"
