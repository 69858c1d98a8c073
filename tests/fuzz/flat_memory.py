"""Holds that memory does not grow with the number of messages."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

MIB = 1024 * 1024
WARM_UP = 0.4  # of the messages, after which every bounded collection is full
GROWTH_MIB = 40.0


async def assert_flat(send: Callable[[int], Awaitable[None]], messages: int) -> None:
    """Send ``messages`` and compare the resident memory at their end with that after the first part of them."""
    warm_up = round(messages * WARM_UP)
    await send(warm_up)
    before = resident_mib()
    await send(messages - warm_up)
    growth = resident_mib() - before
    print(f"\nmemory: {before:.0f} MiB after {warm_up} messages, {growth:+.1f} MiB after {messages}")
    assert growth < GROWTH_MIB, f"{messages - warm_up} messages made the process grow by {growth:.1f} MiB"


def resident_mib() -> float:
    """Return this process' resident memory in MiB, its garbage collected and free memory given back to the system."""
    for _ in range(3):
        gc.collect()
    if Path("/proc/self").exists():
        ctypes.CDLL(None).malloc_trim(0)
    return float(psutil.Process().memory_info().rss) / MIB
