"""Prints a checksum of decisions for each case: ``python -m tests.compiled.decisions``.

Run with the domain compiled and as Python, it prints the same: compare the output of both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from random import Random

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import RequestClass, with_classes
from sage_simulator.traces.synthetic import LognormalLengths, independent_requests, poisson_arrivals
from scheduler_svc.domain.build import build_name
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.settings import SchedulerSettings
from tests.compiled.recorded_fleet import RecordedFleet

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
_SEEDS = range(8)
_STEPS = 400
_CLASSES = (
    RequestClass(weight=1, priority=Priority.CRITICAL, ttft_target_s=1.0),
    RequestClass(weight=4, ttft_target_s=5.0),
    RequestClass(weight=2, priority=Priority.BACKGROUND),
)


def random_fleets(policy: str) -> Iterator[str]:
    """Yield what schedulers said to which everything happens that can: instances come and go, requests are resumed."""
    for seed in _SEEDS:
        fleet = RecordedFleet(Random(f"{policy} {seed}"), policy)
        for _ in range(_STEPS):
            fleet.step()
        yield from fleet.said


def simulated(policy: str) -> Iterator[str]:
    """Yield how each request of an overloaded, unequal fleet went."""
    settings = SimulationSettings(scheduler=SchedulerSettings(policy=policy))
    fleet = (
        InstanceModel(),
        InstanceModel(speed=0.5, price_per_hour=0.4),
        InstanceModel(speed=2.0, price_per_hour=3.0),
    )
    for outcome in Simulation(_trace(), fleet, settings).run().outcomes:
        yield repr(outcome)


def _trace() -> list[TracedRequest]:
    rng = Random(3)
    prompts = LognormalLengths(median=900, sigma=0.8, most=6_000)
    outputs = LognormalLengths(median=120, sigma=0.7, most=800)
    requests = independent_requests(rng, poisson_arrivals(rng, 60.0), 400, prompts=prompts, outputs=outputs)
    hashed = [replace(each, block_hashes=(1, 2, n % 40 << 8), block_tokens=64) for n, each in enumerate(requests)]
    return with_classes(hashed, rng, _CLASSES)


def main() -> int:
    """Print which build runs, then a line for each case; with ``--lines``, all that was said."""
    print("build:", build_name())
    for policy in POLICIES:
        for name, said in (("random fleets", random_fleets(policy)), ("simulated", simulated(policy))):
            lines = list(said)
            checksum = sha256("\n".join(lines).encode()).hexdigest()[:16]
            print(f"{name}, {policy}: {len(lines)} lines, {checksum}")
            if "--lines" in sys.argv:
                print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
