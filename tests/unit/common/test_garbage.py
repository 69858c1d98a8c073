"""Processes start and end without looking for cycles among what they imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

CYCLE = """
import gc
from sage_common.garbage import start_and_end_fast

class Noted:
    def __del__(self):
        print("collected", flush=True)

{first}
cycle = Noted()
cycle.itself = cycle
del cycle
print("threshold", gc.get_threshold()[0], flush=True)
"""


def said(first: str) -> list[str]:
    command = [sys.executable, "-c", CYCLE.format(first=first)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def test_a_process_collects_seldom_and_ends_without_a_last_collection() -> None:
    assert said("start_and_end_fast()") == ["threshold 20000"]


def test_python_itself_collects_when_it_ends() -> None:
    *_, last = said("pass")
    assert last == "collected"


@pytest.mark.parametrize("module", ["scheduler_svc.__main__", "executor_svc.__main__"])
def test_services_start_so(module: str) -> None:
    assert said(f"import {module}") == ["threshold 20000"]
