"""Executors hang whose processes run while the scheduler has lost them for long."""

from __future__ import annotations

from sage_fleet.local_place.hung_watch import HUNG_S, LONGEST_STEP_S, HungWatch

ENOUGH = int(HUNG_S)


def looked(watch: HungWatch, name: str, process: int, seconds: range) -> list[int]:
    """Look each second at one that is silent; return the seconds at which it hung."""
    return [each for each in seconds if watch.look([(name, process)], float(each))]


def test_an_executor_hangs_that_is_lost_for_long_while_its_process_runs() -> None:
    assert looked(HungWatch(), "a", 0, range(100, 101 + ENOUGH)) == [100 + ENOUGH]


def test_one_that_was_heard_of_meanwhile_counts_anew() -> None:
    watch = HungWatch()
    looked(watch, "a", 0, range(ENOUGH))
    assert watch.look([], float(ENOUGH)) == []
    assert looked(watch, "a", 0, range(ENOUGH + 1, 3 * ENOUGH)) == [2 * ENOUGH + 1]


def test_another_process_counts_anew() -> None:
    watch = HungWatch()
    looked(watch, "a", 0, range(ENOUGH))
    assert looked(watch, "a", 1, range(ENOUGH, 2 * ENOUGH + 1)) == [2 * ENOUGH]


def test_a_time_in_which_nobody_looked_counts_little() -> None:
    watch = HungWatch()
    watch.look([("a", 0)], 0.0)
    assert watch.look([("a", 0)], 3_600.0) == [], "the whole machine stood still"
    assert watch.look([("a", 0)], 3_600.0 + HUNG_S - 2 * LONGEST_STEP_S) == []


def test_one_that_stays_after_it_was_killed_is_named_once_for_each_limit() -> None:
    assert looked(HungWatch(), "a", 0, range(3 * ENOUGH)) == [ENOUGH, 2 * ENOUGH]
