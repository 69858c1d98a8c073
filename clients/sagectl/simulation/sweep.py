"""``sagectl simulate sweep``: the highest load of a fleet, or the cheapest fleet for a load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sagectl.options.command import command
from sagectl.simulation.inputs import (
    capacity_of,
    errors_in_one_line,
    fleet_of,
    named,
    named_kinds,
    policies_of,
    seeds_of,
    settings_of,
    workload_of,
)
from sagectl.simulation.json_file import write_json
from sagectl.simulation.options import (
    POSITIVE,
    fleet_options,
    requests_option,
    run_options,
    seeds_option,
    workload_options,
    world_options,
)
from sagectl.simulation.progress import progress
from sagectl.simulation.report import check_report, report_cheapest_fleets, report_highest_loads
from sagectl.simulation.sweep_tables import cheapest_fleets_table, highest_loads_table
from sagectl.simulation.tables import counted
from sagectl.simulation.values import Number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sage_simulator.workload import Workload

_DURATION_S = 120.0  # of a synthetic trace
_SEEDS = 3


@command(
    examples=[
        ("simulate sweep --fleet U8 --policy fifo", "the highest load with 90 % of requests in target"),
        ("simulate sweep --kinds '8xprice=2;3xspeed=2,price=5' --rate 40", "the cheapest fleet for a load"),
    ]
)
@requests_option(None)
@workload_options
@fleet_options
@world_options
@click.option(
    "--share",
    type=Number(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    metavar="X",
    help="Share of requests in target that is enough.",
)
@click.option(
    "--resolution",
    type=Number(0.001, 1),
    default=0.02,
    show_default=True,
    metavar="X",
    help="Stop when the load is known to this, as a share of the fleet's capacity.",
)
@click.option(
    "--kinds",
    metavar="GROUPS",
    help="Find the cheapest fleet instead, of at most these instances, such as '8xspeed=1,price=2;4xspeed=2,price=7', "
    "that keeps the share at --rate.  Kinds with roles find the division into prefill and decode.",
)
@click.option(
    "--rate",
    type=POSITIVE,
    metavar="R",
    help="With --kinds: mean arrivals per second.  [default: the trace's own]",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 10_000),
    default=60,
    show_default=True,
    metavar="N",
    help="With --kinds: most fleets that are simulated for each policy.",
)
@seeds_option(_SEEDS)
@run_options
def sweep(**options: Any) -> None:
    """Find the highest load with enough requests in target, for each policy.

    Loads are searched by bisection, with each seed apart.  A synthetic trace lasts 120 s unless --duration or
    --requests says otherwise: too short a trace ends before an overload shows.

    With --kinds: find the cheapest fleet for a load.
    """
    check_report(options["report"])
    with errors_in_one_line():
        policies = policies_of(options)
        workload = workload_of(options, duration_s=_DURATION_S)
        if options["kinds"] is not None:
            _cheapest_fleet(options, policies, workload)
        else:
            _highest_load(options, policies, workload)


def _highest_load(options: dict[str, Any], policies: Sequence[str], workload: Workload) -> None:
    from sage_simulator.highest_load import LoadSearch
    from sage_simulator.parallel_runs import run_all
    from sage_simulator.policy_run import PolicyRun
    from sage_simulator.traces import requests_per_s

    if options["rate"] is not None:
        raise click.UsageError("--rate is for --kinds; without it, the load is what is searched for")
    if workload.replayed:
        with named(f"--trace {options['trace_file']}"):
            requests_per_s(workload.replayed)
    fleet = fleet_of(options)
    settings = settings_of(options, fleet)
    capacity = capacity_of(fleet, workload, settings)
    seeds = seeds_of(options, workload, default=_SEEDS)
    searches = [
        LoadSearch(
            run=PolicyRun(workload=workload, fleet=fleet, policy=policy, seed=seed, settings=settings),
            capacity_per_s=capacity,
            share=options["share"],
            resolution=options["resolution"],
        )
        for policy in policies
        for seed in seeds
    ]
    done = dict(progress(run_all(searches, options["workers"]), len(searches), "searches"))
    found = [done[index] for index in range(len(searches))]
    title = (
        f"Highest load with {options['share']:.0%} in target on {counted(len(fleet), 'instance')}, "
        f"{counted(len(seeds), 'seed')}; "
        f"1 is {capacity:.2f}/s"
    )
    if options["report"] is not None:
        report_highest_loads(options["report"], title, found, capacity, options["share"])
    if not write_json(options, capacity_per_s=capacity, share=options["share"], searches=found):
        highest_loads_table(title, found, capacity).show()


def _cheapest_fleet(options: dict[str, Any], policies: Sequence[str], workload: Workload) -> None:
    from sage_simulator.cheapest_fleet import CheapestFleet, CheapestFleetSearch
    from sage_simulator.fleet_search import Kind
    from sage_simulator.fleet_spec import parse_groups
    from sage_simulator.parallel_runs import Crew, available_workers
    from sage_simulator.policy_run import PolicyRun
    from sage_simulator.traces import requests_per_s

    if options["fleet"] is not None or options["instances"] is not None:
        raise click.UsageError("--kinds excludes --fleet and --instances")
    rate = options["rate"]
    if rate is None:
        if not workload.replayed:
            raise click.UsageError("--kinds needs --rate for a synthetic trace")
        with named(f"--trace {options['trace_file']}"):
            rate = requests_per_s(workload.replayed)
    with named("--kinds"):
        groups = parse_groups(options["kinds"], named_kinds(options))
    kinds = [Kind(instance=instance, most=most) for most, instance in groups]
    settings = settings_of(options, [each.instance for each in kinds])
    search = CheapestFleetSearch(
        kinds=kinds,
        policies=policies,
        seeds=seeds_of(options, workload, default=_SEEDS),
        run=PolicyRun(workload=workload, fleet=(), policy="", rate=rate, settings=settings),
        share=options["share"],
        most_trials=options["trials"],
    )
    with Crew(options["workers"] or available_workers()) as crew:
        ended = list(progress(search.find(crew), None, "fleets"))
    found = [each for each in ended if isinstance(each, CheapestFleet)]
    found.sort(key=lambda each: search.policies.index(each.policy))
    title = (
        f"Cheapest fleet with {options['share']:.0%} in target at {rate:.2f}/s, {counted(len(search.seeds), 'seed')}"
    )
    names = options["kinds"].split(";")
    if options["report"] is not None:
        report_cheapest_fleets(options["report"], title, names, found, options["share"])
    if not write_json(options, rate_per_s=rate, share=options["share"], kinds=search.kinds, searches=found):
        cheapest_fleets_table(title, names, found).show()
