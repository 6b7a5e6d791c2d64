"""`tandem account`: the local accounts, straight in the database; the gateway need not run.

tandem account add LOGIN --role agent|supervisor|administrator [--name NAME]   password on standard input
tandem account password LOGIN                                                  password on standard input
tandem account disable|enable LOGIN        what is disabled is signed out at once
tandem account sign-out LOGIN              ends his sessions, those through Entra ID too
tandem account list [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from dataclasses import asdict
from pathlib import Path

from gateway.agents.accounts import AccountError, Accounts
from gateway.agents.audit import AuditLog
from gateway.agents.database import AgentDatabase, StoreUnavailable
from gateway.agents.people import Source, UserRole
from gateway.agents.sessions import Sessions
from gateway.clock import LoopClock
from gateway.config import load
from gateway.config_models import Config
from gateway.errors import ConfigError
from gateway.exit_codes import ExitCode
from gateway.tables_text import table


def account(path: Path, options: argparse.Namespace) -> ExitCode:
    """REFUSED: it cannot be so; UNAVAILABLE: the database does not answer."""
    try:
        config = load(path)
        return asyncio.run(_run(config, options))
    except ConfigError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.CONFIG
    except AccountError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.REFUSED
    except StoreUnavailable as error:
        print(f"tandem: {error}", file=sys.stderr)
        return ExitCode.UNAVAILABLE


async def _run(config: Config, options: argparse.Namespace) -> ExitCode:
    database = AgentDatabase(config.database_url)
    try:
        await _act(config, database, options)
    finally:
        await database.close()
    return ExitCode.OK


async def _act(config: Config, database: AgentDatabase, options: argparse.Namespace) -> None:
    accounts, login = Accounts(database), getattr(options, "login", "")
    detail = ""
    match options.action:
        case "list":
            await _list(accounts, as_json=options.json)
            return
        case "add":
            role = UserRole(options.role)
            await accounts.add(login, role, _password(), name=options.name)
            detail = str(role)
        case "password":
            await accounts.set_password(login, _password())
        case "sign-out":
            settings = config.sign_in
            sessions = Sessions(database, LoopClock(), idle=settings.idle_timeout, longest=settings.longest)
            ended = sum([await sessions.end_all(login, source) for source in Source])
            detail = f"{ended} sessions"
            print(detail)
        case action:
            await accounts.set_disabled(login, action == "disable")
    who = f"command line {getpass.getuser()}"
    await AuditLog(database).record(who, f"account_{options.action}", target=login, detail=detail)


def _password() -> str:
    """The first line of standard input; asked for where that is a terminal."""
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline().rstrip("\r\n")


async def _list(accounts: Accounts, *, as_json: bool) -> None:
    found = await accounts.all()
    if as_json:
        for one in found:
            print(json.dumps({**asdict(one), "created_at": one.created_at.isoformat()}, ensure_ascii=False))
        return
    lines = [
        (
            one.login,
            one.name,
            one.role,
            "disabled" if one.disabled else "enabled",
            f"{one.created_at:%Y-%m-%d}",
        )
        for one in found
    ]
    print(table(["LOGIN", "NAME", "ROLE", "STATE", "SINCE"], lines) if lines else "no accounts")
