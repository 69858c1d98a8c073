"""Podman: builds images, serves compose, and checks the health of containers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PODMAN = shlex.split(os.environ.get("SAGE_IMAGES_PODMAN", "podman"))
BUILD_TIMEOUT_S = 1_200.0
COMMAND_TIMEOUT_S = 120.0
HEALTH_INTERVAL_S = 3.0


def podman(*words: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run a command of podman and return what it printed.  Raises CalledProcessError, with its words in ``stderr``."""
    done = subprocess.run([*PODMAN, *words], capture_output=True, text=True, check=False, timeout=timeout_s)
    if check and done.returncode != 0:
        raise AssertionError(f"podman {' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def build(dockerfile: str, tag: str, *, target: str | None = None) -> None:
    """Build an image of ``docker/``; layers that exist are used again."""
    words = ["build", "--format", "docker", "--file", str(ROOT / "docker" / dockerfile), "--tag", tag]
    if target is not None:
        words += ["--target", target]
    if python := os.environ.get("SAGE_IMAGES_PYTHON"):
        words += ["--build-arg", f"PYTHON_IMAGE={python}"]
    words += shlex.split(os.environ.get("SAGE_IMAGES_BUILD", ""))
    podman(*words, str(ROOT), timeout_s=BUILD_TIMEOUT_S)


def inspect(container: str) -> dict[str, Any]:
    """Return what podman knows of a container."""
    (found,) = json.loads(podman("inspect", "--type", "container", container))
    known: dict[str, Any] = found
    return known


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve Docker's API on a socket in ``folder`` and yield its address, which compose takes as DOCKER_HOST."""
    address = f"unix://{folder / 'podman.sock'}"
    process = subprocess.Popen(
        [*PODMAN, "system", "service", "--time", "0", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def health_checks(project: str) -> Iterator[None]:
    """Run the HEALTHCHECK of each of a project's containers every few seconds, as systemd's timers would."""
    ended = threading.Event()

    def check() -> None:
        while not ended.wait(HEALTH_INTERVAL_S):
            label = f"label=com.docker.compose.project={project}"
            for name in podman("ps", "--filter", label, "--format", "{{.Names}}", check=False).split():
                podman("healthcheck", "run", name, check=False)

    thread = threading.Thread(target=check, name="health-checks")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
