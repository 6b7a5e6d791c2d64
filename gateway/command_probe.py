"""`tandem probe`: a call by a synthetic agent, and whether it was good enough."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from gateway.config import load
from gateway.config_models import Config
from gateway.config_types import reveal
from gateway.errors import ConfigError
from gateway.exit_codes import ExitCode
from gateway.probe.report import Cause, Limits, as_json, as_metrics, as_text
from gateway.state_dir import read_note

_FAILED = {
    Cause.UNREACHABLE: ExitCode.UNAVAILABLE,
    Cause.DENIED: ExitCode.NOT_PERMITTED,
    Cause.REFUSED: ExitCode.REFUSED,
}


def probe(path: Path, options: argparse.Namespace) -> ExitCode:
    """Print what was found. MISSED when a limit is not kept, or nobody or nothing was heard."""
    try:
        config = load(path)
        url, secret = _gateway(config, options)
    except (ConfigError, ValueError) as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.CONFIG
    except PermissionError:
        print("tandem: the state_dir is not yours: be the gateway's user, or root", file=sys.stderr)
        return ExitCode.NOT_PERMITTED
    except LookupError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    number, agent = options.number or config.probe.number, options.agent or config.probe.agent
    if not number or not agent:
        print("tandem: say whom to call and as whom: NUMBER and --agent, or [probe]", file=sys.stderr)
        return ExitCode.USAGE
    try:
        from gateway.probe.agent import Task
        from gateway.probe.agent import probe as run
    except ModuleNotFoundError as error:
        print(f"tandem: {error.name} is missing: pip install 'tandem[probe]'", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    limits = Limits(
        setup=_or(options.max_setup, config.probe.max_setup),
        delay=_or(options.max_delay, config.probe.max_delay),
        loss=_or(options.max_loss, config.probe.max_loss),
        mos=_or(options.min_mos, config.probe.min_mos),
    )
    task = Task(
        url=url,
        agent=agent,
        number=number,
        secret=secret,
        account=agent if options.sign_in else "",
        trunk=options.trunk,
        seconds=options.seconds,
        patience=options.timeout,
        hz=options.tone,
    )
    findings = asyncio.run(run(task))
    say = as_json if options.json else as_metrics if options.metrics else as_text
    print(say(findings, limits))
    misses = findings.misses(limits)
    if misses and (options.json or options.metrics):
        print("\n".join(f"tandem: {text}" for text in misses), file=sys.stderr)
    if findings.cause in _FAILED:
        return _FAILED[findings.cause]
    return ExitCode.MISSED if misses else ExitCode.OK


def _or(given: float | None, configured: float) -> float:
    return configured if given is None else given


def _gateway(config: Config, options: argparse.Namespace) -> tuple[str, str]:
    """Address and secret: as given, else of the gateway on this machine, whose own token opens it."""
    secret = reveal(options.secret, Path.cwd()) if options.secret else ""
    if options.sign_in and not secret:
        raise ValueError("--sign-in needs the password: --secret env:NAME or file:PATH")
    if options.url and not secret:
        raise ValueError("--url needs a token or password: --secret env:NAME or file:PATH")
    if options.url:
        return options.url.rstrip("/"), secret
    note = read_note(config.gateway.state_dir)
    if note is None:
        raise LookupError(f"no gateway runs on {config.gateway.state_dir}")
    host = f"[{note.host}]" if ":" in note.host else note.host
    return f"http://{host}:{note.port}", secret or note.token
