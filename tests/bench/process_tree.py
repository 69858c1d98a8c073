"""The processes that a process has started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.bench.cpu_clock import cpu_seconds


def descendants(pid: int) -> list[int]:
    """Return those that ``pid`` started and that run, with those that they started; none for a process that is gone."""
    return [found for child in _children(pid) for found in (child, *descendants(child))]


def descendants_cpu_s(pid: int) -> float:
    """Return the CPU seconds that they have used so far; those of processes that have ended do not count."""
    total = 0.0
    for each in descendants(pid):
        with suppress(OSError):
            total += cpu_seconds(each)
    return total


def _children(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                yield from map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
