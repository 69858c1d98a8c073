"""Executors hang whose processes run while the scheduler has lost them for long."""

from __future__ import annotations

from sage_fleet.local_place.hung_watch import HUNG_S, HungWatch


def test_an_executor_hangs_that_is_lost_for_long_while_its_process_runs() -> None:
    watch = HungWatch()
    assert watch.look([("a", 0), ("b", 0)], 100.0) == []
    assert watch.look([("a", 0)], 99.0 + HUNG_S) == []
    assert watch.look([("a", 0), ("b", 0)], 100.0 + HUNG_S) == ["a"], "b was heard of meanwhile"


def test_another_process_counts_anew() -> None:
    watch = HungWatch()
    watch.look([("a", 0)], 0.0)
    assert watch.look([("a", 1)], HUNG_S) == []
    assert watch.look([("a", 1)], 2 * HUNG_S) == ["a"]
