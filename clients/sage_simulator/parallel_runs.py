"""Runs jobs over several processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
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
        while len(self._workers) < min(self._count, len(jobs)):
            self._workers.append(_Worker())
        yield from _spread(jobs, self._workers)


class _Worker:
    """A process that runs one job after the other."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks, such as gRPC's
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(theirs,), daemon=True)
        # Ctrl-C reaches every process of a terminal, but is the parent's to act upon: its workers inherit the mask.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the connection ends with the process
        self.index = -1  # of the job that runs


def _spread(jobs: Sequence[Job[T]], crew: Sequence[_Worker]) -> Iterator[tuple[int, T]]:
    waiting = deque(enumerate(jobs))
    busy: dict[object, _Worker] = {}  # by connection

    def give(worker: _Worker) -> None:
        if waiting:
            worker.index, job = waiting.popleft()
            _send(worker, job)
            busy[worker.connection] = worker

    for worker in crew:
        give(worker)
    while busy:
        for connection in wait([each.connection for each in busy.values()]):
            worker = busy.pop(connection)
            index, result = worker.index, _result(worker)
            give(worker)
            yield index, result


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
