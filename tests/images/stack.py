"""The services of ``docker/compose.yaml`` that have images of ours, as compose starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.images.podman import ROOT, health_checks, inspect, podman, served

PROJECT = "sage-images"
SERVICES = ("scheduler", "tiny-model", "executor-cpu-1", "executor-cpu-2", "gateway")
LIMITS = {"nofile": 20_000, "nproc": 4_000}  # podman's defaults may be above what this host allows
HEALTHY_TIMEOUT_S = 240.0
POLL_S = 1.0
GATEWAY = "http://127.0.0.1:8000"


class Stack:
    """Made by ``running``."""

    def __init__(self, docker_host: str, folder: Path) -> None:
        self._environment = {**os.environ, "DOCKER_HOST": docker_host}
        self._override = folder / "limits.yaml"
        limited = {"services": {name: {"ulimits": LIMITS} for name in SERVICES}}
        self._override.write_text(yaml.safe_dump(limited))

    def compose(self, *words: str, timeout_s: float = 300.0) -> None:
        """Run a command of compose; AssertionError with its words when it fails."""
        files = ["--file", str(ROOT / "docker/compose.yaml"), "--file", str(self._override)]
        given = ["--env-file", str(ROOT / "docker/.env"), *files, "--project-name", PROJECT, "--profile", "cpu"]
        done = subprocess.run(
            ["docker-compose", *given, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"docker-compose {' '.join(words)}:\n{done.stdout}\n{done.stderr}"

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"{PROJECT}_{service}_1"

    def wait_until_healthy(self, *services: str) -> None:
        """Wait until the HEALTHCHECK of each passes."""
        deadline = time.monotonic() + HEALTHY_TIMEOUT_S
        for service in services:
            name = self.container(service)
            while (state := inspect(name)["State"])["Health"]["Status"] != "healthy":
                if time.monotonic() > deadline:
                    raise AssertionError(f"{name} is {state}; its last words:\n{podman('logs', '--tail', '30', name)}")
                time.sleep(POLL_S)

    def kill(self, service: str) -> None:
        """End a container's first process from outside, so that the restart policy counts it as a failure."""
        os.kill(inspect(self.container(service))["State"]["Pid"], signal.SIGKILL)

    def restarts(self, service: str) -> int:
        """How often the restart policy has started it again."""
        count: int = inspect(self.container(service))["RestartCount"]
        return count

    def exit_status(self, service: str) -> int:
        """Exit status of a container that has stopped."""
        state = inspect(self.container(service))["State"]
        assert not state["Running"], f"{service} runs"
        status: int = state["ExitCode"]
        return status


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Start our services and yield them healthy; take them and their volumes down at the end."""
    with served(folder) as address, health_checks(PROJECT):
        stack = Stack(address, folder)
        try:
            stack.compose("up", "--detach", "--no-build", *SERVICES)
            stack.wait_until_healthy("scheduler", "executor-cpu-1", "executor-cpu-2", "gateway")
            yield stack
        finally:
            stack.compose("down", "--volumes", "--timeout", "20")
