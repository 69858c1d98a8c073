"""``python -m tests.bench policies``: what the policies are worth, on modelled fleets in virtual time."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sage_simulator.oracle import ORACLE
from sage_simulator.parallel_runs import Crew
from scheduler_svc.domain.policies.baselines.table import BASELINES
from scheduler_svc.domain.policies.builtin import BUILTIN
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.settings import SchedulerSettings
from tests.bench import machine
from tests.bench.policies.cell import Group
from tests.bench.policies.claims import BUSY, ECONOMICAL, judge
from tests.bench.policies.fleets import FLEETS
from tests.bench.policies.plan import jobs
from tests.bench.policies.readings import Readings
from tests.bench.policies.results import Results
from tests.bench.policies.tables import goodput_table, load_table, summary_table, verdict_table
from tests.bench.policies.traffic import RECORDED, SYNTHETIC, TARGETS, find_traffic
from tests.bench.policies.variants import VARIANTS, UnknownVariant, policy_of, with_variant

_BASELINES_IN_QUICK = ("least_requests", "least_predicted_work", "lmetric", "earliest_deadline")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when everything was run, 3 when the time was up before, 2 for options that make no sense."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        readings = _readings(options)
    except ValueError as error:
        parser.error(str(error))
    if readings.results.discarded:
        print(f"{readings.results.discarded} cells of another source are run again", file=sys.stderr)
    left = _run(readings, [ECONOMICAL, BUSY], workers=options.workers, budget_s=options.budget_s)
    if options.json:
        print(json.dumps({"machine": machine.describe(), **readings.results.document()}, indent=2))
    else:
        print(_report(readings))
    if left:
        print(f"the time is up: {left} jobs are left; the same command goes on with --results", file=sys.stderr)
    return 3 if left else 0


def _readings(options: argparse.Namespace) -> Readings:
    """Make what is to be run and read.  Raises ValueError."""
    there, quick = {*PolicyCatalogue.with_plugins().names(), ORACLE}, options.quick
    unknown = [each for each in options.policy or () if policy_of(each) not in there]
    if unknown:
        raise ValueError(f"no policy {', '.join(unknown)}; there are: {', '.join(sorted(there))}")
    return Readings(
        results=Results(options.results),
        groups=_groups(options),
        policies=options.policy or (*BUILTIN, *_variants(), *(_BASELINES_IN_QUICK if quick else BASELINES), ORACLE),
        loads=sorted(options.loads or ((0.5, 0.7, 0.9, 1.1, 1.3) if quick else [n / 10 for n in range(3, 14)])),
        seeds=range(1, (options.seeds or (1 if quick else 3)) + 1),
        duration_s=options.duration_s or (60.0 if quick else 300.0),
        traces=options.traces,
    )


def _variants() -> list[str]:
    """List the variants that the claims compare with; those that the scheduler does not have are said and left out."""
    found = []
    for variant in VARIANTS:
        try:
            with_variant(SchedulerSettings(), f"slo_aware/{variant}")
            found.append(f"slo_aware/{variant}")
        except UnknownVariant as error:
            print(f"left out: the variant {error}", file=sys.stderr)
    return found


def _groups(options: argparse.Namespace) -> list[Group]:
    """List the comparisons; loads whose file is missing are said and left out.  Raises ValueError."""
    quick = options.quick
    return [
        Group(traffic=traffic, fleet=fleet, slots=slots, targets=targets)
        for traffic in _traffics(options.traffic, options.traces)
        for fleet in options.fleet or FLEETS
        for slots in options.slots or ([128] if quick else [64, 128, 256])
        for targets in options.targets or (["mixed"] if quick else list(TARGETS))
    ]


def _traffics(names: Sequence[str] | None, directory: Path | None) -> list[str]:
    found = []
    for name in names or (*RECORDED, *SYNTHETIC):
        try:
            find_traffic(name, directory)
            found.append(name)
        except FileNotFoundError as error:
            if names:
                raise ValueError(str(error)) from None
            print(f"left out: {error}", file=sys.stderr)
    return found


def _run(readings: Readings, extra_loads: Sequence[float], *, workers: int, budget_s: float) -> int:
    """Run what is left, until the time is up.  Returns how many jobs are left."""
    end_at = time.monotonic() + budget_s
    with Crew(workers) as crew:
        while waiting := list(jobs(readings, extra_loads)):
            print(f"{len(waiting)} {type(waiting[0]).__name__} jobs", file=sys.stderr)
            while waiting:
                if time.monotonic() >= end_at:
                    return len(waiting)
                batch, waiting = waiting[: 2 * workers], waiting[2 * workers :]
                for _, found in crew.run(batch):
                    readings.results.add(found)
    return 0


def _report(readings: Readings) -> str:
    verdicts = judge(readings)
    loads = [load_table(readings, group, load) for group in readings.groups for load in (ECONOMICAL, BUSY)]
    described = "\n".join(f"{name}: {value}" for name, value in machine.describe().items())
    parts = [described, goodput_table(readings), *filter(None, loads)]
    return "\n\n".join([*parts, verdict_table(verdicts), summary_table(verdicts)] if verdicts else parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench policies", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, 60 s, few policies, loads and slots")
    parser.add_argument("--traffic", action="append", help=f"{', '.join((*RECORDED, *SYNTHETIC))}, or a trace's path")
    parser.add_argument("--traces", type=Path, help="directory of the recorded traces")
    parser.add_argument("--fleet", action="append", choices=FLEETS, help="may be given again (default: all)")
    parser.add_argument("--slots", action="append", type=int, help="running sequences of an instance; again for more")
    parser.add_argument("--targets", action="append", choices=list(TARGETS), help="what requests state; again for more")
    parser.add_argument("--policy", action="append", help=f"a policy, a policy/variant or {ORACLE}; again for more")
    parser.add_argument("--loads", type=_floats, help="grid of goodput, such as 0.3,0.6,0.9")
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--duration-s", type=float, help="simulated seconds of arrivals in a run")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--results", type=Path, help="JSON file of results: read first, written as cells are done")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="start nothing after so many seconds")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    return parser


def _floats(text: str) -> list[float]:
    return [float(each) for each in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
