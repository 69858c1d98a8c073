"""How fast the scheduler decides: ``python -m tests.bench.core.bench_core [--quick] [--json FILE]``.

Prints a table and the same as JSON.

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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from sage_simulator.fleet_capacity import fleet_capacity
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationSettings
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.request import Sampling
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from tests.bench.core.fleet import FACTS, FAR, MAX_RUNNING, MODEL, Requests, Running, start_scheduler
from tests.bench.policies.fleets import find_fleet
from tests.bench.policies.traffic import find_traffic
from tests.bench.report import Row, table

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
SIZES = (10, 100, 1_000)
QUEUE_LENGTHS = (100, 1_000, 10_000, 100_000)
_SLOTS = 128  # of an instance at capacity
TARGETS = {100: 20_000, 1_000: 5_000}  # decisions/s by instances


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure: ``run`` is what one round does."""

    group: str
    name: str
    instances: int
    unit: str
    run: Callable[[], tuple[int, float]]  # operations, CPU seconds
    admission_s: Callable[[], float] | None = None  # CPU seconds that the last round let as many requests in for


def half_full(policy: str, instances: int, decisions: int, *, prefixes: bool = False, shadow: str = "") -> Case:
    """Every instance has room: the widest choice there is.  Ten requests come, ten end, again and again.

    ``prefixes``: each prompt begins with a system prompt that all instances come to hold, and goes on with one of 1,000
    conversations.  ``shadow``: a policy that decides beside the one in force.
    """
    scheduler = start_scheduler(policy, instances)
    scheduler.set_shadow(shadow, 0.0)
    requests, running = Requests(), Running(scheduler)
    fill(scheduler, requests, running, instances * MAX_RUNNING // 2)
    clock = [1.0]

    def run() -> tuple[int, float]:
        done, spent = 0, 0.0
        while done < decisions:
            clock[0] += 0.01
            for number in range(10):
                hashed = conversation(done + number) if prefixes else {}
                scheduler.enqueue(requests.make(clock[0], **hashed), clock[0])
            began = process_time()
            placed = scheduler.schedule(clock[0])
            spent += process_time() - began
            done += len(placed)
            running.start(placed)
            running.finish(len(placed), clock[0])
        return done, spent

    name = f"{policy}, {instances} instances"
    if shadow:
        return Case(group="shadow", name=f"{name}, {shadow} beside it", instances=0, unit="decisions/s", run=run)
    group = "half full, prompts begin alike" if prefixes else "half full"
    return Case(group=group, name=name, instances=instances, unit="decisions/s", run=run)


def conversation(number: int) -> dict[str, Any]:
    """Return the prefix hashes of one of 1,000 conversations of 512 tokens, a quarter of which all have in common."""
    own = (number * 7 % 1_000 + 1) << 32
    return {"prompt": 520, "prefix_hashes": (1, 2, *range(own, own + 6)), "prefix_block_tokens": 64}


def saturated(policy: str, instances: int, waiting: int, decisions: int, *, group: str, name: str) -> Case:
    """Every slot is taken and requests wait, none of them late; one ends, one is placed, one comes.

    To decide and to let the new request in are measured apart: a request costs both.
    """
    scheduler = start_scheduler(policy, instances)
    requests, running = Requests(), Running(scheduler)
    saturate(scheduler, requests, running, waiting)
    clock, admission_s = [1.0], [0.0]

    def run() -> tuple[int, float]:
        done, spent, admission_s[0] = 0, 0.0, 0.0
        while done < decisions:
            clock[0] += 0.01
            running.finish(1, clock[0])
            request = requests.make(clock[0], ttft=2 * FAR)
            began = process_time()
            placed = scheduler.schedule(clock[0])
            decided = process_time()
            scheduler.admit(request, clock[0])
            admission_s[0] += process_time() - decided
            spent += decided - began
            done += len(placed)
            running.start(placed)
        return done, spent

    return Case(
        group=group,
        name=name,
        instances=instances,
        unit="decisions/s",
        run=run,
        admission_s=lambda: admission_s[0],
    )


def at_capacity(policy: str, load: float, duration_s: float) -> Case:
    """Eight equal modelled instances at a share of what they can do: a pass after every event, heads that wait.

    Requests behind such a head are looked at in each pass, so a decision costs more than where the head always goes.
    """
    fleet, traffic = find_fleet("E8", _SLOTS), find_traffic("steady_chat", None)
    mix = traffic.mix()
    trace = traffic.trace(rate=load * fleet_capacity(fleet, mix), duration_s=duration_s, seed=1, targets="mixed")

    def run() -> tuple[int, float]:
        simulation = Simulation(trace, fleet, SimulationSettings(scheduler=SchedulerSettings(policy=policy)))
        passes = TimedPasses(simulation.scheduler)
        return simulation.run().decisions, passes.spent_s

    name = f"{policy}, load {load}"
    return Case(group="at capacity", name=name, instances=len(fleet), unit="decisions/s", run=run)


class TimedPasses:
    """Counts the CPU time of a scheduler's passes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.spent_s = 0.0
        self._schedule = scheduler.schedule
        scheduler.schedule = self.schedule  # type: ignore[method-assign]  # the simulation calls it

    def schedule(self, now: float) -> list[Decision]:
        began = process_time()
        decisions = self._schedule(now)
        self.spent_s += process_time() - began
        return decisions


def turned_late(waiting: int) -> Case:
    """All that wait miss their target at once; passes until each was sent back."""

    def run() -> tuple[int, float]:
        scheduler = start_scheduler("slo_aware", 1)
        requests, running = Requests(), Running(scheduler)
        fill(scheduler, requests, running, MAX_RUNNING + 2)
        for _ in range(waiting):
            scheduler.enqueue(requests.make(1.0, ttft=2 * FAR), 1.0)
        pool = scheduler._registry.pool(MODEL)
        passes, spent = 0, 0.0
        while pool.queue is not None and any(not w.late for w in pool.queue):
            pool.changed = True
            began = process_time()
            scheduler.schedule(1.0 + 3 * FAR)
            spent += process_time() - began
            passes += 1
        return passes, spent

    return Case(group="late burst", name=f"{waiting:,} waiting", instances=1, unit="passes/s", run=run)


def claimed(instances: int, passes: int) -> Case:
    """The head needs more KV room than any instance has free: a claim, and sixteen behind it looked at, every pass."""
    scheduler = start_scheduler("fifo", instances)
    requests, running = Requests(), Running(scheduler)
    fill(scheduler, requests, running, instances * MAX_RUNNING // 2)
    facts_len = FACTS.max_model_len
    for n in range(instances * (FACTS.kv_capacity_tokens // facts_len) + 40):
        scheduler.enqueue(requests.make(0.0, prompt=facts_len - 500, sampling=Sampling(max_tokens=500 - n % 3)), 0.0)
    while placed := scheduler.schedule(0.0):
        running.start(placed)
    pool = scheduler._registry.pool(MODEL)

    def run() -> tuple[int, float]:
        spent = 0.0
        for _ in range(passes):
            pool.changed = True
            began = process_time()
            placed = scheduler.schedule(1.0)
            spent += process_time() - began
            assert not placed
        return passes, spent

    return Case(group="blocked head", name=f"{instances} instances", instances=instances, unit="passes/s", run=run)


def explained(instances: int, decisions: int) -> Case:
    """Writing out all rows of a decision, as an operator's `explain` does."""
    scheduler = start_scheduler("slo_aware", instances)
    scheduler.enqueue(Requests().make(0.0), 0.0)
    (decision,) = scheduler.schedule(0.0)

    def run() -> tuple[int, float]:
        began = process_time()
        for _ in range(decisions):
            assert len(list(decision.candidates)) == instances
        return decisions, process_time() - began

    return Case(
        group="rows written out", name=f"{instances} instances", instances=instances, unit="explanations/s", run=run
    )


def heartbeats(count: int) -> Case:
    """Heartbeats with sixteen iterations each, on an instance with half its slots taken."""
    scheduler = start_scheduler("fifo", 1)
    fill(scheduler, Requests(), Running(scheduler), MAX_RUNNING // 2)
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
                running=8,
                waiting=0,
                unfinished=8,
                kv_used_tokens=10_000,
                iterations=n,
                samples=samples,
            )
            scheduler.report("i0000", load, 1.0)
        return count, process_time() - began

    return Case(group="heartbeats", name="16 iterations each", instances=1, unit="heartbeats/s", run=run)


def fill(scheduler: Scheduler, requests: Requests, running: Running, count: int) -> None:
    for n in range(count):
        scheduler.enqueue(requests.make(0.0), 0.0)
        if n % 100 == 99 or n == count - 1:
            while placed := scheduler.schedule(0.0):
                running.start(placed)


def saturate(scheduler: Scheduler, requests: Requests, running: Running, waiting: int) -> None:
    """Fill the fleet until none of many new requests of all classes is placed, then have so many wait."""
    placed = 1
    while placed:
        placed = 0
        for _ in range(200):
            scheduler.enqueue(requests.make(1.0, ttft=2 * FAR), 1.0)
        while decisions := scheduler.schedule(1.0):
            running.start(decisions)
            placed += len(decisions)
    while scheduler.waiting(MODEL) < waiting:
        scheduler.enqueue(requests.make(1.0, ttft=2 * FAR), 1.0)


def all_cases(scale: int) -> list[Case]:
    cases = [half_full(p, n, max(100, min(2_000, 100_000 // n) // scale)) for n in SIZES for p in POLICIES]
    cases += [
        half_full(p, n, max(100, min(2_000, 100_000 // n) // scale), prefixes=True) for n in SIZES[1:] for p in POLICIES
    ]
    cases += [
        half_full("fifo", n, max(100, 50_000 // n // scale), shadow=p)
        for n in (100, 1_000)
        for p in ("fifo", "slo_aware")
    ]
    cases += [
        saturated(p, n, 1_000, max(100, 1_000 // scale), group="saturated", name=f"{p}, {n} instances")
        for n in SIZES
        for p in (POLICIES if n == 100 else ("fifo",))
    ]
    cases += [
        saturated(p, 100, q, max(100, 1_000 // scale), group="queue length", name=f"{p}, {q:,} waiting, 100 instances")
        for p in POLICIES
        for q in (QUEUE_LENGTHS if p in ("fifo", "slo_aware") else QUEUE_LENGTHS[-1:])
    ]
    cases += [at_capacity(p, load, 20.0 / scale) for load in (0.9, 1.1) for p in POLICIES]
    cases.append(turned_late(10_000))
    cases += [claimed(n, max(10, 200 // scale)) for n in (10, 100, 1_000)]
    cases += [explained(n, max(5, 50 // scale)) for n in (100, 1_000)]
    return [*cases, heartbeats(max(100, 1_000 // scale))]


def measure(*, quick: bool) -> list[Row]:
    cases = all_cases(5 if quick else 1)
    rates: list[list[float]] = [[] for _ in cases]
    admissions: list[list[float]] = [[] for _ in cases]
    gc.collect()
    gc.freeze()  # what the cases hold is not rubbish; what they make while they run is collected as usual
    try:
        for _ in range(3 if quick else 5):
            for case, found, admitted in zip(cases, rates, admissions, strict=True):
                done, spent = case.run()
                found.append(done / spent)
                if case.admission_s is not None:
                    admitted.append(done / case.admission_s())
    finally:
        gc.unfreeze()
    return [row for each in zip(cases, rates, admissions, strict=True) for row in rows_of(*each)]


def rows_of(case: Case, rates: list[float], admissions: list[float]) -> list[Row]:
    """Return a case's row and, where a round let requests in as well, that of admission and that of both."""
    found = [make_row(case, rates)]
    if admissions:
        both = [1 / (1 / rate + 1 / admission) for rate, admission in zip(rates, admissions, strict=True)]
        beside = replace(case, group=f"{case.group}, admission", unit="admissions/s")
        together = replace(case, group=f"{case.group}, both", unit="requests/s")
        found += [make_row(beside, admissions), make_row(together, both)]
    return found


def make_row(case: Case, rates: list[float]) -> Row:
    rate = median(rates)
    return Row(
        benchmark=f"scheduler, {case.group}",
        case=case.name,
        value=rate,
        unit=case.unit,
        lowest=min(rates),
        highest=max(rates),
        target=f">= {TARGETS[case.instances]:,}" if case.instances in TARGETS and case.unit == "decisions/s" else "",
        note=f"{1e6 / rate:,.0f} us each",
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.core.bench_core", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer decisions and rounds, for a look")
    parser.add_argument("--json", type=Path, help="write the JSON there instead of printing it")
    options = parser.parse_args(arguments)
    rows = measure(quick=options.quick)
    print(table(rows))
    found = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "clock": "CPU time",
        "rows": [asdict(row) for row in rows],
    }
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    else:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
