"""The CPU time another process has used."""

from __future__ import annotations

import time

PROCESS_CPU_CLOCK = 2  # CPUCLOCK_SCHED of the kernel's per-process clocks


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of ``pid`` so far, in seconds, to the nanosecond.

    Linux: the clock that clock_getcpuclockid(3) names.  /proc/<pid>/stat counts in ticks of 10 ms, too coarse for
    runs of a few seconds.  Raises OSError for a process that is gone.
    """
    return time.clock_gettime(~pid << 3 | PROCESS_CPU_CLOCK)
