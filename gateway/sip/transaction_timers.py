"""The timers of RFC 3261 17 (table 4) and RFC 6026 7.1."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timers:
    """T1, T2, T4 in seconds, the rest derived; tests make them small, customers may raise T1."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    trying_after: float = 0.2
    """An INVITE that the user left unanswered for so long gets 100 Trying (17.2.1)."""

    @property
    def b(self) -> float:
        """INVITE client transaction time-out; F, H, J, L and M last as long."""
        return 64 * self.t1

    @property
    def a(self) -> float:
        """First INVITE retransmission, doubled each time (UDP)."""
        return self.t1

    @property
    def d(self) -> float:
        """How long a client absorbs repeated non-2xx answers to an INVITE over UDP: at least 32 s."""
        return max(32.0 if self.t1 >= 0.5 else 0.0, 64 * self.t1)

    @property
    def e(self) -> float:
        return self.t1

    @property
    def f(self) -> float:
        return 64 * self.t1

    @property
    def g(self) -> float:
        return self.t1

    @property
    def h(self) -> float:
        return 64 * self.t1

    @property
    def i(self) -> float:
        return self.t4

    @property
    def j(self) -> float:
        return 64 * self.t1

    @property
    def k(self) -> float:
        return self.t4

    @property
    def l(self) -> float:  # noqa: E743  the RFC's name
        return 64 * self.t1

    @property
    def m(self) -> float:
        return 64 * self.t1


@dataclass(frozen=True)
class TransactionLimits:
    """Bounds of the transaction layer."""

    max_server: int = 10_000
    """Server transactions at once; a request above that gets 503 with Retry-After."""
    retry_after: int = 10
    """Seconds told to those refused."""
