"""The module that processes of the engine import first."""

from __future__ import annotations

import subprocess
import sys

IMPORTS = "import sys, executor_svc.__main__; print(*sys.modules)"


def test_importing_it_imports_nothing_that_only_the_executor_needs() -> None:
    """An engine starts two processes, each of which would take a second longer."""
    made = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True, timeout=50)
    imported = set(made.stdout.split())
    assert "executor_svc.engine.vllm.lifeline" in imported
    assert imported.isdisjoint({"grpc", "pydantic", "opentelemetry", "executor_svc.wiring", "executor_svc.config"})
