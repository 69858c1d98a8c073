"""What a run of this room is told by the environment."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.run import Run


@pytest.fixture
def fuzz_run() -> Run:
    """Return how much is sent, and with which seed."""
    given = os.environ
    return Run(
        seed=int(given.get("SAGE_FUZZ_SEED", "1")),
        messages=int(given.get("SAGE_FUZZ_MESSAGES", "5000")),
        only=tuple(int(number) for number in given.get("SAGE_FUZZ_ONLY", "").split(",") if number),
    )
