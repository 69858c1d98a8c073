"""Ends an engine's processes when the executor has ended, also after kill -9.

vLLM's engine core does not notice that the process which started it was killed, and would keep the GPU's memory.
Therefore the engine's processes watch the executor and exit when it is gone.  They begin to watch:

- at their start: a spawned process first imports the executor's main module, which calls
  ``watch_executor_if_spawned`` when it is imported;
- when vLLM makes a worker, through ``worker_extension``, with any main module.  A worker also ends its parent, the
  engine core.

Without the first, an engine core whose executor ends before any worker exists would stay until vLLM's own start-up
handshake times out, after five minutes.

A worker on another machine, or in another container, cannot see the executor and does not watch it: Ray, which started
the worker there, ends it when its owner, the engine core, is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

EXECUTOR_VARIABLE = "SAGE_EXECUTOR_PROCESS"
"""``<process id>:<start time>:<machine>``, which every process of the engine inherits, also on other machines."""

PERIOD_S = 0.5  # between two looks at the executor: how long a process may outlive it
_STATE, _PARENT, _START_TIME = 0, 1, 19  # fields of /proc/<pid>/stat, counted after the command name


def start_time(pid: int) -> str | None:
    """Return when a process started, as the kernel writes it; None if there is no such process or it is a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[_STATE] == "Z" else fields[_START_TIME]


def machine() -> str:
    """Return what tells apart the machines, and the containers on one, whose process ids differ in meaning."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[_PARENT])


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat after the command name."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def announce_executor() -> None:
    """Have the processes that are started from now on, on this machine, end when this process ends."""
    os.environ[EXECUTOR_VARIABLE] = f"{os.getpid()}:{start_time(os.getpid())}:{machine()}"


def _watch(pid: int, started: str, core: int, core_started: str | None) -> None:
    while start_time(pid) == started:
        time.sleep(PERIOD_S)
    if core_started is not None and start_time(core) == core_started:
        os.kill(core, signal.SIGKILL)
    os._exit(1)


def watch_executor() -> None:
    """Start a thread that watches the executor, if another process on this machine was announced as the executor."""
    pid, started, where = (*os.environ.get(EXECUTOR_VARIABLE, "").split(":"), "", "")[:3]
    if where == machine() and int(pid) != os.getpid():
        # Read now: after the executor's end the engine core could not be distinguished from another parent process.
        core = os.getppid()
        core_started = start_time(core) if _parent(core) == int(pid) else None
        watched = (int(pid), started, core, core_started)
        threading.Thread(target=_watch, args=watched, name="lifeline", daemon=True).start()


def watch_executor_if_spawned() -> None:
    """Watch the executor if this process was spawned by vLLM.  A main module calls this when it is imported."""
    if multiprocessing.current_process().name != "MainProcess":
        watch_executor()
