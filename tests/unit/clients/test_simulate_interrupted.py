"""Ctrl-C during a sweep: one line, the documented status, no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

_PATIENCE_S = 90.0  # the processes give way to all others where many tests run


def computing(processes: list[psutil.Process]) -> int:
    return sum(each.cpu_times().user > 1.0 for each in processes)


def until_it_has_children(process: psutil.Process, count: int) -> list[psutil.Process]:
    """Return all children once ``count`` compute; before, Python would tell that its own start was interrupted."""
    end = time.monotonic() + _PATIENCE_S
    while computing(found := process.children(recursive=True)) < count:
        assert process.is_running()
        assert time.monotonic() < end, "the sweep did not start its processes"
        time.sleep(0.05)
    return list(found)


@pytest.mark.timeout(3 * _PATIENCE_S)
def test_ctrl_c_ends_the_sweep_and_its_processes() -> None:
    sweep = ("simulate", "sweep", "--policy", "fifo", "--policy", "priority", "--duration", "600", "--workers", "2")
    command = [sys.executable, "-m", "sagectl", *sweep]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        try:
            children = until_it_has_children(psutil.Process(running.pid), 2)
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to every process of the group
            _, said = running.communicate(timeout=_PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    assert (running.returncode, said) == (130, "interrupted\n")
    assert psutil.wait_procs(children, timeout=_PATIENCE_S)[1] == []
