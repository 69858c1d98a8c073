"""``python -m tests.bench policies``: what the policies are worth, on modelled fleets in virtual time."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sage_common.near_names import names_instead
from sage_simulator.oracle import ORACLE
from sage_simulator.parallel_runs import Crew, available_workers
from scheduler_svc.domain.policies.baselines.table import BASELINES
from scheduler_svc.domain.policies.builtin import BUILTIN
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from tests.bench import machine
from tests.bench.policies.cell import Group
from tests.bench.policies.fleets import FLEETS
from tests.bench.policies.page import put_tables
from tests.bench.policies.plan import Plan
from tests.bench.policies.readings import Readings
from tests.bench.policies.report import full_report, short_report
from tests.bench.policies.results import Results
from tests.bench.policies.stages import MAIN_BASELINES
from tests.bench.policies.traffic import RECORDED, SYNTHETIC, TARGETS, find_traffic
from tests.bench.policies.variants import PREFIX_BLIND, VARIANTS, policy_of

_SAVE_S = 5.0  # between two times that results are written


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
    plan = Plan(readings)
    if not options.report:
        _run(plan, readings.results, processes=options.processes, seconds=options.minutes * 60)
    left = plan.left()
    text = full_report(readings, plan.left())
    if options.results:
        options.results.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    if options.into:
        put_tables(options.into, short_report(readings))
    if options.json:
        print(json.dumps({"machine": machine.describe(), **readings.results.document()}, indent=2))
    else:
        print(text)
    if left:
        print(f"{len(left)} goals are left; the same command goes on with --results", file=sys.stderr)
    return 3 if left else 0


def _readings(options: argparse.Namespace) -> Readings:
    """Make what is to be run and read.  Raises ValueError."""
    there, quick = {*PolicyCatalogue.with_plugins().names(), ORACLE}, options.quick
    unknown = [each for each in options.policy or () if policy_of(each) not in there]
    if unknown:
        raise ValueError(f"no policy {unknown[0]!r}{names_instead(policy_of(unknown[0]), sorted(there))}")
    return Readings(
        results=Results(options.results, any_source=options.report),
        groups=_groups(options),
        policies=options.policy or (*BUILTIN, *_variants(), *(MAIN_BASELINES if quick else BASELINES), ORACLE),
        loads=sorted(options.loads or ((0.5, 0.7, 0.9, 1.1, 1.3) if quick else [n / 10 for n in range(3, 14)])),
        seeds=range(1, (options.seeds or (1 if quick else 3)) + 1),
        duration_s=options.duration_s or (60.0 if quick else 300.0),
        search_s=options.search_s,
        traces=options.traces,
        at=options.at or (),
    )


def _variants() -> list[str]:
    """List the variants that the claims compare with."""
    wanted = [f"slo_aware/{variant}" for variant in VARIANTS]
    return [*wanted, *(f"{each}/{PREFIX_BLIND}" for each in BUILTIN if each != "slo_aware")]


def _groups(options: argparse.Namespace) -> list[Group]:
    """List the comparisons; loads whose file is missing are said and left out.  Raises ValueError."""
    quick = options.quick
    return [
        Group(traffic=traffic, fleet=fleet, slots=slots, targets=targets)
        for traffic in _traffics(options.traffic, options.traces)
        for fleet in options.fleet or FLEETS
        for slots in options.slots or ([128] if quick else [64, 128, 256])
        for targets in options.targets or (["mixed"] if quick else ["mixed", "equal"])
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


def _run(plan: Plan, results: Results, *, processes: int, seconds: float) -> None:
    """Run what is left, until the time is up; cells that run then are lost."""
    began = saved = time.monotonic()
    with Crew(processes) as crew:
        for cell, figures in crew.feed(plan.next_job, until=began + seconds):
            plan.done(cell, figures)
            now = time.monotonic()
            if now - saved >= _SAVE_S:
                results.save()
                saved = now
                print(f"{now - began:.0f} s: {len(results)} cells; the last one: {cell.key}", file=sys.stderr)
    results.save()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench policies", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, 60 s, few policies, loads and slots")
    parser.add_argument("--traffic", action="append", help=f"{', '.join((*RECORDED, *SYNTHETIC))}, or a trace's path")
    parser.add_argument("--traces", type=Path, help="directory of the recorded traces")
    parser.add_argument("--fleet", action="append", choices=FLEETS, help="may be given again (default: all)")
    parser.add_argument("--slots", action="append", type=int, help="running sequences of an instance; again for more")
    parser.add_argument(
        "--targets",
        action="append",
        choices=list(TARGETS),
        help="what requests state; again for more (default: mixed, equal)",
    )
    parser.add_argument("--policy", action="append", help=f"a policy, a policy/variant or {ORACLE}; again for more")
    parser.add_argument("--loads", type=_floats, help="grid of goodput, such as 0.3,0.6,0.9")
    parser.add_argument("--at", type=_floats, help="run every policy at these loads only, and search no goodput")
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--duration-s", type=float, help="simulated seconds of arrivals in a run")
    parser.add_argument("--search-s", type=float, help="fewer of them in runs that only the search for goodput needs")
    parser.add_argument("--processes", type=int, default=available_workers(), help="(default: one per processor)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop then; the most important comes first")
    parser.add_argument("--results", type=Path, help="JSON file: read first, written as cells are done; .md beside it")
    parser.add_argument("--report", action="store_true", help="run nothing: print what --results holds")
    parser.add_argument("--into", type=Path, help="Markdown page that the short tables are put into, between its marks")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    return parser


def _floats(text: str) -> list[float]:
    return [float(each) for each in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
