"""The room put into the gateway: from `[graph]` to a part with routes and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gateway.agents.part import AgentsPart
from gateway.api.metrics import Metrics, Reading
from gateway.api.server import HttpApi
from gateway.config_models import Config, Graph
from gateway.teams.account_model import Account
from gateway.teams.clouds import ADDRESSES, GLOBAL, Cloud
from gateway.teams.directory import Attendant
from gateway.teams.entra import Identity
from gateway.teams.presence_desk import AgentDesks
from gateway.teams.presence_rules import IN_A_CALL, MARKER, WIDER, Options
from gateway.teams.room import Settings, TeamsRoom
from gateway.teams.routes import outside_routes, teams_operations
from gateway.teams.sign_in_model import EntraIdentity, TokensKept
from gateway.teams.web_chat_routes import web_chat_operations


def open_teams(
    config: Config, graph: Graph, agents: AgentsPart, http: HttpApi, metrics: Metrics
) -> TeamsRoom:
    """Add routes and metrics, before the server's start."""
    room = TeamsRoom(settings(config, graph, agents), AgentDesks(agents.agents))
    http.add_routes([*outside_routes(room), *teams_operations(room), *web_chat_operations(room.web_chats)])
    agents.roster.changed.append(lambda _: room.mapping_changed())
    metrics.add("teams", lambda: teams_readings(room))
    return room


def settings(config: Config, graph: Graph, agents: AgentsPart) -> Settings:
    def mapped() -> dict[str, str]:
        return {one.login: one.teams_user for one in agents.roster.agents if one.teams_user}

    account = Account(
        graph.tenant,
        graph.client_id,
        graph.client_secret.get_secret_value(),
        graph.object_id,
        graph.secret_expires,
    )
    hook = config.web_chat.webhook
    attendant = Attendant(graph.attendant, graph.attendant_digits) if graph.attendant else None
    wider = WIDER if graph.busy == "meetings" else frozenset({IN_A_CALL})
    options = Options(enter=wider, stay=wider, written=MARKER if graph.busy_marker else IN_A_CALL)
    return Settings(
        cloud_of(graph),
        account,
        (graph.public_url or config.sign_in.public_url or "").rstrip("/"),
        mapped,
        config.gateway.state_dir,
        config.database_url,
        attendant,
        options,
        (hook.url, hook.secret.get_secret_value(), hook.timeout) if hook is not None else None,
        graph.tenant,
        graph.client_id,
    )


def tokens_kept(room: TeamsRoom) -> TokensKept:
    """What the sign-in at the desk is given; it calls from a thread."""
    loop = asyncio.get_running_loop()

    def kept(found: EntraIdentity, tokens: str) -> None:
        identity = Identity(found.oid, found.tenant, found.name, found.user_principal_name)
        asyncio.run_coroutine_threadsafe(room.at_the_desk(identity, tokens), loop)

    return kept


def cloud_of(graph: Graph) -> Cloud:
    """What `authority` and `root` name; in the national clouds presence cannot be set."""
    root = graph.root.rstrip("/")
    national = any(root == known for name, (_, known) in ADDRESSES.items() if name != GLOBAL)
    return Cloud(graph.authority.rstrip("/"), root, graph.trusted_roots, may_set_presence=not national)


def teams_readings(room: TeamsRoom) -> Iterator[Reading]:
    """For `/metrics`."""
    days = room.accounts.days_left
    yield Reading("tandem_teams_users", len(room.users.enabled), "Agents who have enabled Teams.")
    if days is not None:
        yield Reading(
            "tandem_teams_secret_expires_seconds", days * 86400.0, "Until the client secret expires."
        )
    for state, count in room.web_chats.counts.items():
        yield Reading("tandem_web_chats", count, "Web chats by state.", labels={"state": state})
    if room.hook is not None:
        yield Reading("tandem_web_chat_hook_up", not room.hook.fault, "1 while the webhook takes events.")
        yield Reading("tandem_web_chat_hook_waiting", room.hook.waiting, "Events that wait for the webhook.")
        yield Reading("tandem_web_chat_hook_written", room.hook.written, "Events it took.", "counter")
        yield Reading("tandem_web_chat_hook_rejected", room.hook.rejected, "Events it refused.", "counter")
    connection = room.connection
    yield Reading("tandem_teams_connected", connection is not None, "Whether there is an account in use.")
    if connection is None:
        return
    for (category, result), count in connection.client.counters.requests.items():
        labels = {"category": category, "result": result}
        yield Reading("tandem_graph_requests", count, "Requests to Graph.", "counter", labels)
    throttled = connection.client.counters.throttled
    yield Reading("tandem_graph_throttled", throttled, "Times Graph asked us to wait.", "counter")
    yield Reading(
        "tandem_graph_subscriptions", connection.subscriptions.active, "Subscriptions that Graph has."
    )
    received = connection.receiver.received
    yield Reading("tandem_graph_notifications", received, "Notifications taken.", "counter")
    for reason, count in connection.receiver.dropped.items():
        labels = {"reason": reason}
        yield Reading("tandem_graph_dropped", count, "Notifications dropped.", "counter", labels)
    for rule, count in connection.sync.counts.items():
        yield Reading("tandem_busy_sync", count, "Decisions by rule.", "counter", {"rule": rule})
