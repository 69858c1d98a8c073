"""What only the services need comes with their extras; without it they say so instead of failing somewhere inside."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(statement: str, *, without: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.modules[{without!r}] = None; {statement}"
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("service", ["scheduler", "executor"])
def test_a_service_installed_without_its_extra_says_which(service: str) -> None:
    ended = run(f"import {service}_svc.__main__ as service; service.main()", without="opentelemetry.sdk")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"sage-{service}: opentelemetry.sdk")
    assert ended.stderr.endswith(f"is not installed: pip install 'sage-control-plane[{service}]'\n")


@pytest.mark.parametrize("package", ["opentelemetry.sdk", "opentelemetry.exporter", "prometheus_client"])
def test_clients_do_without(package: str) -> None:
    ended = run("import sagectl.__main__", without=package)
    assert (ended.returncode, ended.stderr) == (0, "")
