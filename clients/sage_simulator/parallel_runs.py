"""Runs jobs over several processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

T = TypeVar("T")

#: A function that can be pickled and takes no argument, such as a partial of a module's function.
Job = Callable[[], T]

_STOP_S = 5.0  # that a process may take to end after SIGTERM, then it is killed


class RunError(RuntimeError):
    """A process ended before it had finished its job."""


def available_workers() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(jobs: Sequence[Job[T]], workers: int | None = None) -> Iterator[tuple[int, T]]:
    """Run jobs and yield the index and the result of each, in the order in which they end.

    ``workers``: processes; None: one for each available processor.  One worker runs the jobs in this process, in order.
    The iterator ends all processes when it is exhausted, closed or interrupted (Ctrl-C).

    Raises what a job raised, RunError if a process died, ValueError below one worker.
    """
    count = available_workers() if workers is None else workers
    with Crew(count) as crew:
        yield from crew.run(jobs)


class Crew:
    """Processes that run one batch of jobs after the other; a context manager that ends them."""

    def __init__(self, workers: int) -> None:
        """Take a number of processes, started when first needed; 1: this process.  Raises ValueError below 1."""
        if workers < 1:
            raise ValueError(f"workers: {workers} is not at least 1")
        self._count = workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._workers)
        self._workers = []

    def run(self, jobs: Sequence[Job[T]]) -> Iterator[tuple[int, T]]:
        """Run jobs as ``run_all`` does.  Take all results before the next batch, or end the crew."""
        if self._count == 1 or (len(jobs) == 1 and not self._workers):
            yield from ((index, job()) for index, job in enumerate(jobs))
            return
        left = iter(enumerate(jobs))
        yield from _spread(partial(next, left, None), self._hands(len(jobs)), math.inf)

    def feed(self, next_job: Callable[[], Job[T] | None], until: float = math.inf) -> Iterator[T]:
        """Run the jobs that a function makes, and yield their results in the order in which they end.

        ``next_job`` is called when a process is free, and may say None as long as there is nothing to do; then it is
        called again after the next result.  The iterator ends once it says None and no job runs, or at ``until``, a
        time of ``time.monotonic()``: jobs that run then are lost, and end with the crew, which runs nothing any more.
        """
        if self._count == 1:
            while time.monotonic() < until and (job := next_job()) is not None:
                yield job()
            return
        yield from (result for _, result in _spread(_numbered(next_job), self._hands(self._count), until))

    def _hands(self, jobs: int) -> Sequence[_Worker]:
        """Return the processes, after starting those that this many jobs need."""
        while len(self._workers) < min(self._count, jobs):
            self._workers.append(_Worker())
        return self._workers


class _Worker:
    """A process that runs one job after the other."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks, such as gRPC's
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(theirs,), daemon=True)
        # Ctrl-C reaches every process of a terminal, but is the parent's to act upon: its workers inherit the mask.
        # The tracker, which the first start of a process would start, takes SIGINT out of the mask again.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the connection ends with the process
        self.index = -1  # of the job that runs


#: Gives the next job and its index; None: there is none now.
_Source = Callable[[], tuple[int, Job[T]] | None]


def _numbered(next_job: Callable[[], Job[T] | None]) -> _Source[T]:
    numbers = count()

    def take() -> tuple[int, Job[T]] | None:
        job = next_job()
        return None if job is None else (next(numbers), job)

    return take


def _spread(take: _Source[T], crew: Sequence[_Worker], until: float) -> Iterator[tuple[int, T]]:
    """Keep the processes busy until there is no job or the time is up, and yield what they give."""
    busy: dict[object, _Worker] = {}  # by connection
    idle = list(crew)
    while True:
        while idle and time.monotonic() < until and (found := take()) is not None:
            worker = idle.pop()
            worker.index, job = found
            _send(worker, job)
            busy[worker.connection] = worker
        ready = _wait(busy, until) if busy else []
        if not ready:
            return
        worker = busy.pop(ready[0])
        index, result = worker.index, _result(worker)
        idle.append(worker)
        yield index, result


def _wait(busy: Mapping[object, _Worker], until: float) -> list[object]:
    """Return the connections that can be read; none if the time is up before."""
    timeout_s = None if until == math.inf else max(0.0, until - time.monotonic())
    return list(wait([each.connection for each in busy.values()], timeout_s))


def _send(worker: _Worker, job: Job[T]) -> None:
    try:
        worker.connection.send(job)
    except OSError:
        raise _died(worker) from None


def _result(worker: _Worker) -> Any:
    try:
        succeeded, result = worker.connection.recv()
    except (EOFError, OSError):
        raise _died(worker) from None
    if not succeeded:
        raise result
    return result


def _died(worker: _Worker) -> RunError:
    worker.process.join(_STOP_S)
    return RunError(f"the process of job {worker.index} ended with status {worker.process.exitcode}")


def _end(crew: Sequence[_Worker]) -> None:
    for worker in crew:
        worker.connection.close()
        worker.process.terminate()
    for worker in crew:
        worker.process.join(_STOP_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _work(connection: Connection) -> None:
    """Run jobs until the other end is closed."""
    with suppress(EOFError, OSError):
        while True:
            job: Job[object] = connection.recv()
            try:
                answer: tuple[bool, object] = (True, job())
            except Exception as error:
                answer = (False, _sendable(error))
            _answer(connection, answer)


def _sendable(error: Exception) -> Exception:
    """Return an error that arrives at the other end: some can be pickled and not read again."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")
    return error


def _answer(connection: Connection, answer: tuple[bool, object]) -> None:
    try:
        connection.send(answer)
    except OSError:
        raise
    except Exception as error:
        connection.send((False, RunError(f"{answer[1]!r:.500} cannot be sent back: {error}")))
