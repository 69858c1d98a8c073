"""How fast the scheduling core decides: ``python -m tests.bench.core.bench_core [--quick] [--json FILE]``.

Figures are CPU time of one process, medians over rounds; a round runs every case once, so that a disturbance hits all
alike.  Explanations are on: every decision carries reasons and the figures of every candidate.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time

from scheduler_svc.domain.core import SchedulingCore
from scheduler_svc.domain.instance import IterationSample, LoadReport
from scheduler_svc.domain.request import Sampling
from tests.bench.core.fleet import FACTS, MAX_RUNNING, MODEL, Requests, Running, start_core

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
SIZES = (10, 100, 1_000)
QUEUE_LENGTHS = (100, 1_000, 10_000, 100_000)
TARGETS = {100: 3_000, 1_000: 300}  # decisions/s by instances


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure; ``prepare`` returns what one round runs, which returns operations done."""

    group: str
    name: str
    unit: str
    run: Callable[[], tuple[int, float]]  # operations, CPU seconds


def half_full(policy: str, instances: int, decisions: int) -> Case:
    """Every instance has room: the widest choice there is.  Ten requests come, ten end, again and again."""
    core = start_core(policy, instances)
    requests, running = Requests(), Running(core)
    fill(core, requests, running, instances * MAX_RUNNING // 2)
    clock = [1.0]

    def run() -> tuple[int, float]:
        done, spent = 0, 0.0
        while done < decisions:
            clock[0] += 0.01
            for _ in range(10):
                core.enqueue(requests.make(clock[0]), clock[0])
            began = process_time()
            placed = core.schedule(clock[0])
            spent += process_time() - began
            done += len(placed)
            running.start(placed)
            running.finish(len(placed), clock[0])
        return done, spent

    return Case(group="half full", name=f"{policy}, {instances} instances", unit="decisions/s", run=run)


def saturated(policy: str, instances: int, waiting: int, decisions: int, *, group: str, name: str) -> Case:
    """Every slot is taken and requests wait; one ends, one is placed, one comes."""
    core = start_core(policy, instances)
    requests, running = Requests(), Running(core)
    while not core.waiting(MODEL):
        fill(core, requests, running, 200)
    for _ in range(waiting - core.waiting(MODEL)):
        core.enqueue(requests.make(0.0), 0.0)
    clock = [1.0]

    def run() -> tuple[int, float]:
        done, spent = 0, 0.0
        while done < decisions:
            clock[0] += 0.01
            running.finish(1, clock[0])
            began = process_time()
            placed = core.schedule(clock[0])
            core.enqueue(requests.make(clock[0]), clock[0])
            spent += process_time() - began
            done += len(placed)
            running.start(placed)
        return done, spent

    return Case(group=group, name=name, unit="decisions/s", run=run)


def claimed(instances: int, passes: int) -> Case:
    """The head needs more KV room than any instance has free: a claim, and sixteen behind it looked at, every pass."""
    core = start_core("fifo", instances)
    requests, running = Requests(), Running(core)
    fill(core, requests, running, instances * MAX_RUNNING // 2)
    facts_len = FACTS.max_model_len
    for n in range(instances * (FACTS.kv_capacity_tokens // facts_len) + 40):
        core.enqueue(requests.make(0.0, prompt=facts_len - 500, sampling=Sampling(max_tokens=500 - n % 3)), 0.0)
    while placed := core.schedule(0.0):
        running.start(placed)
    pool = core.registry.pool(MODEL)

    def run() -> tuple[int, float]:
        spent = 0.0
        for _ in range(passes):
            pool.changed = True
            began = process_time()
            placed = core.schedule(1.0)
            spent += process_time() - began
            assert not placed
        return passes, spent

    return Case(group="blocked head", name=f"{instances} instances", unit="passes/s", run=run)


def explained(instances: int, decisions: int) -> Case:
    """Writing out all rows of a decision, as an operator's `explain` does."""
    core = start_core("slo_aware", instances)
    core.enqueue(Requests().make(0.0), 0.0)
    (decision,) = core.schedule(0.0)

    def run() -> tuple[int, float]:
        began = process_time()
        for _ in range(decisions):
            assert len(list(decision.candidates)) == instances
        return decisions, process_time() - began

    return Case(group="rows written out", name=f"{instances} instances", unit="explanations/s", run=run)


def heartbeats(count: int) -> Case:
    """Heartbeats with sixteen iterations each, on an instance with half its slots taken."""
    core = start_core("fifo", 1)
    fill(core, Requests(), Running(core), MAX_RUNNING // 2)
    samples = tuple(
        IterationSample(
            prefill_tokens=n % 4 * 100,
            decode_tokens=n + 1,
            running=n + 1,
            kv_used_tokens=n * 900,
            elapsed_s=0.01 + n * 1e-4,
        )
        for n in range(16)
    )

    def run() -> tuple[int, float]:
        began = process_time()
        for n in range(count):
            load = LoadReport(
                number=n,
                last_assign=0,
                running=32,
                waiting=0,
                unfinished=32,
                kv_used_tokens=10_000,
                iterations=n,
                samples=samples,
            )
            core.report("i0000", load, 1.0)
        return count, process_time() - began

    return Case(group="heartbeats", name="16 iterations each", unit="heartbeats/s", run=run)


def fill(core: SchedulingCore, requests: Requests, running: Running, count: int) -> None:
    for n in range(count):
        core.enqueue(requests.make(0.0), 0.0)
        if n % 100 == 99 or n == count - 1:
            while placed := core.schedule(0.0):
                running.start(placed)


def all_cases(scale: int) -> list[Case]:
    cases = [half_full(p, n, max(100, min(2_000, 100_000 // n) // scale)) for n in SIZES for p in POLICIES]
    cases += [
        saturated("fifo", n, 1_000, max(100, 1_000 // scale), group="saturated", name=f"fifo, {n} instances")
        for n in SIZES
    ]
    cases += [
        saturated(p, 100, q, max(100, 1_000 // scale), group="queue length", name=f"{p}, {q:,} waiting, 100 instances")
        for p in ("fifo", "slo_aware")
        for q in QUEUE_LENGTHS
    ]
    cases += [claimed(n, max(10, 200 // scale)) for n in (10, 100, 1_000)]
    cases += [explained(n, max(5, 50 // scale)) for n in (100, 1_000)]
    return [*cases, heartbeats(max(100, 1_000 // scale))]


def measure(cases: list[Case], rounds: int) -> list[dict[str, object]]:
    rates: list[list[float]] = [[] for _ in cases]
    gc.collect()
    gc.freeze()  # what the cases hold is not rubbish; what they make while they run is collected as usual
    for _ in range(rounds):
        for case, found in zip(cases, rates, strict=True):
            done, spent = case.run()
            found.append(done / spent)
    return [
        {
            "group": case.group,
            "case": case.name,
            "unit": case.unit,
            "median": median(found),
            "lowest": min(found),
            "highest": max(found),
        }
        for case, found in zip(cases, rates, strict=True)
    ]


def print_table(results: list[dict[str, object]]) -> None:
    group = None
    for r in results:
        if r["group"] != group:
            group = r["group"]
            print(f"\n{group}  ({r['unit']}: median, lowest .. highest; microseconds each)")
        rate = r["median"]
        assert isinstance(rate, float)
        print(f"  {r['case']:<42} {rate:>10,.0f}  {r['lowest']:>9,.0f} .. {r['highest']:<9,.0f} {1e6 / rate:>9,.1f}")
    print("\ntargets: " + ", ".join(f">= {rate:,}/s with {n:,} instances" for n, rate in TARGETS.items()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.core.bench_core", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer decisions and rounds, for a look")
    parser.add_argument("--json", type=Path, help="also write the results there")
    options = parser.parse_args(arguments)
    results = measure(all_cases(5 if options.quick else 1), 3 if options.quick else 5)
    print_table(results)
    document = {"python": platform.python_version(), "machine": platform.machine(), "results": results}
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    else:
        print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
