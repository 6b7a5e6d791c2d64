"""The desk as a whole: agents, people who sign in, and their routes, put in front of the HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from gateway.agents.part import AgentsPart
from gateway.api.agent_event_routes import AgentEventStreams
from gateway.api.agent_routes import agent_operations
from gateway.api.agent_routes_desk import CallSource, Desk, PageSource
from gateway.api.metrics import Reading
from gateway.api.server import HttpApi
from gateway.api.sessions import Door
from gateway.api.sign_in import PATH, SignIn
from gateway.api.web_routes import web_operations
from gateway.cdr.journal import Journal
from gateway.clock import Clock, LoopClock
from gateway.config_models import Config
from gateway.teams.sign_in_model import TokensKept

if TYPE_CHECKING:
    from gateway.teams.sign_in import EntraSignIn


def open_desk(
    config: Config,
    part: AgentsPart,
    calls: CallSource,
    journal: Journal,
    http: HttpApi,
    *,
    kept: TokensKept | None = None,
    teams: PageSource | None = None,
    clock: Clock | None = None,
) -> Door:
    """Add the routes and the guard to `http`; before its start.

    kept: told of everybody who signs in with Entra ID, with msal's cache of his tokens
    teams: what tells pages of Teams
    """
    door = Door(part.sessions, part.audit, config.sign_in, part.agents.calls_of)
    entra = _entra(config, kept)
    now: Callable[[], float] = (clock or LoopClock()).now
    desk = Desk(part.agents, calls, journal, teams=teams)
    http.add_routes(SignIn(door, part.accounts, part.roster, entra, now).operations())
    http.add_routes(desk.operations())
    http.add_routes(agent_operations(part.agents, part.database, part.audit))
    streams = AgentEventStreams(part.journal)
    http.add_routes([streams.operation()])
    http.add_routes(web_operations())
    http.admit_people(door.middleware)
    http.on_stopping(desk.close)
    http.on_stopping(streams.close)
    if entra is not None:
        http.on_stopping(partial(asyncio.to_thread, entra.close))
    return door


def _entra(config: Config, kept: TokensKept | None) -> EntraSignIn | None:
    sign_in, graph = config.sign_in, config.graph
    if not sign_in.entra or graph is None or sign_in.public_url is None:
        return None
    # not at the top: who does not use msal does not wait for it at every start
    from gateway.teams.sign_in import EntraSignIn

    return EntraSignIn(graph, f"{sign_in.public_url.rstrip('/')}{PATH}/entra/callback", kept=kept)


def agent_readings(part: AgentsPart) -> list[Reading]:
    """For `/metrics`."""
    found = [
        Reading("tandem_agents", number, "Agents by state.", labels={"state": str(state)})
        for state, number in part.agents.counts().items()
    ]
    found.append(Reading("tandem_agents_journal_up", not part.journal.fault, "1 while states can be kept."))
    found.append(Reading("tandem_agent_activity_up", not part.writer.fault, "1 while rows are written."))
    return found
