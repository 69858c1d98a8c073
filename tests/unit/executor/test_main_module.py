"""The module that processes of the engine import first."""

from __future__ import annotations

import subprocess
import sys

IMPORTS = "import sys, executor_svc.__main__; print(*sys.modules)"
SPAWNS = """
import runpy, sys
from multiprocessing import spawn
from executor_svc import config

def told(arguments):
    print(spawn.get_preparation_data("engine").get("init_main_from_path"))
    sys.exit(0)

config.load_or_exit = told
runpy.run_module("executor_svc", run_name="__main__", alter_sys=True)
"""


def test_importing_it_imports_nothing_that_only_the_executor_needs() -> None:
    """An engine starts two processes, each of which would take a second longer."""
    made = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True, timeout=100)
    imported = set(made.stdout.split())
    assert "executor_svc.engine.vllm.lifeline" in imported
    assert imported.isdisjoint({"grpc", "pydantic", "opentelemetry", "executor_svc.wiring", "executor_svc.config"})


def test_processes_that_the_engine_spawns_import_it() -> None:
    """By its name, multiprocessing would leave it out, and an engine that loads would outlive its executor."""
    made = subprocess.run([sys.executable, "-c", SPAWNS], capture_output=True, text=True, check=True, timeout=100)
    assert made.stdout.rstrip().endswith("executor_svc/__main__.py")
