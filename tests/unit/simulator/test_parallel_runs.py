"""Jobs over processes: every result, in the order of the ends, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial

import pytest

from sage_simulator.parallel_runs import Crew, Job, RunError, run_all


def square(number: int) -> int:
    return number * number


def fail() -> int:
    raise ValueError("this job fails")


def own_process() -> int:
    return os.getpid()


def die() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def interrupt_then(number: int) -> int:
    """Have this process get what Ctrl-C sends to every process of a terminal."""
    os.kill(os.getpid(), signal.SIGINT)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_run_once_and_its_result_comes_with_its_index(workers: int) -> None:
    jobs = [partial(square, number) for number in range(7)]
    assert sorted(run_all(jobs, workers)) == [(number, number * number) for number in range(7)]


def test_one_worker_is_this_process_and_runs_in_order() -> None:
    assert list(run_all([own_process, own_process], 1)) == [(0, os.getpid()), (1, os.getpid())]


def test_several_workers_are_other_processes_which_end_with_the_last_result() -> None:
    used = {pid for _, pid in run_all([own_process] * 4, 2)}
    assert os.getpid() not in used
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_job_is_raised_and_the_processes_end(workers: int) -> None:
    with pytest.raises(ValueError, match="this job fails"):
        list(run_all([partial(fail), partial(square, 2)], workers))
    assert multiprocessing.active_children() == []


class OddError(Exception):
    def __init__(self, *, what: str) -> None:
        super().__init__(f"odd: {what}")


def fail_oddly() -> int:
    raise OddError(what="it cannot be made anew from its arguments")


def test_an_error_that_cannot_be_sent_is_said_in_words() -> None:
    with pytest.raises(RunError, match="OddError: odd: it cannot be made anew"):
        list(run_all([partial(fail_oddly), partial(square, 2)], 2))


def test_a_process_that_dies_is_an_error_with_its_status() -> None:
    with pytest.raises(RunError, match="job 0 ended with status -9"):
        list(run_all([partial(die), partial(square, 2)], 2))
    assert multiprocessing.active_children() == []


def test_a_result_that_cannot_be_sent_is_an_error() -> None:
    with pytest.raises(RunError, match="cannot be sent back"):
        list(run_all([partial(lambda_of, 1), partial(lambda_of, 2)], 2))


def lambda_of(number: int) -> object:
    return lambda: number


def test_ctrl_c_is_the_parents_and_leaving_early_ends_the_processes() -> None:
    runs = run_all([partial(interrupt_then, number) for number in range(4)], 2)
    next(runs)  # the job went on in spite of the signal
    assert multiprocessing.active_children() != []
    runs.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_a_crew_keeps_its_processes_from_batch_to_batch() -> None:
    with Crew(2) as crew:
        first = {pid for _, pid in crew.run([own_process] * 4)}
        second = {pid for _, pid in crew.run([own_process] * 4)}
    assert len(first | second) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crew_is_fed_with_jobs_that_depend_on_results(workers: int) -> None:
    found: list[int] = [2]
    running: list[int] = []

    def next_job() -> Job[int] | None:
        if running or len(found) == 4:
            return None
        running.append(found[-1])
        return partial(square, found[-1])

    with Crew(workers) as crew:
        for result in crew.feed(next_job):
            running.clear()
            found.append(result)
    assert found == [2, 4, 16, 256]


def test_a_crew_gives_up_what_runs_when_the_time_is_up() -> None:
    with Crew(2) as crew:
        assert list(crew.feed(lambda: partial(time.sleep, 600), until=time.monotonic() + 0.2)) == []
    assert multiprocessing.active_children() == []


def test_no_job_gives_no_result_and_no_worker_is_refused() -> None:
    assert list(run_all([], 3)) == []
    with pytest.raises(ValueError, match="workers: 0"):
        list(run_all([], 0))
