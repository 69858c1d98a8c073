"""``sagectl simulate run``: one load under one or several policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sagectl.options.command import command
from sagectl.simulation.inputs import (
    capacity_of,
    errors_in_one_line,
    fleet_of,
    policies_of,
    seeds_of,
    settings_of,
    workload_of,
)
from sagectl.simulation.json_file import write_json
from sagectl.simulation.options import (
    POSITIVE,
    autoscale_options,
    fleet_options,
    requests_option,
    run_options,
    seeds_option,
    workload_options,
    world_options,
)
from sagectl.simulation.progress import progress
from sagectl.simulation.report import check_report, report_runs
from sagectl.simulation.tables import counted, followed_table, instances_table, remarks, runs_table
from sagectl.simulation.values import Number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sage_simulator.over_seeds import OverSeeds
    from sage_simulator.policy_run import PolicyRun
    from sage_simulator.report import Summary

_REQUESTS = 2_000  # of a synthetic trace
_LOAD = 0.6  # of a synthetic trace, as a share of the fleet's capacity


@command(
    examples=[
        ("simulate run --fleet U8 --policy fifo --policy slo_aware --load 0.8", "two policies under one load"),
        (
            "simulate run --fleet PD --stretch 300:28:3000:40 --stretch 300:44:300:400 --automatic-roles",
            "prefill and decode under a load whose shape shifts",
        ),
        ("simulate run --trace log.jsonl --fleet fleet.json --policy slo_aware", "replay a recording"),
    ]
)
@requests_option(_REQUESTS)
@workload_options
@click.option(
    "--stretch",
    "stretches",
    multiple=True,
    metavar="SECONDS:RATE:PROMPT:OUTPUT",
    help="Let the shape of a synthetic trace shift: so many seconds with this rate and these median lengths, then the "
    "next; may be repeated.  Sigmas as above.",
)
@fleet_options
@world_options
@autoscale_options
@click.option("--rate", type=POSITIVE, metavar="R", help="Mean arrivals per second.  [default: the trace's own]")
@click.option(
    "--load",
    type=Number(0, 1_000_000, min_open=True),
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
    if options["rate"] is not None and options["load"] is not None:
        raise click.UsageError("--rate and --load exclude one another")
    check_report(options["report"])
    with errors_in_one_line():
        _run(options)


def _run(options: dict[str, Any]) -> None:
    # The simulator needs the scheduler's package, which the other commands do without.
    from sage_simulator.over_seeds import OverSeeds
    from sage_simulator.policy_run import PolicyRun

    policies = policies_of(options)
    fleet, workload = fleet_of(options), workload_of(options, requests=_REQUESTS)
    settings = settings_of(options, fleet)
    capacity = capacity_of(fleet, workload, settings)
    rate, load = options["rate"], options["load"]
    if rate is None and load is None and not workload.has_a_rate:
        load = _LOAD
    rate = load * capacity if load is not None else rate
    seeds = seeds_of(options, workload, default=1)
    runs = _run_all(
        [
            PolicyRun(workload=workload, fleet=fleet, policy=policy, rate=rate, seed=seed, settings=settings)
            for policy in policies
            for seed in seeds
        ],
        options["workers"],
    )
    figures = [OverSeeds.of(runs[first : first + len(seeds)]) for first in range(0, len(runs), len(seeds))]
    at = f" at {rate:.2f}/s, {rate / capacity:.2f} of capacity" if rate is not None else ""
    many = f", {len(seeds)} seeds" if len(seeds) > 1 else ""
    title = f"{counted(runs[0].requests, 'request')} on {counted(len(fleet), 'instance')}{at}{many}"
    if options["report"] is not None:
        report_runs(options["report"], title, figures, runs)
    if not write_json(options, capacity_per_s=capacity, rate_per_s=rate, runs=runs, figures=figures):
        _show(title, figures, runs)


def _run_all(runs: Sequence[PolicyRun], workers: int | None) -> list[Summary]:
    from sage_simulator.parallel_runs import run_all

    done = dict(progress(run_all(runs, workers), len(runs), "simulations"))
    return [done[index] for index in range(len(runs))]


def _show(title: str, figures: Sequence[OverSeeds], runs: Sequence[Summary]) -> None:
    runs_table(title, figures).show()
    if len(runs) == 1:
        instances_table(runs[0]).show()
        if (followed := followed_table(runs)) is not None:
            followed.show()
    for each in runs:
        for remark in remarks(each):
            click.echo(remark)
