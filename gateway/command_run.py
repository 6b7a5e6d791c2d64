"""`tandem run` and `tandem check-config`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.app import PartFailed
from gateway.config import examine
from gateway.config_models import Config
from gateway.errors import TandemError
from gateway.exit_codes import ExitCode, exit_code_for
from gateway.logs import LogSetup
from gateway.state_dir import StateDir, read_note

log = logging.getLogger("tandem.app")

_LAST = 1.0
"""Seconds that threads have to end when everything else has."""
RESTART_LIMIT = 60.0
"""Seconds `tandem restart` waits for the gateway to be up again."""


def check(path: Path) -> ExitCode:
    """Print every mistake and every warning; OK when the gateway would start with this file."""
    found = examine(path)
    for error in found.errors:
        print(f"error: {error}")
    for warning in found.warnings:
        print(f"warning: {warning}")
    if found.config is None:
        return ExitCode.CONFIG
    trunks, routes = len(found.config.trunks), len(found.config.routes)
    print(f"{path}: good ({trunks} trunks, {routes} routes, room for {found.config.max_calls} calls)")
    return ExitCode.OK


def run(path: Path) -> ExitCode:
    """Run the gateway until it is told to stop."""
    found = examine(path)
    if found.config is None:
        for error in found.errors:
            print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.CONFIG
    config = found.config
    setup = LogSetup(level=config.log.level, form=config.log.format, secrets=config.secrets())
    try:
        for warning in found.warnings:
            log.warning("event=config_warning %s", warning)
        again, code = asyncio.run(_run(config, path)), ExitCode.OK
    except (TandemError, OSError) as error:
        code = exit_code_for(error)
        what = f"part={error.part} cause={error.cause}" if isinstance(error, PartFailed) else f"cause={error}"
        unexpected = error if code is ExitCode.INTERNAL else None
        log.critical("event=not_started exit=%d %s", code, what, exc_info=unexpected)
        again = False
    except Exception:
        again, code = False, ExitCode.INTERNAL
        log.critical("event=crashed exit=%d", code, exc_info=True)
    finally:
        setup.close()
    if again:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    _leave_behind(code)
    return code


def _leave_behind(code: ExitCode) -> None:
    """End at once when threads do not: the interpreter would wait for one that a silent database holds."""
    until = time.monotonic() + _LAST
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join(max(until - time.monotonic(), 0.0))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)


def restart(path: Path) -> ExitCode:
    """Let the running gateway execute itself anew; returns when it is up again, its calls with it."""
    config = examine(path).config
    if config is None:
        return check(path)
    note = read_note(config.gateway.state_dir)
    if note is None:
        print(f"tandem: no gateway runs on {config.gateway.state_dir}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    begun = time.monotonic()
    os.kill(note.pid, signal.SIGHUP)
    while time.monotonic() - begun < RESTART_LIMIT:
        time.sleep(0.05)
        now = read_note(config.gateway.state_dir)
        if now is not None and now.token != note.token:
            print(f"restarted in {time.monotonic() - begun:.1f} s")
            return ExitCode.OK
    print(f"tandem: it is not up again after {RESTART_LIMIT:.0f} s: see its log", file=sys.stderr)
    return ExitCode.UNAVAILABLE


def _may_restart(path: Path) -> str:
    """Why the new process would not start."""
    try:
        errors = examine(path).errors
    except (TandemError, OSError) as error:
        return str(error)
    return "; ".join(map(str, errors))


async def _run(config: Config, path: Path) -> bool:
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(threads)
    try:
        return await _serve(config, path)
    finally:
        # `asyncio.run` waits for the default threads without a limit, be it for a restart or an end
        threads.shutdown(wait=False)
        loop.set_default_executor(ThreadPoolExecutor(1))


async def _serve(config: Config, path: Path) -> bool:

    from gateway.assembly import assemble, prepare_sounds

    state = StateDir(config.gateway.state_dir)
    await state.start()
    try:
        gateway = assemble(config, await prepare_sounds(config), state, lambda: _may_restart(path))
    except BaseException:
        await state.stop()
        raise
    return await gateway.app.run()
