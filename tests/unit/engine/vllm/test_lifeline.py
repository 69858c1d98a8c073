"""Processes that hang on the executor leave when it is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from executor_svc.engine.vllm.lifeline import EXECUTOR_VARIABLE, announce_executor, machine, start_time

SLEEPER = "import time; time.sleep(600)"
WORKER = f"from executor_svc.engine.vllm import lifeline; lifeline.watch_executor(); print('up', flush=True); {SLEEPER}"


def parent_of(program: str) -> str:
    """A program that announces itself as the executor if it is asked to, starts ``program`` and says its id."""
    return (
        "import os, subprocess, sys; from executor_svc.engine.vllm import lifeline; "
        "os.environ.pop('ANNOUNCE', None) and lifeline.announce_executor(); "
        f"print(subprocess.Popen([sys.executable, '-c', {program!r}]).pid, flush=True); {SLEEPER}"
    )


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program; ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(program: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        # What it started holds the same pipe: all of it goes, or reading to the pipe's end would wait for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while start_time(pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def on(process: subprocess.Popen[str]) -> dict[str, str]:
    return {EXECUTOR_VARIABLE: f"{process.pid}:{start_time(process.pid)}:{machine()}"}


def test_a_worker_and_its_engine_core_leave_after_the_executor(start: Start) -> None:
    executor = start(parent_of(parent_of(WORKER)), ANNOUNCE="1")
    core, worker = int(line_of(executor)), int(line_of(executor))  # all write to the same pipe
    assert line_of(executor) == "up"
    executor.kill()
    executor.wait()
    until_gone(core)
    until_gone(worker)


def test_a_parent_that_is_no_engine_core_is_left_alone(start: Start) -> None:
    executor = start(SLEEPER)
    other = start(parent_of(WORKER), **on(executor))  # started by this test, not by the executor
    worker = int(line_of(other))
    assert line_of(other) == "up"
    executor.kill()
    executor.wait()
    until_gone(worker)
    assert other.poll() is None


def test_a_process_that_comes_too_late_leaves_at_once(start: Start) -> None:
    executor = start(SLEEPER)
    variables = on(executor)
    executor.kill()
    executor.wait()
    assert start(WORKER, **variables).wait(timeout=10) == 1


def test_a_reused_process_id_is_not_mistaken_for_the_executor(start: Start) -> None:
    other = start(SLEEPER)
    assert start(WORKER, **{EXECUTOR_VARIABLE: f"{other.pid}:1:{machine()}"}).wait(timeout=10) == 1


@pytest.mark.parametrize("where", ["another-machine/4026531836", f"{machine().partition('/')[0]}/1", ""])
def test_a_worker_on_another_machine_does_not_look_for_the_executor_here(start: Start, where: str) -> None:
    gone = start("")
    gone.wait()
    worker = start(
        WORKER.replace(SLEEPER, "import time; time.sleep(1)"), **{EXECUTOR_VARIABLE: f"{gone.pid}:1:{where}"}
    )
    assert worker.wait(timeout=10) == 0


def test_nobody_hangs_on_nothing(start: Start) -> None:
    worker = start(WORKER.replace(SLEEPER, ""), **{EXECUTOR_VARIABLE: ""})
    assert worker.wait(timeout=10) == 0


def test_the_executor_announces_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTOR_VARIABLE, "")
    announce_executor()
    assert os.environ[EXECUTOR_VARIABLE] == f"{os.getpid()}:{start_time(os.getpid())}:{machine()}"


def test_a_process_that_is_not_there_has_no_start_time() -> None:
    assert start_time(2**22 + 1) is None
