"""Agents for tests of busy sync: `gateway.agents.states` itself, without journal and calls."""

from __future__ import annotations

from collections.abc import Callable

from gateway.agents.states import (
    EXTERNAL_BUSY,
    AgentState,
    AgentStatus,
    Facts,
    Trigger,
    decide,
    lift,
    overlay,
)
from gateway.teams.presence_desk import Listener
from gateway.teams.presence_rules import Desk


class TableDesks:
    """Implements `presence_desk.Desks`."""

    def __init__(self, *logins: str) -> None:
        self.statuses = {login: AgentStatus(login=login) for login in logins}
        self._listeners: list[Listener] = []

    def desk(self, login: str) -> Desk:
        status = self.statuses[login]
        return Desk(status.state, status.reason)

    async def busy(self, login: str) -> None:
        self._set(overlay(self.statuses[login], EXTERNAL_BUSY, 0))

    async def free(self, login: str) -> None:
        self._set(lift(self.statuses[login], EXTERNAL_BUSY, 0))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def do(self, login: str, trigger: Trigger, reason: str = "", work_ms: int = 0) -> None:
        """What the agent or a call does."""
        self._set(decide(self.statuses[login], trigger, 0, Facts(reason=reason, work_ms=work_ms)))

    def ready(self, login: str) -> None:
        self.do(login, Trigger.SET_READY)

    def not_ready(self, login: str, reason: str = "Lunch") -> None:
        self.do(login, Trigger.SET_NOT_READY, reason)

    def log_out(self, login: str) -> None:
        self.do(login, Trigger.LOG_OUT)

    def take_call(self, login: str) -> None:
        self.do(login, Trigger.CALL_BEGAN)

    def end_call(self, login: str, work_ms: int = 0) -> None:
        self.do(login, Trigger.CALLS_OVER, work_ms=work_ms)

    def state(self, login: str) -> tuple[AgentState, str]:
        return self.statuses[login].state, self.statuses[login].reason

    def _set(self, status: AgentStatus) -> None:
        before = self.statuses[status.login]
        self.statuses[status.login] = status
        if status != before:
            for listener in list(self._listeners):
                listener(status.login, Desk(status.state, status.reason, before.state))
