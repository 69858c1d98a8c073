"""The wait that callers are told at the door against the wait that comes, on modelled engines in an overload."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import RequestClass, with_classes
from sage_simulator.traces.synthetic import (
    LognormalLengths,
    independent_requests,
    on_off_arrivals,
    poisson_arrivals,
)
from scheduler_svc.domain.request import Priority, Request
from scheduler_svc.domain.settings import SchedulerSettings

CLASSES = (
    RequestClass(weight=1, priority=Priority.HIGH),
    RequestClass(weight=3),
    RequestClass(weight=2, priority=Priority.LOW),
)
PROMPTS = LognormalLengths(median=800, sigma=0.6, most=4_000)
OUTPUTS = LognormalLengths(median=150, sigma=0.7, most=1_000)
LEARNING = 300  # requests, until the rate of the overload is known
LEAST_S = 1.0  # shorter waits are not judged


def steady(rate: float, count: int = 1_200) -> list[TracedRequest]:
    rng = random.Random(2)
    arrivals = poisson_arrivals(rng, rate)
    return with_classes(independent_requests(rng, arrivals, count, prompts=PROMPTS, outputs=OUTPUTS), rng, CLASSES)


def bursts(count: int = 1_200) -> list[TracedRequest]:
    rng = random.Random(2)
    arrivals = on_off_arrivals(rng, on_requests_per_s=60, off_requests_per_s=6, mean_on_s=5, mean_off_s=10)
    return with_classes(independent_requests(rng, arrivals, count, prompts=PROMPTS, outputs=OUTPUTS), rng, CLASSES)


def ratios(policy: str, trace: Sequence[TracedRequest], slots: int, priority: Priority | None = None) -> list[float]:
    """What was told over what came, of each request that waited, sorted."""
    fleet = (InstanceModel(max_running=slots),) * 2
    run = Simulation(trace, fleet, SimulationSettings(scheduler=SchedulerSettings(policy=policy)))
    scheduler, told = run.scheduler, list[float]()
    enqueue = scheduler.enqueue

    def telling(request: Request, now: float, **more: Any) -> None:
        told.append(scheduler.expected_wait_of(request, now))
        enqueue(request, now, **more)

    scheduler.enqueue = telling  # type: ignore[method-assign]
    outcomes = sorted(run.run().outcomes, key=lambda outcome: outcome.request.arrival_s)
    judged = [
        (wait, outcome.queue_wait_s)
        for wait, outcome in list(zip(told, outcomes, strict=True))[LEARNING:]
        if priority in (None, outcome.request.priority)
    ]
    return sorted(wait / came for wait, came in judged if came is not None and came > LEAST_S)


def within_a_quarter(found: list[float]) -> float:
    assert len(found) > 100, "an overload it is"
    return sum(0.75 <= ratio <= 1.25 for ratio in found) / len(found)


@pytest.mark.parametrize("slots", [16, 256], ids=["slots are scarce", "prompts are in the way"])
def test_in_a_steady_overload_nine_in_ten_waits_come_as_told(slots: int) -> None:
    assert within_a_quarter(ratios("fifo", steady(22.0 if slots == 16 else 60.0), slots)) > 0.9


def test_in_bursts_too() -> None:
    assert within_a_quarter(ratios("fifo", bursts(), 256)) > 0.9


def test_a_class_that_others_overtake_is_told_so() -> None:
    found = ratios("priority", steady(45.0), 256, Priority.LOW)
    assert 0.75 <= found[len(found) // 2] <= 1.25
