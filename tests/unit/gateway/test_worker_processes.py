"""Workers end together, and with the process that started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage_gateway.listening import listening_socket
from sage_gateway.worker_processes import WORKER_VARIABLE, WorkerProcesses

WITHIN_S = 30.0

ONE_ENDS = f"""
import os, sys, time
sys.exit(3) if os.environ["{WORKER_VARIABLE}"] == "1" else time.sleep(60)
"""
STARTS_ANOTHER = """
import sys
from sage_gateway.worker_processes import WorkerProcesses
WorkerProcesses([sys.executable, "-c", sys.argv[1]], 2, grace_s=1).run()
"""
ENDS_WITH_ITS_PARENT = """
import asyncio, os
from sage_gateway.worker_processes import parent_ended
os.write(1, f"{os.getpid()}\\n".encode())  # at once, so that two workers' lines stay apart
asyncio.run(parent_ended(0.02))
os.write(1, b"ended\\n")
"""


def test_the_end_of_one_ends_all() -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert WorkerProcesses([sys.executable, "-c", ONE_ENDS], 2, grace_s=5).run() == 3
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize(("number", "last"), [(signal.SIGKILL, ["ended", "ended"]), (signal.SIGTERM, [])])
def test_workers_end_with_the_process_that_started_them(number: signal.Signals, last: list[str]) -> None:
    command = [sys.executable, "-c", STARTS_ANOTHER, ENDS_WITH_ITS_PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            workers = [int(parent.stdout.readline()) for _ in range(2)]
            parent.send_signal(number)
            rest, _ = parent.communicate(timeout=WITHIN_S)
        finally:
            parent.kill()
    assert rest.split() == last
    end = time.monotonic() + WITHIN_S
    while any(Path(f"/proc/{each}").exists() and not _is_zombie(each) for each in workers):
        assert time.monotonic() < end
        os.sched_yield()


def _is_zombie(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_a_port_that_others_share_is_taken_for_one_that_does_not() -> None:
    with listening_socket("127.0.0.1", 0, shared=True) as first:
        first.listen()
        port = first.getsockname()[1]
        with listening_socket("127.0.0.1", port, shared=True) as second:
            assert isinstance(second, socket.socket)
        with pytest.raises(OSError, match="in use"):
            listening_socket("127.0.0.1", port)
