"""A PostgreSQL server for tests: Debian's, in a directory of its own, on a free port of loopback."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.free_port import free_port

START_S = 30.0
DEBIAN_BINARIES = "/usr/lib/postgresql/*/bin"

_AS_USER = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Runs a command as another user.  ``subprocess`` can do so by a fork only, in which gRPC's threads may be lost."""


def binaries() -> Path | None:
    """Return the folder with `initdb` and `postgres`; None where PostgreSQL is not installed."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    folders = sorted(glob.glob(DEBIAN_BINARIES), key=lambda each: int(each.split("/")[-2]))
    return Path(folders[-1]) if folders else None


class Postgres:
    """A server that can be started, stopped, killed and paused.  Everyone on loopback may do everything."""

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        """Make a new cluster in an empty folder; root hands it to the user `postgres`, as the server demands."""
        found = binaries()
        if found is None:
            pytest.skip("PostgreSQL is not installed (Debian and Ubuntu: apt-get install postgresql)")
        self._binaries = found
        self._folder = folder
        user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self._prefix = [sys.executable, "-c", _AS_USER, str(user.pw_uid), str(user.pw_gid)] if user is not None else []
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        initdb = [found / "initdb", "-D", folder / "data", "-U", "sage", "-A", "trust", "-E", "UTF8", "--no-sync"]
        self._run(*map(str, initdb))

    def _run(self, *command: str) -> None:
        subprocess.run([*self._prefix, *command], check=True, stdout=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        """The database URL, as ``journal.url`` takes it."""
        return f"postgresql://sage@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The id of the server's first process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [str(self._binaries / "postgres"), "-D", str(self._folder / "data"), "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", str(self._folder), "-c", f"fsync={'on' if self._fsync else 'off'}"]
        with open(self._folder / "log", "ab") as output:
            self._process = subprocess.Popen([*self._prefix, *command], stdout=output, stderr=output)
        limit = time.monotonic() + START_S
        while subprocess.run(
            [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
            check=False,
        ).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < limit, "PostgreSQL does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server at once, with all its connections; what was committed is on the disk."""
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(START_S)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop all its processes where they are: connections stay, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its processes go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for each in [self.pid, *map(int, children)]:
            with suppress(ProcessLookupError):  # some children end by themselves
                os.kill(each, number)


@contextmanager
def running_postgres(*, fsync: bool = False) -> Iterator[Postgres]:
    """Give a running server, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sage-postgres-"))
    try:
        server = Postgres(folder, fsync=fsync)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
