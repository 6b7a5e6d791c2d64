"""What every call needs from the rest of the gateway, handed over once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from gateway.calls.remember import Memory


@dataclass(frozen=True, slots=True)
class Sounds:
    """Files rtpengine plays, made ready at start (`media.music`)."""

    hold_music: Path
    ringback: Path


@dataclass(slots=True)
class CallContext:
    """The parts a call works with.

    rooms:  None without conferences
    memory: what the next gateway will know of the calls; None: a restart ends them
    """

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
    memory: Memory | None = None
