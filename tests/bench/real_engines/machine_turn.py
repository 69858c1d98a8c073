"""A turn on a machine that several benchmarks share."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PAUSE_S = 1.0  # after a turn, so that another benchmark that waits gets the next one


@asynccontextmanager
async def machine_turn(lock: Path | None) -> AsyncIterator[None]:
    """Hold a file's lock, as flock(1) does; None: begin at once."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield
    await asyncio.sleep(PAUSE_S)
