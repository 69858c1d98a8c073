"""How long a run lasts, and which faults it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.simulated_answer import ENDLESS


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
    engine = {"step-base-s": 0.01, "max-running": 8, "mean-output-tokens": ENDLESS.mean_output_tokens}
    flags = ["--engine.kind", "simulated", "--model", "sim", "--drain-timeout-s", "5"]
    return flags + [f"--engine.simulated.{name}={value}" for name, value in engine.items()]
