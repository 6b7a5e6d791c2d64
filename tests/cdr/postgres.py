"""A PostgreSQL server of the test's own, from Debian's package, on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.support import leaks, ports


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("postgres")
    if elsewhere is None:
        raise RuntimeError("PostgreSQL is not installed: apt-get install --no-install-recommends postgresql")
    return Path(elsewhere).resolve().parent


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class PostgresServer:
    """Runs as user postgres where the tests run as root, which PostgreSQL refuses to be."""

    def __init__(self) -> None:
        self._bin = _binaries()
        self._home = Path(tempfile.mkdtemp(prefix="tandem-pg-"))
        self._as: dict[str, Any] = {"cwd": self._home, "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.port = ports.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"]
        command = [str(self._bin / "initdb"), "-D", str(self._home / "data"), *options]
        subprocess.run(command, check=True, capture_output=True, timeout=60, **self._as)

    def start(self) -> None:
        """Returns when it takes connections."""
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={self._home}", "fsync=off"]
        command = [str(self._bin / "postgres"), "-D", str(self._home / "data"), "-p", str(self.port)]
        with open(self._home / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, *(word for setting in settings for word in ("-c", setting))],
                stdout=log,
                stderr=log,
                **self._as,
            )
        leaks.keep(self._process.pid)
        ready = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        for _ in range(300):
            if self._process.poll() is not None:
                break
            if subprocess.run(ready, capture_output=True, check=False, timeout=20).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError((self._home / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast, open sessions are ended. SIGQUIT: at once, like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers none, like one whose machine or disk hangs."""
        assert self._process is not None
        # the server first, so that it makes no process while its processes are listed
        os.kill(self._process.pid, signal.SIGSTOP)
        stopped = [self._process.pid, *_children(self._process.pid)]
        try:
            for pid in stopped[1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._home)

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Self]:
        """A new server that takes connections; nothing is left of it afterwards."""
        found = cls()
        try:
            found.create()
            found.start()
            yield found
        finally:
            found.remove()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
