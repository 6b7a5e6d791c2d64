"""`tandem account`, against the database file that the gateway uses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.agents.accounts import Accounts
from gateway.agents.audit import AuditLog
from gateway.agents.database import AgentDatabase
from gateway.agents.people import Person, UserRole
from gateway.exit_codes import ExitCode


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tandem.toml"
    path.write_text('[gateway]\nstate_dir = "state"\n')
    return str(path)


def tandem(config: str, *words: str) -> int:
    return main(["account", *words, "--config", config])


def test_an_account_from_making_to_disabling(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tandem(config, "list") == ExitCode.OK
    assert "no accounts" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    assert tandem(config, "add", "ada", "--role", "administrator", "--name", "Ada") == ExitCode.OK
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert tandem(config, "add", "bob", "--role", "agent") == ExitCode.REFUSED
    assert tandem(config, "disable", "nobody") == ExitCode.REFUSED
    assert "no account 'nobody'" in capsys.readouterr().err
    assert tandem(config, "disable", "ada") == ExitCode.OK
    assert tandem(config, "list") == ExitCode.OK
    assert "disabled" in capsys.readouterr().out
    assert tandem(config, "enable", "ada") == ExitCode.OK
    monkeypatch.setattr("sys.stdin", io.StringIO("another horse\n"))
    assert tandem(config, "password", "ada") == ExitCode.OK
    assert tandem(config, "sign-out", "ada") == ExitCode.OK
    assert "0 sessions" in capsys.readouterr().out
    assert tandem(config, "list", "--json") == ExitCode.OK
    out = capsys.readouterr().out
    shown = json.loads(out)
    assert (shown["login"], shown["role"], shown["disabled"]) == ("ada", "administrator", False)
    assert "argon2" not in out


async def test_what_the_command_did_is_in_the_audit_log(config: str, tmp_path: Path) -> None:
    database = AgentDatabase(f"sqlite:///{tmp_path / 'x.db'}")
    accounts = Accounts(database)
    await accounts.add("ada", UserRole.ADMINISTRATOR, "correct horse", name="Ada")
    assert await accounts.check("ada", "correct horse") == Person("ada", "Ada", UserRole.ADMINISTRATOR)
    assert await accounts.check("ada", "wrong horse") is None
    await AuditLog(database).record("command line root", "account_add", target="ada")
    (record,) = await AuditLog(database).latest()
    assert (record.what, record.target, record.result) == ("account_add", "ada", "ok")
    await database.close()


def test_a_database_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "db").mkdir()
    path = tmp_path / "tandem.toml"
    path.write_text('[gateway]\nstate_dir = "state"\ndatabase = "sqlite:///db"\n')
    assert tandem(str(path), "list") == ExitCode.UNAVAILABLE
    assert "the database cannot be used" in capsys.readouterr().err
