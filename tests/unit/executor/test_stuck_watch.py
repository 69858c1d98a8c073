"""An engine that holds work and stands still is found, whatever is tried with it meanwhile."""

from __future__ import annotations

from executor_svc.runtime.engine_port import EngineLoad
from executor_svc.runtime.stuck_watch import KNOWN_WAIT_FACTOR, LONGEST_STEP_S, StuckWatch


def load(unfinished: int, iterations: int = 7, known_wait: str | None = None) -> EngineLoad:
    return EngineLoad(
        running=unfinished,
        waiting=0,
        unfinished=unfinished,
        kv_used_tokens=0,
        prefix_queries_tokens=0,
        prefix_hits_tokens=0,
        prompt_tokens_total=0,
        generation_tokens_total=0,
        iterations=iterations,
        known_wait=known_wait,
    )


def test_an_engine_that_stands_still_is_stuck_after_the_limit() -> None:
    watch = StuckWatch(60.0)
    found = [watch.look(load(3), float(second)) for second in range(62)]
    assert not any(found[:60])
    assert found[60] == "it holds 3 requests and did no iteration for 60 s"


def test_an_engine_that_does_iterations_or_has_nothing_to_do_is_not_stuck() -> None:
    working, idle = StuckWatch(10.0), StuckWatch(10.0)
    for second in range(100):
        assert not working.look(load(3, iterations=second // 9), float(second))
        assert not idle.look(load(0), float(second))


def test_work_that_is_taken_from_it_and_tried_again_counts_together() -> None:
    watch = StuckWatch(30.0)
    found = [watch.look(load(3 if second % 40 < 11 else 0), float(second)) for second in range(100)]
    assert next(second for second, why in enumerate(found) if why) == 90


def test_one_that_says_what_it_waits_for_has_longer() -> None:
    watch = StuckWatch(10.0)
    found = [watch.look(load(1, known_wait="a KV transfer"), float(second)) for second in range(60)]
    first = next(second for second, why in enumerate(found) if why)
    assert first == 10 * KNOWN_WAIT_FACTOR
    assert found[first].endswith("(it waits for a KV transfer)")


def test_one_that_loads_an_adapter_has_longer() -> None:
    watch = StuckWatch(10.0)
    work = "an adapter that is loaded or unloaded"
    found = [watch.look(load(1), float(second), other_work=work) for second in range(60)]
    first = next(second for second, why in enumerate(found) if why)
    assert first == 10 * KNOWN_WAIT_FACTOR
    assert found[first].endswith(f"(it waits for {work})")


def test_a_time_in_which_nobody_looked_counts_little() -> None:
    watch = StuckWatch(2 * LONGEST_STEP_S)
    watch.look(load(1), 0.0)
    assert not watch.look(load(1), 3_600.0)
