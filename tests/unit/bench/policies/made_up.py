"""Figures and readings of runs that were not made, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage_simulator.oracle import ORACLE
from tests.bench.policies.cell import Group
from tests.bench.policies.figures import Figures
from tests.bench.policies.fixed_loads import fixed_loads
from tests.bench.policies.readings import Readings
from tests.bench.policies.results import Results

E8 = Group(traffic="bursty_chat", fleet="E8", slots=128, targets="mixed")
U8 = Group(traffic="azure_conv", fleet="U8", slots=128, targets="mixed")
LOADS = (0.5, 1.0, 1.5)
MADE_UP = (ORACLE, "fifo", "priority", "slo_aware", "cost_optimized", "adaptive", "least_requests")


def figures(share: float = 1.0, **changes: Any) -> Figures:
    values: dict[str, Any] = {
        "requests": 100,
        "in_target_share": share,
        "class_in_target_spread": 0.0,
        "ttft_mean_s": 0.1,
        "ttft_p50_s": 0.1,
        "ttft_p99_s": 0.2,
        "critical_ttft_p99_s": 0.1,
        "background_ttft_p99_s": 0.1,
        "tpot_p50_s": 0.01,
        "tpot_p90_s": 0.01,
        "queue_wait_p99_s": 0.0,
        "cost_per_million_tokens": 1.0,
        "fleet_cost_per_million_tokens": 2.0,
        "placed_imbalance": 1.0,
        "busy_imbalance": 1.0,
        "overtaken": 0,
        "switches_per_minute": 0.0,
        "span_s": 60.0,
    }
    return Figures(**values | changes)


def readings(
    group: Group = U8, *, policies: tuple[str, ...] = MADE_UP, seeds: int = 1, results: Results | None = None
) -> Readings:
    return Readings(
        results=results or Results(),
        groups=[group],
        policies=policies,
        loads=LOADS,
        seeds=range(1, seeds + 1),
        duration_s=60.0,
    )


def filled(group: Group, made: Callable[[str, float, int], Figures], *, seeds: int = 1) -> Readings:
    """Readings of a run whose figures are made up, by policy, load and seed."""
    run = readings(group, seeds=seeds)
    for policy in MADE_UP:
        for load in {*LOADS, *fixed_loads(group, policy)}:
            for seed in run.seeds:
                run.results.add({run.cell(group, policy, load, seed).key: made(policy, load, seed)})
    return run


def by_goodput(**goodputs: float) -> Callable[[str, float, int], Figures]:
    """Figures that give policies these goodputs, others 1."""
    return lambda policy, load, seed: figures(1.0 - 0.1 * load / goodputs.get(policy, 1.0))
