"""What every call needs from the rest of the gateway, handed over once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.calls.routing import Directory
from gateway.cdr.journal import Journal
from gateway.clock import Clock
from gateway.config_models import Config
from gateway.sip.session_ports import ResolverPort
from gateway.sip.useragent import UserAgent
from gateway.trunks.probe import Prober
from gateway.trunks.registry import Trunks
from media.patchbay import PatchBay
from media.pool import RoomPool


@dataclass(frozen=True, slots=True)
class Sounds:
    """Files rtpengine plays, made ready at start (`media.music`)."""

    hold_music: Path
    ringback: Path


@dataclass(slots=True)
class CallContext:
    """The parts a call works with; `rooms` is None until a pool was started."""

    clock: Clock
    journal: Journal
    bay: PatchBay
    agent: UserAgent
    resolver: ResolverPort
    trunks: Trunks
    prober: Prober
    directory: Directory
    config: Config
    sounds: Sounds
    rooms: RoomPool | None = None
