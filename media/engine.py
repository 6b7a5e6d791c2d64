"""The media engine: rtpengine, and the Redis that lets its calls survive its crash.

`embedded` runs both in sessions of their own, so that they outlive a crash or restart of the gateway. What
runs is written to `engine.json` in the state directory, and the next gateway adopts it when it is still the
same process with the same options. `udp:host:port` uses an rtpengine that somebody else runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gateway.errors import MediaUnavailable
from media.digits import Digit, DigitListener
from media.engine_leg import EngineOptions
from media.process import Daemon, last_line, spawn
from media.rtpengine import NgClient

log = logging.getLogger("tandem.media")

EMBEDDED = "embedded"
_STATE_FILE = "engine.json"
_DAY = "86400"
"""Seconds of silence after which rtpengine drops a call: held legs are silent for long (T19)."""
_LOG_LEVEL = "4"
"""Warnings and worse; from 6 on it would print descriptions with their keys."""
_EXPEDITED = "184"
"""DSCP EF as a TOS byte, for the media packets."""
_MISSED_PINGS = 3
_START_LIMIT = 8.0


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """[media] of the configuration.

    rtpengine: "embedded" or "udp:host:port"
    address:   what our descriptions say; bind: the local address when that is another one (address
               translation), None to find out
    ports:     first and last UDP port, for both halves of every leg: four a leg
    """

    rtpengine: str
    address: str
    ports: tuple[int, int]
    state_dir: Path
    bind: str | None = None
    ping_interval: float = 1.0


@dataclass(frozen=True, slots=True)
class _State:
    """What runs; one line of JSON in the state directory, readable by us alone."""

    options: list[str]
    ng_port: int
    dtmf_port: int
    redis_port: int
    redis_password: str
    redis: Daemon
    rtpengine: Daemon


class Engine:
    """Start it before the first call, stop it after the last one.

    ng:           the client; the same object through all restarts
    on_restarted: called in the loop each time rtpengine is back after it had been away; legs have to be
                  connected again then (PatchBay.restored)
    on_digit:     called in the loop for each digit that a party pressed (embedded engine only)
    up:           it answered the last ping
    revived:      it had died while no gateway ran, and has its legs back from Redis: `on_restarted`, which
                  nobody could be told then, is still to be done
    dtmf_port:    where on 127.0.0.1 the embedded rtpengine reports digits, kept over restarts; else 0
    """

    def __init__(
        self,
        settings: EngineSettings,
        on_restarted: Callable[[], None] = lambda: None,
        on_digit: Callable[[Digit], None] = lambda digit: None,
    ) -> None:
        self.settings = settings
        self.on_restarted = on_restarted
        self.on_digit = on_digit
        self.ng = NgClient()
        self.up = False
        self.adopted = False
        self.revived = False
        self.restarts = 0
        self._state: _State | None = None
        self._watch: asyncio.Task[None] | None = None
        self._digits: asyncio.DatagramTransport | None = None

    @property
    def embedded(self) -> bool:
        return self.settings.rtpengine == EMBEDDED

    @property
    def options(self) -> EngineOptions:
        """How legs have to be offered to this engine."""
        return EngineOptions() if self.embedded else EngineOptions(interfaces=None)

    @property
    def dtmf_port(self) -> int:
        return self._state.dtmf_port if self._state else 0

    @property
    def processes(self) -> dict[str, int]:
        """Names and pids of what we run; empty for an external engine."""
        state = self._state
        return {"redis": state.redis.pid, "rtpengine": state.rtpengine.pid} if state else {}

    async def start(self) -> None:
        """Adopt what runs or start it; MediaUnavailable when it does not come up."""
        if self.embedded:
            await self._start_embedded()
            await self._hear_digits()
        else:
            await self.ng.connect(_address(self.settings.rtpengine))
            await self.ng.ping()
        self.up = True
        self._watch = asyncio.get_running_loop().create_task(self._keep(), name="media-engine")

    async def detach(self) -> None:
        """Stop watching and leave everything running for the next gateway to adopt."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        self.up = False
        self.ng.close()
        if self._digits is not None:
            self._digits.close()
            self._digits = None
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """End what runs, all its calls with it; also what an earlier gateway has left running."""
        await self.detach()
        state = self._state or (self._read_state() if self.embedded else None)
        if state is not None:
            await asyncio.gather(state.rtpengine.stop(), state.redis.stop())
            self._state = None
            self._file.unlink(missing_ok=True)

    async def _hear_digits(self) -> None:
        """Without it digits still reach the other party; only nobody here is told."""
        loop = asyncio.get_running_loop()
        try:
            self._digits, _ = await loop.create_datagram_endpoint(
                lambda: DigitListener(lambda digit: self.on_digit(digit)),
                local_addr=("127.0.0.1", self.dtmf_port),
            )
        except OSError as error:
            log.error("digit_port_taken port=%d cause=%s", self.dtmf_port, error.strerror)

    # ---- embedded ------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self.settings.state_dir / _STATE_FILE

    async def _start_embedded(self) -> None:
        self.settings.state_dir.mkdir(parents=True, exist_ok=True)
        options = _options(self.settings)
        state = self._read_state()
        known = state is not None and state.options == options
        if known and state is not None and (await self._adopt(state) or await self._restore(state)):
            return
        if state is not None:
            log.warning("engine_replaced pid=%d cause=gone_or_other_options", state.rtpengine.pid)
            await asyncio.gather(state.rtpengine.stop(), state.redis.stop())
        await self._start_anew(options, state)

    async def _adopt(self, state: _State) -> bool:
        """rtpengine runs and answers; a dead Redis is brought back beside it as at any time."""
        if not state.rtpengine.running:
            return False
        await self.ng.connect(("127.0.0.1", state.ng_port))
        try:
            await self.ng.ping()
        except MediaUnavailable:
            return False
        self._state, self.adopted = state, True
        log.info("engine_adopted pid=%d port=%d", state.rtpengine.pid, state.ng_port)
        return True

    async def _restore(self, state: _State) -> bool:
        """rtpengine died or hung while no gateway watched: start it again on what its Redis has kept."""
        if not state.redis.running:
            return False
        log.error("rtpengine_died pid=%d", state.rtpengine.pid)
        await state.rtpengine.stop(0.5)
        self._state = state
        try:
            self._save(replace(state, rtpengine=await self._start_rtpengine(state)))
        except MediaUnavailable as error:
            log.error("engine_restart_failed cause=%s", error.text)
            self._state = None
            return False
        self.adopted = self.revived = True
        return True

    async def _start_anew(self, options: list[str], before: _State | None) -> None:
        """Redis and rtpengine on free ports; another try when somebody else was quicker to take one."""
        password = secrets.token_urlsafe(24)
        for attempt in range(3):
            ports = _free_ports(before.dtmf_port if before else 0)
            state = _State(options, *ports, password, Daemon(0, 0), Daemon(0, 0))
            try:
                state = replace(state, redis=await self._start_redis(state))
                self._state = state
                state = replace(state, rtpengine=await self._start_rtpengine(state))
                self._save(state)
                return
            except MediaUnavailable:
                await asyncio.gather(state.rtpengine.stop(), state.redis.stop())
                self._state = None
                if attempt == 2:
                    raise

    async def _start_redis(self, state: _State) -> Daemon:
        """Loopback only, with a password, nothing on disk."""
        configuration = (
            f"port {state.redis_port}\nbind 127.0.0.1\nrequirepass {state.redis_password}\n"
            f'save ""\nappendonly no\ndaemonize no\ndatabases 2\ntimeout 0\ndir "{self.settings.state_dir}"\n'
        )
        log_file = self.settings.state_dir / "redis.log"
        daemon = spawn(
            ["redis-server", "-"], stdin=configuration.encode(), log_file=log_file, environment=_environment()
        )
        await self._until_up("redis-server", daemon, log_file, lambda: _connects(state.redis_port))
        return daemon

    async def _start_rtpengine(self, state: _State) -> Daemon:
        log_file = self.settings.state_dir / "rtpengine.log"
        daemon = spawn(
            [
                *state.options,
                f"--listen-ng=127.0.0.1:{state.ng_port}",
                f"--dtmf-log-dest=127.0.0.1:{state.dtmf_port}",
                f"--redis=127.0.0.1:{state.redis_port}/1",
            ],
            stdin=b"",
            log_file=log_file,
            environment=_environment(RTPENGINE_REDIS_AUTH_PW=state.redis_password),
        )
        await self.ng.connect(("127.0.0.1", state.ng_port))
        await self._until_up("rtpengine", daemon, log_file, self._pongs)
        log.info("engine_started pid=%d port=%d", daemon.pid, state.ng_port)
        return daemon

    async def _until_up(
        self, name: str, daemon: Daemon, log_file: Path, up: Callable[[], Awaitable[bool]]
    ) -> None:
        deadline = asyncio.get_running_loop().time() + _START_LIMIT
        while daemon.running and asyncio.get_running_loop().time() < deadline:
            if await up():
                return
            await daemon.ended(0.02)
        await daemon.stop(0.5)
        raise MediaUnavailable(f"{name} does not start: {last_line(log_file)}")

    async def _pongs(self) -> bool:
        try:
            await self.ng.ping((0.2,))
        except MediaUnavailable:
            return False
        return True

    # ---- watching ------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Ping at the interval; bring back what died; tell when rtpengine had been away."""
        missed = 0
        while True:
            answers = self.ng.answers
            died = await self._next_look()
            if died:
                self.up = False
                await self._revive()
                missed = 0
                continue
            if await self._pongs():
                if not self.up:
                    self._back()
                self.up, missed = True, 0
                continue
            if self.ng.answers != answers:
                # late with its answers, but at work: killing it would cost every call
                log.warning("engine_slow address=%s:%d", *self.ng.address)
                missed = 0
                continue
            missed += 1
            if self.up:
                log.error("engine_silent address=%s:%d", *self.ng.address)
            self.up = False
            if self._state is not None and missed >= _MISSED_PINGS:
                log.error("engine_hangs pid=%d", self._state.rtpengine.pid)
                await self._state.rtpengine.stop(0.5)

    async def _next_look(self) -> bool:
        """Wait for the interval or a death; True when rtpengine or Redis is dead."""
        if self._state is None:
            await asyncio.sleep(self.settings.ping_interval)
            return False
        deaths = [
            asyncio.ensure_future(daemon.ended(self.settings.ping_interval))
            for daemon in (self._state.rtpengine, self._state.redis)
        ]
        try:
            await asyncio.wait(deaths, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for death in deaths:
                death.cancel()
            await asyncio.gather(*deaths, return_exceptions=True)
        return not (self._state.rtpengine.running and self._state.redis.running)

    async def _revive(self) -> None:
        """Start again whatever died, on the same ports, until it works."""
        pause = 0.1
        dead: list[Daemon] = []
        while self._state is not None:
            state = self._state
            try:
                if not state.redis.running:
                    log.error("redis_died pid=%d", state.redis.pid)
                    dead.append(state.redis)
                    state = replace(state, redis=await self._start_redis(state))
                if not state.rtpengine.running:
                    log.error("rtpengine_died pid=%d", state.rtpengine.pid)
                    dead.append(state.rtpengine)
                    state = replace(state, rtpengine=await self._start_rtpengine(state))
                self._save(state)
                for daemon in dead:
                    daemon.reap()
                break
            except MediaUnavailable as error:
                self._state = state
                log.error("engine_restart_failed cause=%s", error.text)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)
        self.up = True
        self._back()

    def _back(self) -> None:
        self.restarts += 1
        log.warning("engine_back restarts=%d", self.restarts)
        self.on_restarted()

    # ---- what runs -----------------------------------------------------------------------------------

    def _save(self, state: _State) -> None:
        self._state = state
        partial = self._file.with_suffix(".new")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
        partial.replace(self._file)

    def _read_state(self) -> _State | None:
        try:
            record = json.loads(self._file.read_text(encoding="utf-8"))
            redis, rtpengine = Daemon(**record.pop("redis")), Daemon(**record.pop("rtpengine"))
            return _State(**record, redis=redis, rtpengine=rtpengine)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("engine_state_unreadable cause=%s", type(error).__name__)
            return None


def _options(settings: EngineSettings) -> list[str]:
    """The part of rtpengine's command line that follows from the configuration alone.

    No configuration file is read: the package's own would bring other interfaces and a kernel table.
    """
    local = settings.bind or _local_address(settings.address)
    outside = local if local == settings.address else f"{local}!{settings.address}"
    first, last = settings.ports
    return [
        "rtpengine",
        "--config-file=none",
        "--foreground",
        "--log-stderr",
        f"--log-level={_LOG_LEVEL}",
        "--table=-1",
        "--interface=int/127.0.0.1",
        f"--interface=ext/{outside}",
        f"--port-min={first}",
        f"--port-max={last}",
        f"--tos={_EXPEDITED}",
        f"--timeout={_DAY}",
        f"--silent-timeout={_DAY}",
        "--delete-delay=0",
        f"--num-threads={os.cpu_count() or 2}",
        f"--media-num-threads={os.cpu_count() or 2}",
    ]


def _local_address(address: str) -> str:
    """`address` when this host has it, else the one from which traffic toward it leaves."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            try:
                probe.connect((address, PROBE_PORT))
            except OSError as error:
                raise MediaUnavailable(
                    f"[media] address {address} cannot be used: {error.strerror}"
                ) from error
        return str(probe.getsockname()[0])


PROBE_PORT = 9
"""Nothing is sent there: connecting a UDP socket only asks the routing table."""


def _free_ports(dtmf: int) -> tuple[int, int, int]:
    """ng (UDP), digit reports (UDP, `dtmf` when given) and Redis (TCP), free at this moment."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ng,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reports,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as redis,
    ):
        for probe in (ng, reports, redis):
            probe.bind(("127.0.0.1", 0))
        return ng.getsockname()[1], dtmf or reports.getsockname()[1], redis.getsockname()[1]


async def _connects(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C", **more}


def _address(text: str) -> tuple[str, int]:
    """`udp:host:port` of an external rtpengine's ng listener."""
    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    if kind != "udp" or not host or not port.isdecimal():
        raise MediaUnavailable(f"[media] rtpengine is neither embedded nor udp:host:port: {text}")
    return host.strip("[]"), int(port)
