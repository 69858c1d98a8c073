"""A pass need not look at what asks for as much as something that it held back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.domain.held_alike import HeldAlike
from scheduler_svc.domain.objectives.held_back import MOST_LATE_S, PATIENCE
from scheduler_svc.domain.prediction.pace import GPU_PRIOR
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.contract.policies.modelled_fleet import (
    MEASURED,
    add_instance,
    make_facts,
    make_load,
    make_request,
    make_scheduler,
)

NOW = 1_000.0
TTFT_S = 10.0


def waiting(
    *,
    prompt: int = 100,
    output: int = 100,
    ttft_s: float | None = TTFT_S,
    tpot_s: float = 0.05,
    waited_s: float = 1.0,
    emitted: int = 0,
    priority: Priority = Priority.NORMAL,
) -> WaitingRequest:
    request = make_request(
        "r",
        prompt=prompt,
        arrived_at=NOW - waited_s,
        priority=priority,
        ttft_target_s=ttft_s,
        tpot_target_s=tpot_s,
    )
    return WaitingRequest(
        request,
        enqueued_at=NOW - waited_s,
        emitted_tokens=emitted,
        excluded=frozenset(),
        resumed=emitted > 0,
        output_tokens=output,
        pace=GPU_PRIOR,
    )


def covers(held: WaitingRequest, other: WaitingRequest) -> bool:
    alike = HeldAlike(DEFAULT_TARGETS, NOW)
    alike.add(held)
    return alike.covers(other)


def test_nothing_is_covered_before_something_is_held() -> None:
    assert not HeldAlike(DEFAULT_TARGETS, NOW).covers(waiting())


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"prompt": 101},
        {"output": 200},
        {"output": 95},  # both are predictions
    ],
)
def test_what_asks_for_as_much_is_covered(other: dict[str, int]) -> None:
    assert covers(waiting(), waiting(**other))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": 99},
        {"output": 80},
        {"tpot_s": 0.06},
        {"tpot_s": 0.04},
        {"waited_s": PATIENCE * TTFT_S},  # its patience is over: it may go where the held one would not
        {"waited_s": MOST_LATE_S},
        {"prompt": 201},  # it may have to go before the wait makes it late
        {"emitted": 3},
    ],
)
def test_what_may_go_is_looked_at(other: dict[str, float]) -> None:
    assert not covers(waiting(), waiting(**other))  # type: ignore[arg-type]


def test_one_that_waits_beyond_its_patience_covers_those_that_are_patient() -> None:
    over = waiting(waited_s=PATIENCE * TTFT_S)

    assert covers(over, waiting(waited_s=PATIENCE * TTFT_S + 1))
    assert covers(over, waiting())
    assert not covers(over, waiting(waited_s=MOST_LATE_S))


@pytest.mark.parametrize(("priority", "covered"), [(Priority.NORMAL, True), (Priority.CRITICAL, False)])
def test_classes_that_are_patient_for_other_times_are_not_alike(priority: Priority, covered: bool) -> None:
    """They state the same target; by the TTFT targets of their classes they wait for other times."""
    held = waiting(ttft_s=None, waited_s=0.0)

    assert covers(held, waiting(ttft_s=None, waited_s=0.0, priority=priority)) == covered


FACTS = make_facts(max_running=64, max_model_len=32_768, measured=MEASURED)


def placed_after(scheduler: Scheduler, wanted: str, *, since: float, most_s: int) -> int | None:
    """Return after how many seconds a request is placed beside one that runs; None if it is not."""
    for n in range(most_s):
        now = since + n
        for instance in scheduler.instances():
            running = instance.instance_id == "i0"
            load = make_load(n + 2, running=running, unfinished=running, kv_used_tokens=4_000 * running)
            scheduler.report(instance.instance_id, load, now)
        if any(decision.key.request_id == wanted for decision in scheduler.schedule(now)):
            return n
    return None


def with_tight_stream(**request: Any) -> Scheduler:
    scheduler = make_scheduler("slo_aware")
    add_instance(scheduler, "i0", facts=FACTS)
    scheduler.enqueue(make_request("tight", output=2_000, **request), 0.0)
    (decision,) = scheduler.schedule(0.0)
    scheduler.first_token(decision.attempt_number, 0.2)
    return scheduler


def test_one_that_fits_an_idle_instance_does_not_wait_beside_one_that_does_not() -> None:
    scheduler = with_tight_stream(ttft_target_s=5.0, tpot_target_s=0.025)
    add_instance(scheduler, "i1", facts=replace(FACTS, max_model_len=4_096), now=0.3)
    for name, output in (("long", 200), ("fits", 190)):
        background = make_request(name, prompt=3_900, output=output, arrived_at=1.0, priority=Priority.BACKGROUND)
        scheduler.enqueue(background, 1.0)

    assert placed_after(scheduler, "fits", since=1.0, most_s=3) == 0


def test_one_whose_prompt_a_cache_holds_does_not_wait_beside_one_that_has_to_compute_it() -> None:
    held, other = tuple(range(1, 251)), tuple(range(1_001, 1_251))
    scheduler = with_tight_stream(
        prompt=4_001, ttft_target_s=15.0, tpot_target_s=0.0208, prefix_hashes=held, prefix_block_tokens=16
    )
    for name, hashes in (("computed", other), ("held", held)):
        request = make_request(
            name,
            prompt=4_001,
            output=200,
            arrived_at=100.0,
            ttft_target_s=20.0,
            tpot_target_s=0.0207,
            prefix_hashes=hashes,
            prefix_block_tokens=16,
        )
        scheduler.enqueue(request, 100.0)

    assert placed_after(scheduler, "held", since=100.0, most_s=3) == 0
