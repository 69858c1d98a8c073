"""For every test: hypothesis counts examples, not milliseconds, because machines are shared and noisy.

``--part 1/2`` runs the first half of what is collected, file by file: `make` runs both halves beside each other.
"""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from sage_common.garbage import leave_out_present_objects, start_and_end_fast
from tests.support.parts_of_a_room import number_and_parts, part_of

start_and_end_fast()

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

# Whoever starts the tests in the background may have it ignored, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", help="run only a part of the files that are collected, like 1/2 or 2/2")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part = config.getoption("--part")
    if part is None:
        return
    try:
        number, parts = number_and_parts(part)
    except ValueError as error:
        raise pytest.UsageError(f"--part: {error}") from error
    chosen = part_of((str(item.path) for item in items), number, parts)
    config.hook.pytest_deselected(items=[item for item in items if str(item.path) not in chosen])
    items[:] = [item for item in items if str(item.path) in chosen]


def pytest_collection_finish() -> None:
    """Have Python not look for cycles among thousands of tests again and again while they run."""
    leave_out_present_objects()
