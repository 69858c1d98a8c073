"""``sagectl simulate sweep``: the highest load of a fleet, or the cheapest fleet for a load."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from sagectl.simulation_options import (
    fleet_of,
    fleet_options,
    policies_of,
    requests_option,
    run_options,
    seeds_of,
    seeds_option,
    settings_of,
    workload_of,
    workload_options,
)
from sagectl.simulation_output import write_json
from sagectl.simulation_progress import progress
from sagectl.sweep_tables import show_highest_loads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sage_simulator.highest_load import HighestLoad, LoadSearch

_DURATION_S = 120.0  # of a synthetic trace
_SEEDS = 3


@click.command()
@requests_option(None)
@workload_options
@fleet_options
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    metavar="X",
    help="Share of requests in target that is enough.",
)
@click.option(
    "--resolution",
    type=click.FloatRange(0.001, 1),
    default=0.02,
    show_default=True,
    metavar="X",
    help="Stop when the load is known to this, as a share of the fleet's capacity.",
)
@seeds_option(_SEEDS)
@run_options
def sweep(**options: Any) -> None:
    """Find the highest load with enough requests in target, for each policy.

    Loads are searched by bisection, with each seed apart.  A synthetic trace lasts 120 s unless --duration or
    --requests says otherwise: too short a trace ends before an overload shows.
    """
    from sage_simulator.fleet_capacity import load_capacity
    from sage_simulator.highest_load import LoadSearch
    from sage_simulator.policy_run import PolicyRun

    try:
        fleet = fleet_of(options)
        workload = workload_of(options, duration_s=_DURATION_S)
        capacity = load_capacity(fleet, workload.sample())
        settings = settings_of(options)
        searches = [
            LoadSearch(
                run=PolicyRun(workload=workload, fleet=fleet, policy=policy, seed=seed, settings=settings),
                capacity_per_s=capacity,
                share=options["share"],
                resolution=options["resolution"],
            )
            for policy in policies_of(options)
            for seed in seeds_of(options)
        ]
        found = _search(searches, options["workers"])
    except ValueError as e:  # of the fleet, the trace or the simulation, said in a sentence
        raise click.UsageError(str(e)) from None
    json_file = options["json_file"]
    if json_file is not None:
        write_json(json_file, capacity_per_s=capacity, share=options["share"], searches=found)
    if json_file is None or json_file is not sys.stdout:
        title = f"Highest load with {options['share']:.0%} in target on {len(fleet)} instances"
        show_highest_loads(f"{title}, {options['seeds']} seeds; 1 is {capacity:.2f}/s", found, capacity)


def _search(searches: Sequence[LoadSearch], workers: int | None) -> list[HighestLoad]:
    from sage_simulator.parallel_runs import run_all

    done = dict(progress(run_all(searches, workers), len(searches), "searches"))
    return [done[index] for index in range(len(searches))]
