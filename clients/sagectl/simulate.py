"""``sagectl simulate``: what a policy does with a load on a modelled fleet."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Any

import click

from sagectl.json_output import plain
from sagectl.simulation_tables import show_runs

DEFAULT_LOAD = 0.6  # of a synthetic trace, as a share of the fleet's capacity


@click.group()
def simulate() -> None:
    """Replay a load against the scheduler on modelled engines, in virtual time.

    Needs no scheduler, engine or GPU.
    """


_POSITIVE = click.FloatRange(0, min_open=True)


@simulate.command()
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trace to replay.  [default: a synthetic one, Poisson arrivals and log-normal lengths]",
)
@click.option(
    "--requests", type=click.IntRange(1), default=2_000, show_default=True, help="Requests of a synthetic trace."
)
@click.option(
    "--prompt-median",
    type=_POSITIVE,
    default=800,
    show_default=True,
    metavar="TOKENS",
    help="Median prompt length of a synthetic trace.",
)
@click.option(
    "--prompt-sigma",
    type=click.FloatRange(0),
    default=0.9,
    show_default=True,
    metavar="X",
    help="Sigma of the logarithm of prompt lengths; 0: all equal.",
)
@click.option(
    "--output-median",
    type=_POSITIVE,
    default=150,
    show_default=True,
    metavar="TOKENS",
    help="Median output length of a synthetic trace.",
)
@click.option(
    "--output-sigma",
    type=click.FloatRange(0),
    default=0.7,
    show_default=True,
    metavar="X",
    help="Sigma of the logarithm of output lengths; 0: all equal.",
)
@click.option("--fleet", metavar="NAME", help="Fleet: E8 (8 equal) or U8 (8 unequal instances).  [default: E8]")
@click.option(
    "--instances",
    metavar="GROUPS",
    help="Fleet by its instances, such as '4xspeed=1,price=2;2xspeed=0.5,slots=64'.  "
    "Keys: speed, price (per hour), kv (tokens), slots, chunk (tokens), length (of prompt and output, tokens), role.",
)
@click.option("--policy", "policies", multiple=True, help="Scheduling policy; may be repeated.  [default: adaptive]")
@click.option("--rate", type=_POSITIVE, metavar="R", help="Mean arrivals per second.  [default: the trace's own]")
@click.option(
    "--load",
    type=_POSITIVE,
    metavar="X",
    help="Mean arrivals as a share of the fleet's computed capacity, instead of --rate.  "
    f"[default: {DEFAULT_LOAD} for a synthetic trace]",
)
@click.option("--ttft-target", type=_POSITIVE, metavar="SECONDS", help="TTFT target of requests that state no target.")
@click.option("--tpot-target", type=_POSITIVE, metavar="SECONDS", help="TPOT target of requests that state no target.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of a synthetic trace.")
@click.option(
    "--json",
    "json_file",
    type=click.File("w"),
    metavar="FILE",
    help="Write the result as JSON; - for stdout, no table.",
)
def run(
    trace_file: Path | None,
    requests: int,
    prompt_median: float,
    prompt_sigma: float,
    output_median: float,
    output_sigma: float,
    fleet: str | None,
    instances: str | None,
    policies: tuple[str, ...],
    rate: float | None,
    load: float | None,
    ttft_target: float | None,
    tpot_target: float | None,
    seed: int,
    json_file: IO[str] | None,
) -> None:
    """Simulate one load under one or several policies.

    Requests without a target are judged by the default targets of their class.
    """
    if rate is not None and load is not None:
        raise click.UsageError("--rate and --load exclude one another")
    if fleet is not None and instances is not None:
        raise click.UsageError("--fleet and --instances exclude one another")
    # The simulator needs the scheduler's package, which the other commands do without.
    from sage_simulator.fleet_capacity import RequestMix, fleet_capacity
    from sage_simulator.fleet_spec import named_fleet, parse_instances
    from sage_simulator.policy_run import run_policy
    from sage_simulator.traces import read_trace, scale_to_rate, with_default_targets
    from sage_simulator.traces.synthetic.poisson_trace import LONGEST_OUTPUT, LONGEST_PROMPT, lengths, poisson_trace

    try:
        machines = parse_instances(instances) if instances is not None else named_fleet(fleet or "E8")
        if trace_file is not None:
            trace = read_trace(trace_file)
        else:
            prompts = lengths(prompt_median, prompt_sigma, LONGEST_PROMPT)
            outputs = lengths(output_median, output_sigma, LONGEST_OUTPUT)
            trace = poisson_trace(requests=requests, rate=1.0, seed=seed, prompts=prompts, outputs=outputs)
            load = DEFAULT_LOAD if rate is None and load is None else load
        capacity = fleet_capacity(machines, RequestMix.of(trace))
        rate = load * capacity if load is not None else rate
        trace = scale_to_rate(trace, rate) if rate is not None else trace
        trace = with_default_targets(trace, ttft_s=ttft_target, tpot_s=tpot_target)
        runs = [run_policy(trace, machines, policy) for policy in policies or ("adaptive",)]
    except ValueError as e:  # of the fleet, the trace or the simulation, said in a sentence
        raise click.UsageError(str(e)) from None
    if json_file is not None:
        _write(json_file, capacity_per_s=capacity, rate_per_s=rate, runs=runs)
    if json_file is None or json_file is not sys.stdout:
        at = f" at {rate:.2f}/s, {rate / capacity:.2f} of capacity" if rate is not None else ""
        show_runs(f"{len(trace)} requests on {len(machines)} instances{at}", runs)


def _write(file: IO[str], **what: Any) -> None:
    json.dump(plain(what), file, indent=2)
    file.write("\n")
