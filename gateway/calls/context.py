"""What every call needs from the rest of the gateway, handed over once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.calls.routing import Directory
from gateway.cdr.journal import Journal
from gateway.clock import Clock
from gateway.config_models import Config
from gateway.phone.phones import Phones
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
    phones: the agents' pages
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
    phones: Phones = field(default_factory=Phones)
