"""The options that the commands of ``sagectl simulate`` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sagectl.simulation.values import Number, OutputFile

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[_Command], _Command]

POSITIVE = Number(0, min_open=True)

MOST_REQUESTS = 10_000_000
"""Requests of a simulation: what takes hours."""


def _length_options(what: str, median: int, sigma: float) -> list[Any]:
    """Make the options of a synthetic trace's prompt or output lengths."""
    return [
        click.option(
            f"--{what}-median",
            type=POSITIVE,
            default=median,
            show_default=True,
            metavar="TOKENS",
            help=f"Median {what} length of a synthetic trace.",
        ),
        click.option(
            f"--{what}-sigma",
            type=Number(0),
            default=sigma,
            show_default=True,
            metavar="X",
            help=f"Sigma of the logarithm of {what} lengths; 0: all equal.",
        ),
    ]


_WORKLOAD = [
    click.option(
        "--trace",
        "trace_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Trace to replay.  [default: a synthetic one, Poisson arrivals and log-normal lengths]",
    ),
    click.option(
        "--duration",
        type=POSITIVE,
        metavar="SECONDS",
        help="As many requests as arrive in this time, but at least 2, instead of --requests.",
    ),
    click.option(
        "--day",
        "day_s",
        type=POSITIVE,
        metavar="SECONDS",
        help="Let a synthetic trace's rate change as over a day of this length: few at night, many at work.",
    ),
    *_length_options("prompt", 800, 0.9),
    *_length_options("output", 150, 0.7),
    click.option(
        "--classes",
        default="",
        metavar="MIX",
        help="Give the requests classes and targets: mixed, chat or untargeted.  [default: as in the trace]",
    ),
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="NAME=WEIGHT",
        help="Spread the requests over models by weights; may be repeated.  Instances name theirs (key model).",
    ),
    click.option(
        "--cancel",
        "cancel_share",
        type=Number(0, 1),
        default=0.0,
        metavar="SHARE",
        help="Share of clients that cancel.",
    ),
    click.option(
        "--cancel-after",
        "cancel_mean_s",
        type=POSITIVE,
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        help="Mean time from arrival to cancellation, exponentially distributed.",
    ),
    click.option(
        "--ttft-target", type=POSITIVE, metavar="SECONDS", help="TTFT target of requests that state no target."
    ),
    click.option(
        "--tpot-target", type=POSITIVE, metavar="SECONDS", help="TPOT target of requests that state no target."
    ),
]

_RUNS = [
    click.option(
        "--policy", "policies", multiple=True, help="Scheduling policy; may be repeated.  [default: adaptive]"
    ),
    click.option("--seed", type=int, default=1, show_default=True, help="First seed: of the trace and all chance."),
    click.option(
        "--workers",
        type=click.IntRange(1, 1_024),
        metavar="N",
        help="Processes that simulate.  [default: one for each available processor]",
    ),
    click.option(
        "--json",
        "json_file",
        type=OutputFile(),
        is_flag=False,
        flag_value="-",
        metavar="[FILE]",
        help="Write the result as JSON to FILE; without one to stdout, and no table.",
    ),
    click.option(
        "--report",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write an HTML page with tables and plots, which loads nothing.",
    ),
]

_FLEET = [
    click.option(
        "--fleet",
        metavar="NAME|FILE",
        help="Fleet: E8 (8 equal), U8 (8 unequal instances) or PD (4 for prefill, 4 for decode); a file of "
        "`sagectl simulate calibrate`; or a recording (`sage-scheduler --record FILE`), whose instances are fitted to "
        "it.  [default: E8]",
    ),
    click.option(
        "--instances",
        metavar="GROUPS",
        help="Fleet by its instances, such as '4xspeed=1,price=2;2xspeed=0.5,slots=64'.  Keys: speed, price (per "
        "hour), kv (tokens), slots, chunk (tokens), length (of prompt and output, tokens), role, model, kvbytes (of KV "
        "per token).",
    ),
]

_WORLD = [
    click.option(
        "--kind",
        "kinds_named",
        multiple=True,
        metavar="NAME:KEYS",
        help="Name a kind of instances, such as A:speed=2,price=7; then 4xA is four of them.  May be repeated.",
    ),
    click.option(
        "--event",
        "events",
        multiple=True,
        metavar="EVENT",
        help="Change the fleet: '120s fail i003', '200s add 2xA' or '300s drain i001'.  May be repeated.",
    ),
    click.option(
        "--noise",
        type=Number(0, 2),
        metavar="SIGMA",
        help="Random variation of the engines' steps: sigma of the logarithm of a factor of mean 1.  [default: that of "
        "a fleet's file, else 0]",
    ),
    click.option(
        "--pd",
        type=click.Choice(["never", "always", "threshold", "adaptive"]),
        help="When requests are split into prefill and decode.  "
        "[default: always if instances have the roles prefilling and decoding, else never]",
    ),
    click.option(
        "--kv-latency",
        type=Number(0),
        default=0.005,
        show_default=True,
        metavar="SECONDS",
        help="Latency of handing KV over.",
    ),
    click.option(
        "--kv-bandwidth",
        type=POSITIVE,
        default=40.0,
        show_default=True,
        metavar="GB/S",
        help="Bandwidth at which an engine receives KV.",
    ),
]


_AUTOSCALE = [
    click.option(
        "--autoscale",
        metavar="MIN-MAX",
        help="Start and drain instances as the scheduler desires, between MIN and MAX of each model and role.  The run "
        "begins with the fleet; what is started is like its first instance of that model and role.",
    ),
    click.option(
        "--warm-up",
        "warm_up_s",
        type=Number(0),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="--autoscale: from an instance's start until it is ready.  It is paid for from its start.",
    ),
    click.option(
        "--down-delay",
        "down_delay_s",
        type=Number(0),
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help="--autoscale: how long fewer instances have to be needed before fewer are desired.",
    ),
    click.option(
        "--automatic-roles",
        is_flag=True,
        help="--pd: change instances between prefill and decode as the load asks for.",
    ),
]


def requests_option(default: int | None) -> Callable[[_Command], _Command]:
    """Make the option of the number of requests."""
    return click.option(
        "--requests",
        type=click.IntRange(1, MOST_REQUESTS),
        metavar="N",
        help="Requests; a trace from a file is cut or repeated.  "
        + (f"[default: {default}, or all of a file]" if default is not None else "[default: see --duration]"),
    )


def seeds_option(default: int) -> Callable[[_Command], _Command]:
    """Make the option of the number of seeds."""
    return click.option(
        "--seeds",
        type=click.IntRange(1, 1_000),
        metavar="N",
        help="Simulate with this many seeds, from --seed on; figures are means with 95 % intervals.  "
        f"[default: {default}{', or 1 where chance has no part' if default > 1 else ''}]",
    )


def _all(options: list[Any]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


workload_options = _all(_WORKLOAD)
fleet_options = _all(_FLEET)
world_options = _all(_WORLD)
autoscale_options = _all(_AUTOSCALE)
run_options = _all(_RUNS)
