"""How long a run lasts, and which faults it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.simulated_executor import simulated_executor


@pytest.fixture
def seconds() -> float:
    return float(os.environ.get("SAGE_CHAOS_S", "20"))


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("SAGE_CHAOS_SEED", "1"))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def simulated() -> list[str]:
    """Flags of an executor on a simulated engine, slow enough to be struck in the middle of requests."""
    return simulated_executor(step_s=0.01, max_running=8)
