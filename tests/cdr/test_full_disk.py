"""A disk that really is small: new calls are refused before records are, and no record is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cdr.full_disk import SIZE

ROOT = Path(__file__).parents[2]
_APART = (
    ["unshare", "--mount"],
    ["unshare", "--mount", "--map-root-user"],
)


def _can_mount(apart: list[str], folder: Path) -> bool:
    command = [*apart, "mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("real", [True, False])
def test_a_full_disk_stops_new_calls_before_it_stops_records(tmp_path: Path, real: bool) -> None:
    """real: on a file system of 12 MiB, where this machine lets us mount one; else, and without, counted."""
    apart = next((one for one in _APART if real and _can_mount(one, tmp_path)), None)
    program = [sys.executable, "-m", "tests.cdr.full_disk", str(tmp_path)]
    command = [*apart, *program, str(SIZE)] if apart else program
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "room again: twenty rows in every sink"
    assert not apart or list(tmp_path.iterdir()) == [], "the file system was the process's alone"
