"""A turn on a machine that several benchmarks share."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def machine_turn(lock: Path | None) -> AsyncIterator[None]:
    """Hold a file's lock, as flock(1) does; None: begin at once."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield
