"""Agents over HTTP: their states for a contact-center system, who they are, and what they did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import AwareDatetime, Field

from gateway.agents.activity import ActivityName, ActivityRow
from gateway.agents.agents import Agents, AgentView, UnknownAgent, UnknownReason
from gateway.agents.audit import AuditLog, AuditRecord
from gateway.agents.database import AgentDatabase, StoreUnavailable
from gateway.agents.report import (
    MAX_LIMIT,
    ActivityQuery,
    ActivityQueryError,
    activity_page,
)
from gateway.agents.roster import RosterConflict
from gateway.agents.states import AgentState
from gateway.api.operation import Answer, Asked, Operation, Parameters, Strict, json_answer, json_response
from gateway.api.problems import Problem
from gateway.api.sessions import SESSION, who_of
from gateway.config_models import Agent
from gateway.errors import JournalError

AGENTS = "/api/v1/agents"
_AGENT = AGENTS + "/{login}"
_STATE = _AGENT + "/state"

T = TypeVar("T")
Text = Annotated[str, Field(max_length=254)]


@dataclass(frozen=True, slots=True)
class AgentList:
    """not_ready_reasons: what a person may give as reason."""

    agents: list[AgentView]
    not_ready_reasons: tuple[str, ...]


class ChooseState(Strict):
    """reason: only with not_ready. A person takes one of the configured ones, a program may have its own."""

    state: Literal["ready", "not_ready", "logged_out"]
    reason: str = Field(default="", max_length=100)


class PutAgent(Strict):
    """An agent of the database; those of the configuration file are changed there."""

    name: Text = ""
    team: Text = ""
    numbers: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default_factory=list, max_length=50
    )
    teams_user: Annotated[str, Field(min_length=1, max_length=254)] | None = None
    after_call_work: Annotated[float, Field(ge=0, le=86400)] | None = None


class ActivityFilter(Parameters):
    start: AwareDatetime | None = Field(default=None, description="rows that begin at this moment or later")
    end: AwareDatetime | None = Field(default=None, description="rows that begin before this moment")
    agent: str = Field(default="", description="login")
    team: str = ""
    activity: ActivityName | None = None
    order: Literal["newest", "oldest"] = Field(default="newest", description="which rows come first")
    limit: int = Field(default=100, ge=1, le=MAX_LIMIT)
    cursor: str = Field(default="", description="`next` of the page before")


@dataclass(frozen=True, slots=True)
class ActivityReport:
    """next: cursor of the next page, null = no more."""

    rows: tuple[ActivityRow, ...]
    next: str | None


class AuditFilter(Parameters):
    before: int | None = Field(default=None, description="records older than the one with this id")
    limit: int = Field(default=100, ge=1, le=1000)


@dataclass(frozen=True, slots=True)
class AuditPage:
    records: list[AuditRecord]


class _Routes:
    def __init__(self, agents: Agents, database: AgentDatabase, audit: AuditLog) -> None:
        self._agents, self._database, self._audit = agents, database, audit

    async def listed(self, _: Asked[None, None]) -> web.Response:
        found = AgentList(self._agents.views(), self._agents.rules.not_ready_reasons)
        return json_response(AgentList, found)

    async def state(self, asked: Asked[None, None]) -> web.Response:
        return json_response(AgentView, self._view(asked))

    async def choose(self, asked: Asked[ChooseState, None]) -> web.Response:
        request, body, login = asked.request, asked.body, asked.path("login")
        if body.reason and body.state != "not_ready":
            raise Problem(422, "body.reason: only not_ready has a reason", reason="invalid")
        who, program = who_of(request), SESSION not in request
        try:
            view = await self._agents.set_state(
                login, AgentState(body.state), body.reason, by=who, any_reason=program
            )
        except UnknownReason as error:
            raise Problem(422, f"body.reason: {error}", reason="unknown_reason") from error
        except UnknownAgent as error:
            raise _unknown(error) from error
        except JournalError as error:
            raise Problem(
                503, str(error), headers={"Retry-After": "5"}, reason="journal_unavailable"
            ) from error
        if not program and who != login:
            detail = f"{body.state} {body.reason}".strip()
            await self._audit.record(who, "set_agent_state", target=login, detail=detail)
        return json_response(AgentView, view)

    async def put(self, asked: Asked[PutAgent, None]) -> web.Response:
        login, body = asked.path("login"), asked.body
        if len(login) > 254 or not login.isprintable():
            raise Problem(422, "a login has at most 254 printable characters", reason="invalid")
        agent = Agent(
            login=login,
            name=body.name,
            team=body.team,
            numbers=tuple(body.numbers),
            teams_user=body.teams_user,
            after_call_work=body.after_call_work,
        )
        await _stored(self._agents.roster.put(agent))
        await self._audit.record(who_of(asked.request), "put_agent", target=login)
        return json_response(AgentView, self._view(asked))

    async def remove(self, asked: Asked[None, None]) -> web.Response:
        login = asked.path("login")
        if not await _stored(self._agents.roster.remove(login)):
            raise Problem(404, f"no agent of the database has the login {login!r}", reason="unknown_agent")
        await self._audit.record(who_of(asked.request), "remove_agent", target=login)
        return web.Response(status=204)

    async def activity(self, asked: Asked[None, ActivityFilter]) -> web.Response:
        query = asked.query
        wanted = ActivityQuery(
            start=query.start,
            end=query.end,
            agent=query.agent,
            team=query.team,
            activity=str(query.activity or ""),
            oldest_first=query.order == "oldest",
            limit=query.limit,
            cursor=query.cursor,
        )
        try:
            page = await _stored(activity_page(self._database, wanted))
        except ActivityQueryError as error:
            raise Problem(422, str(error), reason="bad_query") from error
        return json_response(ActivityReport, ActivityReport(page.rows, page.next or None))

    async def audit(self, asked: Asked[None, AuditFilter]) -> web.Response:
        query = asked.query
        records = await _stored(self._audit.latest(before=query.before, limit=query.limit))
        return json_response(AuditPage, AuditPage(records))

    def _view(self, asked: Asked[Any, Any]) -> AgentView:
        try:
            return self._agents.view(asked.path("login"))
        except UnknownAgent as error:
            raise _unknown(error) from error


def _unknown(error: UnknownAgent) -> Problem:
    return Problem(404, str(error), reason="unknown_agent")


async def _stored(asking: Awaitable[T]) -> T:
    try:
        return await asking
    except RosterConflict as error:
        raise Problem(409, str(error), reason="agent_conflict") from error
    except StoreUnavailable as error:
        raise Problem(503, str(error), headers={"Retry-After": "5"}, reason="database_unavailable") from error


def agent_operations(agents: Agents, database: AgentDatabase, audit: AuditLog) -> list[Operation]:
    routes = _Routes(agents, database, audit)
    down = frozenset({503})
    seen = json_answer(200, "The agent as he is now", AgentView)

    def make(
        method: str, path: str, name: str, summary: str, act: Callable[..., Any], answer: Answer, **more: Any
    ) -> Operation:
        return Operation(
            method=method, path=path, name=name, tag="agents", summary=summary, handler=act,
            answers=(answer,), **more,
        )  # fmt: skip

    everybody = json_answer(200, "All agents, by team and name", AgentList)
    page = json_answer(200, "A page of rows", ActivityReport)
    return [
        make("GET", AGENTS, "listAgents", "Agents and their states", routes.listed, everybody),
        make("GET", _STATE, "showAgentState", "An agent's state", routes.state, seen),
        make(
            "PUT", _STATE, "setAgentState", "Ready, Not Ready or Logged Out", routes.choose, seen,
            body=ChooseState, errors=down,
            description="While the agent is Busy or Supervising it takes effect afterwards: `next_state`.",
        ),
        make(
            "PUT", _AGENT, "putAgent", "Add or change an agent of the database", routes.put, seen,
            body=PutAgent, errors=down | {409},
        ),
        make(
            "DELETE", _AGENT, "removeAgent", "Remove an agent of the database", routes.remove,
            Answer(204, "He is no agent any more"), errors=down | {409},
        ),
        make(
            "GET", "/api/v1/agent-activity", "agentActivity", "Agent activity, split at quarter-hours",
            routes.activity, page, query=ActivityFilter, errors=down,
            description="Activities that have ended, and of those that last the quarter-hours that are over.",
        ),
        make(
            "GET", "/api/v1/audit", "audit", "Who did what", routes.audit,
            json_answer(200, "Newest first", AuditPage), query=AuditFilter, errors=down,
        ),
    ]  # fmt: skip
