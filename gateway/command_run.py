"""`tandem run` and `tandem check-config`."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from gateway.app import PartFailed
from gateway.config import examine
from gateway.config_models import Config
from gateway.errors import TandemError
from gateway.exit_codes import ExitCode, exit_code_for
from gateway.logs import LogSetup
from gateway.state_dir import StateDir

log = logging.getLogger("tandem.app")


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
        asyncio.run(_run(config))
    except (TandemError, OSError) as error:
        code = exit_code_for(error)
        what = f"part={error.part} cause={error.cause}" if isinstance(error, PartFailed) else f"cause={error}"
        unexpected = error if code is ExitCode.INTERNAL else None
        log.critical("event=not_started exit=%d %s", code, what, exc_info=unexpected)
        return code
    except Exception:
        log.critical("event=crashed exit=%d", ExitCode.INTERNAL, exc_info=True)
        return ExitCode.INTERNAL
    finally:
        setup.close()
    return ExitCode.OK


async def _run(config: Config) -> None:

    from gateway.assembly import assemble, prepare_sounds

    state = StateDir(config.gateway.state_dir)
    await state.start()
    try:
        gateway = assemble(config, await prepare_sounds(config), state)
    except BaseException:
        await state.stop()
        raise
    await gateway.app.run()
