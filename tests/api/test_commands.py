"""The command line, in process where that shows everything, as a process where it must be one."""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet
import pytest

from gateway.__main__ import default_config, main
from gateway.api.metrics import Metrics
from gateway.api.server import HttpApi
from gateway.api.trunk_routes import trunk_routes
from gateway.app import App, PartFailed
from gateway.cdr.call_detail import CallDetail
from gateway.cdr.sinks_sql import SqlSink
from gateway.command_cdr import moment
from gateway.errors import ConfigError, MediaUnavailable, TransportError
from gateway.exit_codes import ExitCode, exit_code_for
from gateway.local_api import ask
from gateway.model import TrunkKind
from gateway.state_dir import Note, StateDir, StateDirError, StateDirTaken, read_note
from gateway.trunks.health import PeerState, PeerStatus
from gateway.trunks.trunk import TrunkStatus
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def configure(folder: Path, text: str = "") -> Path:
    path = folder / "tandem.toml"
    path.write_text('[gateway]\nstate_dir = "state"\n' + text)
    return path


# ------------------------------------------------------------------------------------ check-config


def test_check_config_shows_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = configure(tmp_path, "[media]\nports = [30001, 30003]\n")
    assert main(["check-config", "--config", str(path)]) == ExitCode.CONFIG
    assert capsys.readouterr().out.count(f"{path}:4: ") == 2


def test_check_config_warns_and_is_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(configure(tmp_path))]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "warning: " in out
    assert "good (0 trunks, 0 routes, room for 1250 calls)" in out


@pytest.mark.parametrize("line", ["", "fly", "run --speed", "cdr --since soon", "cdr --limit -1"])
def test_wrong_usage_is_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == ExitCode.USAGE
    assert "usage: tandem" in capsys.readouterr().err


def test_the_configuration_is_found_in_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TANDEM_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_config() == Path("/etc/tandem/tandem.toml")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "tandem.toml").touch()
    assert default_config() == Path("config/tandem.toml")
    monkeypatch.setenv("TANDEM_CONFIG", "/elsewhere.toml")
    assert default_config() == Path("/elsewhere.toml")


def test_version_is_quick_and_loads_no_sip_stack() -> None:
    code = (
        "import sys; from gateway.__main__ import main; main(['version']); print('sipmessage' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.splitlines() == ["tandem 0.1.0", "False"]


# -------------------------------------------------------------------------------------- exit codes


def _caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def _no_transport(number: int) -> Exception:
    return PartFailed("sip", _caused(TransportError("no"), OSError(number, "cause")))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("f", 1, "x"), ExitCode.CONFIG),
        (PartFailed("sip", OSError(errno.EADDRINUSE, "in use")), ExitCode.TAKEN),
        (
            PartFailed("sip", _caused(TransportError("no"), OSError(errno.EADDRINUSE, "in use"))),
            ExitCode.TAKEN,
        ),
        (PartFailed("http", OSError(errno.EACCES, "denied")), ExitCode.NOT_PERMITTED),
        (
            PartFailed("sip", _caused(TransportError("no"), OSError(errno.EADDRNOTAVAIL, "?"))),
            ExitCode.UNAVAILABLE,
        ),
        (PartFailed("media", MediaUnavailable("no rtpengine")), ExitCode.UNAVAILABLE),
        (PartFailed("rooms", TimeoutError()), ExitCode.UNAVAILABLE),
        (StateDirTaken("x"), ExitCode.TAKEN),
        (_caused(StateDirError("x"), OSError(errno.EACCES, "denied")), ExitCode.CANNOT_CREATE),
        (PartFailed("x", KeyError("oops")), ExitCode.INTERNAL),
    ],
)
def test_errors_have_their_codes(error: BaseException, code: ExitCode) -> None:
    assert exit_code_for(error) is code


def test_the_readme_lists_every_exit_code() -> None:
    readme = (ROOT / "README.md").read_text()
    for code in ExitCode:
        assert f"| {code.value} | " in readme


# ----------------------------------------------------------------------------------- state directory


async def test_a_second_gateway_on_the_same_state_is_refused(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path / "s"), StateDir(tmp_path / "s")
    await first.start()
    await first.start()
    with pytest.raises(StateDirTaken, match="another gateway"):
        await second.start()
    await first.stop()
    await second.start()
    assert second.health().ok
    await second.stop()


async def test_a_state_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirError, match="Not a directory"):
        await StateDir(tmp_path / "file" / "state").start()


async def test_the_note_is_private_and_counts_only_while_its_writer_lives(tmp_path: Path) -> None:
    state, note = StateDir(tmp_path), Note(tmp_path, lambda: ("127.0.0.1", 8080))
    assert read_note(tmp_path / "nowhere") is None
    await state.start()
    await note.start()
    assert (tmp_path / "gateway.json").stat().st_mode & 0o777 == 0o600
    found = read_note(tmp_path)
    assert found is not None
    assert (found.pid, found.port, found.token) == (os.getpid(), 8080, note.token)
    await state.stop()
    assert read_note(tmp_path) is None, "a note without its lock was left by a gateway that was killed"
    await note.stop()
    assert not (tmp_path / "gateway.json").exists()


# -------------------------------------------------------------------------------------------- trunks

STATUS = TrunkStatus(
    name="teams",
    kind=TrunkKind.DIRECT_ROUTING,
    tenants=("sbc.example.com",),
    usable=True,
    peers=(
        PeerStatus("tls:sip.example.com:5061", PeerState.UP, 0, 200, "", 31.4, 0.0, NOON),
        PeerStatus("tls:sip2.example.com:5061", PeerState.DOWN, 3, 0, "no answer", None, 0.0, None),
    ),
    heard=NOON,
    alarms=("sip2 does not answer (check the firewall)",),
)


async def test_trunks_asks_the_running_gateway(tmp_path: Path) -> None:
    path = configure(tmp_path)
    state = StateDir(tmp_path / "state")
    http = HttpApi("127.0.0.1:0", status=lambda: app, metrics=Metrics(), tokens={})
    note = Note(state.path, lambda: http.address)
    http.add_token("this machine", note.token)
    http.add_routes(trunk_routes(lambda: [STATUS]))
    app = App([state, http, note])
    running = asyncio.create_task(app.run(signals=False))
    await until(lambda: app.ready)

    async def tandem(*arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *arguments, "--config", str(path), stdout=-1, stderr=-2, cwd=ROOT
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    code, text = await tandem("trunks")
    assert code == ExitCode.OK
    lines = text.splitlines()
    assert lines[1].split() == [
        "teams",
        "direct-routing",
        "tls:sip.example.com:5061",
        "up",
        "31",
        "ms",
        "2026-01-31T12:00:00Z",
        "-",
    ]
    assert "down" in lines[2]
    assert "no answer" in lines[2]
    assert lines[3] == "teams: sip2 does not answer (check the firewall)"
    code, text = await tandem("trunks", "--json")
    assert json.loads(text)["trunks"][0]["tenants"] == ["sbc.example.com"]
    app.stop_soon()
    await running
    with pytest.raises(LookupError, match="no gateway runs"):
        await ask(state.path, "GET", "/api/v1/trunks")
    code, text = await tandem("trunks")
    assert code == ExitCode.UNAVAILABLE
    assert "no gateway runs" in text


# ----------------------------------------------------------------------------------------------- cdr


def row(number: int, **more: object) -> CallDetail:
    """A call of one minute that began `number` hours before noon."""
    start = NOON - timedelta(hours=number)
    values: dict[str, object] = {
        "id": f"{number:032x}",
        "global_interaction_id": f"i{number}",
        "media_type": "VOICE",
        "type": "External",
        "start_time": start,
        "answer_time": start + timedelta(seconds=4),
        "end_time": start + timedelta(seconds=64),
        "mos": 4.1,
        "detail": {"legs": []},
        **dict.fromkeys(("ivr_time", "queue_time", "hold_time", "hold_count", "max_hold", "acw_time"), 0),
        **dict.fromkeys(
            (
                "original_destination_phone",
                "connected_to_phone",
                "transferred_from_phone",
                "transferred_to_phone",
                "caller_login_id",
                "callee_login_id",
                "teams_correlation_id",
            ),
            "",
        ),
        "duration": 64,
        "pending_time": 4,
        "talk_time": 60,
        "from_phone": f"+49{number}",
        "caller_party_type": "external",
        "callee_party_type": "teams_expert",
        "caller_trunk": "cc",
        "callee_trunk": "teams",
        "disposition": "caller_disconnected",
        "released_by": "caller",
        "sip_code": 200,
        "reason": "normal",
    }
    return CallDetail.from_dict(values | more)


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """A configuration whose database has five calls."""
    sink = SqlSink(f"sqlite:///{tmp_path / 'state' / 'tandem.db'}")
    await sink.open()
    await sink.write(
        [
            row(
                n,
                callee_login_id="anna" if n == 2 else "",
                transferred_to_phone="+transferred" if n == 2 else "",
                caller_trunk="pbx" if n == 3 else "cc",
            )
            for n in range(5)
        ]
    )
    await sink.close()
    return configure(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["--limit", "2"], [0, 1]),
        (["--since", "2026-01-31T10:30"], [0, 1]),
        (["--until", "2026-01-31T09:00:00+00:00"], [4]),
        (["--agent", "anna"], [2]),
        (["--trunk", "pbx"], [3]),
        (["--number", "+494"], [4]),
        (["--interaction", "i1"], [1]),
        (["--giid", "i1"], [1]),
        (["--order", "oldest", "--limit", "2"], [4, 3]),
        (["--number", "+transferred"], [2]),
        (["--trunk", "teams", "--agent", "nobody"], []),
    ],
)
def test_cdr_filters(
    database: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], numbers: list[int]
) -> None:
    assert main(["cdr", "--json", "--config", str(database), *arguments]) == ExitCode.OK
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [int(one["id"], 16) for one in found] == numbers
    assert all(one["start_time"].endswith("Z") and one["detail"] == {"legs": []} for one in found)


def test_cdr_in_the_forms_of_the_api(
    database: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def said(*arguments: str) -> bytes:
        assert main(["cdr", "--config", str(database), *arguments]) == ExitCode.OK
        return capsysbinary.readouterr().out

    numbers = [f"{number:032x}" for number in range(5)]
    assert [one["id"] for one in json.loads(said("--format", "json"))] == numbers
    lines = list(csv.DictReader(io.StringIO(said("--format", "csv").decode(), newline="")))
    assert [line["id"] for line in lines] == numbers
    file = tmp_path / "rows.parquet"
    assert said("--format", "parquet", "--output", str(file)) == b""
    assert pyarrow.parquet.read_table(file)["id"].to_pylist() == numbers
    assert said("--format", "parquet") == file.read_bytes()
    assert main(["cdr", "--config", str(database), "--output", "/nowhere/rows"]) == ExitCode.CANNOT_CREATE
    assert b"/nowhere/rows" in capsysbinary.readouterr().err


def test_cdr_as_a_table(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cdr", "--config", str(database), "--limit", "1"]) == ExitCode.OK
    head, line = capsys.readouterr().out.splitlines()
    assert head.startswith("START (UTC)")
    assert line.split()[:4] == ["2026-01-31", "12:00:00", "External", "+490"]
    assert main(["cdr", "--config", str(database), "--agent", "nobody"]) == ExitCode.OK
    assert capsys.readouterr().out == "no calls\n"


def test_cdr_without_a_database_makes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cdr", "--config", str(configure(tmp_path))]) == ExitCode.UNAVAILABLE
    assert "no database yet" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_database_that_is_none_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tandem.db").write_bytes(b"not a database" * 100)
    assert main(["cdr", "--config", str(configure(tmp_path))]) == ExitCode.UNAVAILABLE
    assert "cannot be read: file is not a database" in capsys.readouterr().err


def test_a_postgresql_that_does_not_answer_is_said_so_without_the_password(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
) -> None:
    monkeypatch.setenv("DB", f"postgresql://tandem:hunter2@127.0.0.1:{free_port()}/tandem")
    path = configure(tmp_path, 'database = "env:DB"\n')
    assert main(["cdr", "--config", str(path)]) == ExitCode.UNAVAILABLE
    error = capsys.readouterr().err
    assert "cannot be read" in error
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOON - timedelta(minutes=90)),
        ("7d", NOON - timedelta(days=7)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert moment(text, NOON) == expected
