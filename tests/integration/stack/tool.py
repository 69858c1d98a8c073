"""The programs of Debian's packages that these tests run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def tool(name: str, package: str) -> str:
    """Return the program's path.  Skip the test where it is missing; `make test` says at its end what that left out."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian and Ubuntu: apt-get install {package})")
    return found


def promtool(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return _run([tool("promtool", "prometheus"), *arguments], stdin=stdin)


def compose(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``docker compose``, or ``docker-compose`` where there is no such plugin; neither needs a daemon for this."""
    docker = shutil.which("docker")
    if docker and _run([docker, "compose", "version"]).returncode == 0:
        return _run([docker, "compose", *arguments], folder=folder)
    return _run([tool("docker-compose", "docker-compose"), *arguments], folder=folder)


def _run(
    command: Sequence[str], *, stdin: str | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=stdin, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
