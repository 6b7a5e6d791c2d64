"""`GET /api/v1/agent-events`: every change of an agent's state over a WebSocket, from any id on."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from pydantic import Field

from gateway.agents.events import to_dict
from gateway.agents.journal import AgentEntry, AgentJournal
from gateway.api.event_routes import CLOSING, After, Streams
from gateway.api.event_stream import text_of
from gateway.api.operation import Answer, Asked, Operation

DESCRIPTION = f"""\
Each message is one change of one agent's state, told once it is durable, in order:
`{{"id": …, "kind": "agent_state", "login": …, "at": …, "status": …, "before": …, "by": …}}`. `agent_call`
tells of the end of his part in a call. To miss nothing, connect first and then ask for the agents; after a
break come back with `after`. Events that the agent-activity report has may have left the journal by then, but
never the last change of an agent's state.

{CLOSING}"""


class AgentEventFilter(After):
    login: tuple[str, ...] = Field(default=(), description="logins of agents; none = all agents")


@dataclass(frozen=True, slots=True)
class Of:
    """Which agents' events; none: everybody's."""

    logins: frozenset[str]

    def __contains__(self, entry: object) -> bool:
        return isinstance(entry, AgentEntry) and (not self.logins or entry.event.login in self.logins)


def message(entry: AgentEntry) -> str:
    return text_of(entry.seq, to_dict(entry.event))


class AgentEventStreams(Streams):
    """Readers of the agents' events."""

    def __init__(self, journal: AgentJournal) -> None:
        super().__init__(journal, message=message)

    async def serve(self, asked: Asked[None, AgentEventFilter]) -> web.StreamResponse:
        return await self.stream(asked.request, Of(frozenset(asked.query.login)), asked.query.after)

    def operation(self) -> Operation:
        return Operation(
            method="GET",
            path="/api/v1/agent-events",
            name="agentEvents",
            tag="agents",
            summary="Agents' states, as they change (WebSocket)",
            description=DESCRIPTION,
            query=AgentEventFilter,
            handler=self.serve,
            head=False,
            errors=frozenset({426, 503}),
            answers=(Answer(101, "A WebSocket, on which only the gateway has something to say"),),
        )
