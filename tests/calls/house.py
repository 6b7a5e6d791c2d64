"""A whole gateway in the test's own loop, between a contact-center and a Teams stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gateway.calls.context import Sounds
from gateway.cdr.call_detail import CallDetail, call_detail
from gateway.cdr.journal import Journal
from gateway.cdr.segments import Disk
from gateway.config import load
from gateway.config_models import Config
from gateway.events import Event
from gateway.telephony import Telephony
from media import music
from media.engine import Engine
from media.patchbay import PatchBay
from tests.peers.certs import Pki
from tests.peers.contact_center import ContactCenter
from tests.peers.teams import Teams
from tests.support import ports
from tests.support.stalls import Stalls

FQDN = "sbc.example.test"
EXPERT = "+15551230000"
CUSTOMER = "+49301112222"


@dataclass
class House:
    """The gateway under test and its peers; `events` is all that the journal has made durable."""

    gateway: Telephony
    config: Config
    center: ContactCenter
    teams: Teams
    journal: Journal
    engine: Engine
    stalls: Stalls
    events: list[Event] = field(default_factory=list)

    def rows(self) -> list[CallDetail]:
        """Call detail of everything so far."""
        return call_detail(self.events)

    async def quiet(self) -> None:
        """No call is left; what the session layer still owes its peers has been answered."""
        await until(lambda: not self.gateway.calls.calls, "calls to end")
        await until(lambda: not any(self.gateway.agent.active.values()), "sessions to end")

    async def assert_nothing_left(self) -> None:
        """No call, leg, session, dialog or rtpengine session is left."""
        await self.quiet()
        assert (await self.engine.ng.command("list"))["calls"] == []
        assert not self.gateway.context.bay.anchors


async def until(condition: Any, what: str, within: float = 8.0) -> None:
    """Wait for a condition of our own state, which has no event to wait for."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"no {what} within {within} s"
        await asyncio.sleep(0.01)


MUSIC_HZ = 1250.0
"""What the hold music is here, so that it can be told from everybody's tone."""
RINGBACK_HZ = 425.0


def tone_file(path: Path, hz: float = MUSIC_HZ, seconds: int = 20) -> Path:
    """A WAV file with one tone."""
    samples = (8000 * np.sin(2 * np.pi * hz * np.arange(8000 * seconds) / 8000)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    return path


def configuration(
    *,
    state: Path,
    pki: Pki,
    center: ContactCenter,
    teams: Teams,
    listen: list[str],
    media_ports: tuple[int, int],
    center_extra: str = "",
    teams_extra: str = "",
    media_extra: str = "",
    tenants: str = f'"{FQDN}"',
    allow_from: str = '"127.0.0.0/8"',
    database: str = "",
    extra: str = "",
) -> str:
    """tandem.toml for the stand-ins."""
    hosts = "\n".join(f'"{name}" = "{address}"' for name, address in teams.hosts.items())
    quoted = ", ".join(f'"{one}"' for one in listen)
    peers = ", ".join(f'"{one}"' for one in teams.peers)
    own = pki["gateway"]
    kept = f'database = "{database}"' if database else ""
    return f"""
[gateway]
fqdn = "{FQDN}"
state_dir = "{state}"
{kept}

[sip]
listen = [{quoted}]
certificate = "{own.chain}"
private_key = "{own.key}"
trusted_roots = "{pki.roots}"

[resolver.hosts]
{hosts}

[media]
address = "127.0.0.1"
ports = [{media_ports[0]}, {media_ports[1]}]
{media_extra}

[limits]
calls_per_second = 0.0
max_setup_delay = 0.0
min_free_disk = 1

[[trunk]]
name = "center"
peers = ["{center.peer}"]
{center_extra}

[[trunk]]
name = "teams"
kind = "direct-routing"
peers = [{peers}]
tenants = [{tenants}]
allow_from = [{allow_from}]
options_interval = 0.0
{teams_extra}

[[route]]
from = "center"
to = "teams"

[[route]]
from = "teams"
to = "center"
{extra}
"""


def _outside(media: tuple[int, int]) -> int:
    """A free port that rtpengine will not want: the gateway refuses to listen inside [media] ports."""
    while media[0] <= (port := ports.free_port()) <= media[1]:
        continue
    return port


@contextlib.asynccontextmanager
async def open_house(
    engine: Engine,
    pki: Pki,
    folder: Path,
    *,
    center: ContactCenter | None = None,
    teams: Teams | None = None,
    rooms: Any = None,
    disk: Disk | None = None,
    **texts: str,
) -> AsyncIterator[House]:
    """Start the gateway and its peers; at the end nothing may be left. `disk`: what the journal writes to."""
    plain, secure = _outside(engine.settings.ports), _outside(engine.settings.ports)
    center = center or ContactCenter()
    teams = teams or Teams(pki, media_addresses=["127.0.0.1"])
    center.gateway = ("127.0.0.1", secure if center.kind == "TLS" else plain)
    teams.gateway = ("127.0.0.1", secure)
    async with center, teams, Stalls() as stalls:
        state = folder / "state"
        state.mkdir(exist_ok=True)
        file = folder / "tandem.toml"
        listen = [f"udp:127.0.0.1:{plain}", f"tcp:127.0.0.1:{plain}", f"tls:127.0.0.1:{secure}"]
        file.write_text(
            configuration(
                state=state,
                pki=pki,
                center=center,
                teams=teams,
                listen=listen,
                media_ports=engine.settings.ports,
                **texts,
            )
        )
        config = load(file)
        journal = Journal(reserve_bytes=1 << 20, ballast_bytes=1 << 16, retry_seconds=0.2, disk=disk)
        await journal.open(config.journal_dir)
        sounds = Sounds(
            await music.prepare(tone_file(folder / "music.wav"), state / "sounds"),
            await music.ringback(state / "sounds"),
        )
        bay = PatchBay(engine.ng, engine.settings.address, engine.options)
        gateway = Telephony(config, journal=journal, bay=bay, sounds=sounds, rooms=rooms)
        house = House(gateway, config, center, teams, journal, engine, stalls)
        engine.on_digit = gateway.calls.pressed
        journal.subscribe(lambda entry: house.events.append(entry.event))
        await gateway.start()
        try:
            yield house
            await house.assert_nothing_left()
        finally:
            await gateway.stop()
            await journal.close()
