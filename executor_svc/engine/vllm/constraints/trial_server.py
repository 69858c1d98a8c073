"""Serves trials, each in a fork that the kernel ends at its limits.  Runs in a process of its own, with one thread.

Messages are lines of JSON.  In: ``{"number": 7, "task": {...}, "cpu_s": 0.1}`` begins a trial, ``{"end": 7}`` ends it.
Out: ``{"ready": true}``, then for each trial that was not ended by request ``{"number": 7, "error": null}``, or
``{"number": 7, "signal": 27}`` if a signal ended it, or ``{"number": 7, "failure": "..."}`` if it could not be made.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator
from typing import Any

MEMORY_BYTES = 2 << 30  # that a trial may take beyond what the process had before
WALL_PER_CPU_S = 20  # seconds by the clock for each of CPU time: a busy machine must not refuse what an idle one takes
LEAST_WALL_S = 5
OUT_OF_MEMORY = "memory"  # the error of a trial that reached MEMORY_BYTES
LONGEST_ERROR = 300  # characters, of up to 12 bytes in JSON: an answer is one atomic write to the pipe
ANSWERED = 7  # exit status of a trial that told how it ended: a library that exits by itself does not choose this one

_PR_SET_PDEATHSIG = 1  # prctl: a signal to this process when its parent ends

Attempt = Callable[[Any], None]
"""Tries one task.  Raises if the task is at fault."""


def wall_s(cpu_s: float) -> float:
    """Return after how many seconds by the clock a trial ends that may take ``cpu_s`` of CPU time."""
    return max(LEAST_WALL_S, WALL_PER_CPU_S * cpu_s)


class Lines:
    """Reads whole lines from a file descriptor."""

    def __init__(self, source: int) -> None:
        self.source = source
        self._rest = b""

    def first(self) -> bytes:
        """Wait for one line.  Raises EOFError."""
        while b"\n" not in self._rest:
            self._read()
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def arrived(self) -> Iterator[bytes]:
        """Read once, and give each line that is complete.  Raises EOFError."""
        self._read()
        *lines, self._rest = self._rest.split(b"\n")
        yield from lines

    def _read(self) -> None:
        data = os.read(self.source, 1 << 16)
        if not data:
            raise EOFError
        self._rest += data


class TrialServer:
    """Forks a process for each trial and tells how it ended."""

    def __init__(self, attempt: Attempt, requests: Lines, answers: int) -> None:
        self._attempt = attempt
        self._requests = requests
        self._answers = answers
        self._numbers: dict[int, int] = {}  # of running trials, by process id
        self._prctl = ctypes.CDLL(None).prctl

    def serve(self) -> None:
        """Serve until the requests end.  Ends every trial then."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._say(ready=True)
        with contextlib.suppress(EOFError):
            while True:
                readable, _, _ = select.select([self._requests.source, woken], [], [])
                if woken in readable:
                    with contextlib.suppress(BlockingIOError):
                        os.read(woken, 1 << 10)
                    self._reap()
                if self._requests.source in readable:
                    for line in self._requests.arrived():
                        self._obey(json.loads(line))
        for child in self._numbers:
            os.kill(child, signal.SIGKILL)

    def _obey(self, message: dict[str, Any]) -> None:
        ended = message.get("end")
        if ended is None:
            self._begin(message)
            return
        for child, number in self._numbers.items():
            if number == ended:
                os.kill(child, signal.SIGKILL)

    def _begin(self, message: dict[str, Any]) -> None:
        number, server = message["number"], os.getpid()
        try:
            child = os.fork()
        except OSError as error:
            self._say(number=number, failure=f"no process can be made: {error.strerror}")
            return
        if child:
            self._numbers[child] = number
            return
        status = 1
        try:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != server:  # it ended before the kernel knew whom to signal
                os._exit(status)
            _limit(message["cpu_s"])
            self._say(number=number, error=self._error_of(message["task"]))
            status = ANSWERED
        finally:
            os._exit(status)

    def _error_of(self, task: Any) -> str | None:
        try:
            self._attempt(task)
        except MemoryError:
            return OUT_OF_MEMORY
        except Exception as error:
            return str(error)[:LONGEST_ERROR] or type(error).__name__
        return None

    def _reap(self) -> None:
        """Tell of the trials that ended without an answer of their own."""
        while self._numbers:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            number = self._numbers.pop(child)
            if os.WIFSIGNALED(status):
                self._say(number=number, signal=os.WTERMSIG(status))
            elif os.WEXITSTATUS(status) != ANSWERED:
                self._say(number=number, failure=f"its process exited with status {os.WEXITSTATUS(status)}")

    def _say(self, **answer: object) -> None:
        os.write(self._answers, json.dumps(answer).encode() + b"\n")


def _limit(cpu_s: float) -> None:
    """Have the kernel end this process when it has used ``cpu_s``, or takes too long or too much memory."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)  # SIGPROF ends a process that does not handle it
    signal.setitimer(signal.ITIMER_REAL, wall_s(cpu_s))  # and so does SIGALRM
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY:
        most = min(most, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
