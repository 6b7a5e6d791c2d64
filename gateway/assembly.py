"""From configuration to a gateway: every room made, wired and put in order. Nothing starts here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.agents.part import AgentsPart
from gateway.api.call_detail_routes import call_detail_operation
from gateway.api.call_metrics import CallMetrics
from gateway.api.control_routes import control_operations
from gateway.api.event_routes import EventStreams
from gateway.api.metrics import Metrics
from gateway.api.phone_routes import PhoneRoutes
from gateway.api.readings import (
    app_readings,
    journal_readings,
    media_readings,
    registry_readings,
    room_readings,
    sink_readings,
    stream_readings,
    transaction_readings,
    transport_readings,
    trunk_readings,
)
from gateway.api.server import HttpApi
from gateway.api.trunk_routes import trunk_routes
from gateway.app import App
from gateway.calls.context import Sounds
from gateway.calls.control import CallControl
from gateway.calls.restore import Restorer
from gateway.calls.snapshots import SnapshotStore
from gateway.cdr.journal import Journal
from gateway.cdr.recorder import Recorder
from gateway.cdr.report import Reports
from gateway.cdr.sinks import JsonLinesSink, Sink
from gateway.cdr.sinks_sql import SqlSink
from gateway.cdr.sinks_webhook import WebhookSink
from gateway.config_models import Config
from gateway.desk import agent_readings, open_desk
from gateway.parts import EnginePart, JournalPart, RecorderPart, RecoveryPart, RoomsPart
from gateway.state_dir import Note, StateDir
from gateway.teams.sign_in_model import TokensKept
from gateway.telephony import Telephony
from media import music
from media.engine import Engine, EngineSettings
from media.melody import write_melody
from media.patchbay import PatchBay
from media.pool import RoomPool, RoomSettings

if TYPE_CHECKING:
    from gateway.teams.room import TeamsRoom

_MIB = 1 << 20


@dataclass(frozen=True)
class Gateway:
    """The whole of it; `app` runs it, the rest is for tests and tools that look inside."""

    app: App
    telephony: Telephony
    journal: Journal
    recorder: Recorder
    engine: Engine
    http: HttpApi
    metrics: Metrics
    agents: AgentsPart


def assemble(
    config: Config, sounds: Sounds, state: StateDir, may_restart: Callable[[], str] = lambda: ""
) -> Gateway:
    """Call it in the running loop. `sounds` are the prepared files of `[media] music`; `may_restart` as in
    `App`.
    """
    journal = Journal(reserve_bytes=config.limits.min_free_disk * _MIB)
    recorder = Recorder(journal, config.gateway.state_dir / "outbox", sinks(config))
    engine = Engine(engine_settings(config))
    bay = PatchBay(engine.ng, engine.settings.address, engine.options)
    rooms = RoomPool(RoomSettings(music=sounds.hold_music))
    telephony = Telephony(config, journal=journal, bay=bay, sounds=sounds, rooms=rooms)
    engine.on_digit = telephony.calls.pressed
    store = SnapshotStore(config.gateway.state_dir / "calls")
    telephony.restorer = restorer = Restorer(
        telephony.context,
        telephony.calls,
        telephony.transports,
        store,
        lambda: recorder.states,
        lambda: engine.revived,
    )
    engine.on_restarted = restorer.media_restarted

    metrics, figures = Metrics(), CallMetrics()
    journal.subscribe(lambda entry: figures.observe(entry.event))
    tokens = {token.name: token.secret.get_secret_value() for token in config.http.tokens}
    readers = [token.name for token in config.http.tokens if token.access == "read"]
    http = HttpApi(config.http.listen, status=lambda: app, metrics=metrics, tokens=tokens, readers=readers)
    note = Note(config.gateway.state_dir, lambda: http.address)
    http.add_token("this machine", note.token)
    http.add_routes(trunk_routes(lambda: telephony.trunks.status(telephony.context.clock.now())))
    streams, reports = EventStreams(journal), Reports(config.database_url)
    control = CallControl(telephony.context, telephony.calls)
    http.add_routes(control_operations(control))
    agents = AgentsPart(
        config,
        journal,
        lambda: recorder.states.values(),
        worked_on=lambda: recorder.worked_on,
        records_clock=telephony.context.clock,
    )
    agents.roster.changed.append(telephony.know_agents)
    teams: TeamsRoom | None = None
    kept: TokensKept | None = None
    if config.graph is not None:
        # not at the top: who does not use msal does not wait for it at every start
        from gateway.teams.wiring import open_teams, tokens_kept

        teams = open_teams(config, config.graph, agents, http, metrics)
        kept = tokens_kept(teams)
    feeds = teams.feeds if teams is not None else None
    open_desk(config, agents, control, journal, http, kept=kept, teams=feeds)
    http.add_routes([streams.operation(), call_detail_operation(reports)])
    phone = PhoneRoutes(telephony.context.phones, readers=readers)
    http.add_routes([phone.operation()])
    http.on_stopping(phone.close)
    http.on_stopping(streams.close)
    http.on_stopping(reports.close)
    app = App(
        [
            state,
            JournalPart(journal, config.journal_dir),
            RecorderPart(recorder),
            agents,
            EnginePart(engine),
            RecoveryPart(restorer, store),
            RoomsPart(rooms),
            telephony,
            http,
            *([teams] if teams is not None else []),
            note,
        ],
        calls=lambda: len(telephony.calls.calls),
        on_drain=telephony.drain,
        drain_timeout=config.limits.drain_timeout,
        may_restart=may_restart,
    )

    transports, transactions = telephony.transports, telephony.transactions
    metrics.add("app", lambda: app_readings(app))
    metrics.add("calls", figures.readings)
    metrics.add("registry", lambda: registry_readings(telephony.calls.limits.refused, telephony.agent.active))
    metrics.add("transport", lambda: transport_readings(transports.counters, transports.connections))
    metrics.add("transactions", lambda: transaction_readings(transactions.counters, transactions.active))
    metrics.add("journal", lambda: journal_readings(journal))
    metrics.add("sinks", lambda: sink_readings(recorder.sinks))
    metrics.add("events", lambda: stream_readings(streams.readers))
    metrics.add("media", lambda: media_readings(engine.up, engine.restarts, len(bay.anchors)))
    metrics.add("agents", lambda: agent_readings(agents))
    metrics.add("phone", phone.readings)
    metrics.add("rooms", lambda: room_readings(rooms))
    metrics.add("trunks", lambda: trunk_readings(telephony.trunks.status(telephony.context.clock.now())))
    for histogram in (figures.ringing, figures.duration, figures.mos):
        metrics.add_histogram(histogram)
    return Gateway(app, telephony, journal, recorder, engine, http, metrics, agents)


async def prepare_sounds(config: Config) -> Sounds:
    """The files that rtpengine plays, converted where they are not yet. SoundError, OSError."""
    cache = config.gateway.state_dir / "sounds"
    source = config.media.music
    if source is None:
        source = await asyncio.to_thread(write_melody, cache / "melody.wav")
    return Sounds(await music.prepare(source, cache), await music.ringback(cache))


def engine_settings(config: Config) -> EngineSettings:
    """What peers are told is the public address where there is one."""
    media = config.media
    return EngineSettings(
        rtpengine=media.rtpengine,
        address=media.public_address or media.address,
        bind=media.address if media.public_address else None,
        ports=media.ports,
        state_dir=config.gateway.state_dir / "media",
    )


def sinks(config: Config) -> list[Sink]:
    """The database, and what `[cdr]` adds."""
    found: list[Sink] = [SqlSink(config.database_url)]
    if config.cdr.json_lines is not None:
        found.append(JsonLinesSink(config.cdr.json_lines))
    if config.cdr.webhook is not None:
        hook = config.cdr.webhook
        found.append(WebhookSink(hook.url, hook.secret.get_secret_value(), timeout_seconds=hook.timeout))
    return found
