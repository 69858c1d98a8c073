"""``sagectl simulate run``: one load under one or several policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sagectl.simulation_options import (
    POSITIVE,
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
    world_options,
)
from sagectl.simulation_output import write_json
from sagectl.simulation_progress import progress
from sagectl.simulation_report import check_report, report_runs
from sagectl.simulation_tables import instances_table, remarks, runs_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sage_simulator.policy_run import PolicyRun
    from sage_simulator.report import Summary

_REQUESTS = 2_000  # of a synthetic trace
_LOAD = 0.6  # of a synthetic trace, as a share of the fleet's capacity


@click.command()
@requests_option(_REQUESTS)
@workload_options
@fleet_options
@world_options
@click.option("--rate", type=POSITIVE, metavar="R", help="Mean arrivals per second.  [default: the trace's own]")
@click.option(
    "--load",
    type=POSITIVE,
    metavar="X",
    help="Mean arrivals as a share of the fleet's computed capacity, instead of --rate.  "
    f"[default: {_LOAD} for a synthetic trace]",
)
@seeds_option(1)
@run_options
def run(**options: Any) -> None:
    """Simulate one load under one or several policies.

    Requests without a target are judged by the default targets of their class.
    """
    rate, load = options["rate"], options["load"]
    if rate is not None and load is not None:
        raise click.UsageError("--rate and --load exclude one another")
    check_report(options["report"])
    # The simulator needs the scheduler's package, which the other commands do without.
    from sage_simulator.fleet_capacity import load_capacity
    from sage_simulator.over_seeds import OverSeeds
    from sage_simulator.policy_run import PolicyRun

    try:
        fleet = fleet_of(options)
        workload = workload_of(options, requests=_REQUESTS)
        settings = settings_of(options, fleet)
        capacity = load_capacity(fleet, workload.sample(), split=settings.scheduler.pd.enabled)
        if rate is None and load is None and not workload.replayed:
            load = _LOAD
        rate = load * capacity if load is not None else rate
        policies = policies_of(options)
        runs = _run(
            [
                PolicyRun(workload=workload, fleet=fleet, policy=policy, rate=rate, seed=seed, settings=settings)
                for policy in policies
                for seed in seeds_of(options)
            ],
            options["workers"],
        )
    except ValueError as e:  # of the fleet, the trace or the simulation, said in a sentence
        raise click.UsageError(str(e)) from None
    seeds = options["seeds"]
    figures = [OverSeeds.of(runs[first : first + seeds]) for first in range(0, len(runs), seeds)]
    at = f" at {rate:.2f}/s, {rate / capacity:.2f} of capacity" if rate is not None and capacity else ""
    many = f", {seeds} seeds" if seeds > 1 else ""
    title = f"{runs[0].requests} requests on {len(fleet)} instances{at}{many}"
    if options["report"] is not None:
        report_runs(options["report"], title, figures, runs)
    if write_json(options, capacity_per_s=capacity, rate_per_s=rate, runs=runs, figures=figures):
        return
    runs_table(title, figures).show()
    if len(runs) == 1:
        instances_table(runs[0]).show()
    for each in runs:
        for remark in remarks(each):
            click.echo(remark)


def _run(runs: Sequence[PolicyRun], workers: int | None) -> list[Summary]:
    from sage_simulator.parallel_runs import run_all

    done = dict(progress(run_all(runs, workers), len(runs), "simulations"))
    return [done[index] for index in range(len(runs))]
