"""The project's own files agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHELL = ["scripts/setup", "scripts/test", "scripts/check", "scripts/lock", ".ci/run"]


def _locked(name: str) -> dict[str, str]:
    """Package to pinned version; each line of the lock must carry its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            pin = re.match(r"([a-z0-9-]+)==(\S+)\s+--hash=sha256:[0-9a-f]{64}", line)
            assert pin, line
            found[pin[1]] = pin[2]
    return found


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.lock", ["postgresql"]),
        ("requirements-demo.lock", ["postgresql", "demo"]),
        ("requirements-dev.lock", ["postgresql", "dev"]),
    ],
)
def test_every_dependency_is_locked(lock: str, extras: list[str]) -> None:
    locked = _locked(lock)
    wanted = list(PROJECT["dependencies"])
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    names = {re.split(r"[\[<>=!~ ;]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names <= locked.keys(), "run scripts/lock"
    assert "setuptools" in locked, "the project itself is installed without build isolation"


def test_the_locks_agree_and_name_no_index() -> None:
    dev = _locked("requirements-dev.lock")
    for name in ("requirements.lock", "requirements-demo.lock"):
        smaller = _locked(name)
        assert smaller == {package: dev[package] for package in smaller}
    for name in ("requirements.lock", "requirements-demo.lock", "requirements-dev.lock"):
        assert "://" not in (ROOT / name).read_text()


@pytest.mark.parametrize("script", SHELL)
def test_a_script_can_be_run_and_has_no_syntax_error(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=30)


def test_the_systemd_unit_gives_a_drain_its_time() -> None:
    unit = (ROOT / "config" / "systemd" / "tandem.service").read_text()
    example = tomllib.loads((ROOT / "config" / "production.example.toml").read_text())
    limit = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert limit
    assert int(limit[1]) > example["limits"]["drain_timeout"] + 30
