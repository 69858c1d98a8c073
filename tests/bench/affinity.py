"""Which CPU cores processes may run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_off(core: int, pids: list[int]) -> Iterator[None]:
    """Run every thread these processes have now on the other cores, where there are others.

    Processes that they started are left alone.  This process is given its cores back at the end; the others are
    expected to end with the context.
    """
    allowed = os.sched_getaffinity(0)
    others = allowed - {core}
    for pid in pids if others else ():
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), others)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), allowed)
