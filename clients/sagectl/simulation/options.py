"""The options that the commands of ``sagectl simulate`` share, and what is made of their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sage_simulator.fleet_file import FleetFile
    from sage_simulator.fleet_spec import InstanceModel
    from sage_simulator.simulation_settings import SimulationSettings
    from sage_simulator.workload import Workload

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[_Command], _Command]

POSITIVE = click.FloatRange(0, min_open=True)
_DEFAULT_POLICY = "adaptive"


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
            type=click.FloatRange(0),
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
        help="As many requests as arrive in this time, instead of --requests.",
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
        type=click.FloatRange(0, 1),
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
        type=click.File("w"),
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
        type=click.FloatRange(0, 2),
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
        type=click.FloatRange(0),
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


def requests_option(default: int | None) -> Callable[[_Command], _Command]:
    """Make the option of the number of requests."""
    return click.option(
        "--requests",
        type=click.IntRange(1),
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
run_options = _all(_RUNS)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn errors of the fleet, the trace and the simulation, which are a sentence each, into those of a command."""
    from sage_simulator.parallel_runs import RunError

    try:
        yield
    except RunError as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def policies_of(options: dict[str, Any]) -> tuple[str, ...]:
    """Return the policies that were named, else the default."""
    return tuple(options["policies"]) or (_DEFAULT_POLICY,)


def seeds_of(options: dict[str, Any], workload: Workload, *, default: int) -> range:
    """Return the seeds to simulate with; one where each would give the same."""
    varies = workload.seeded or _noise(options) > 0
    if not varies and (options["seeds"] or 1) > 1:
        raise click.UsageError(
            "--seeds: each seed would give the same, as the trace is from a file; "
            "--noise, --classes, --model and --cancel vary by the seed"
        )
    count = options["seeds"] or (default if varies else 1)
    return range(options["seed"], options["seed"] + count)


def _noise(options: dict[str, Any]) -> float:
    """Return the steps' random variation: as stated, else that of a fleet's file, else 0."""
    if options["noise"] is not None:
        return float(options["noise"])
    described = _described(options)
    return described.settings().noise if described is not None else 0.0


def capacity_of(fleet: Sequence[InstanceModel], workload: Workload, settings: SimulationSettings) -> float:
    """Return the requests per second that a fleet can serve, computed."""
    from sage_simulator.fleet_capacity import load_capacity

    sample = workload.sample()
    capacity = load_capacity(fleet, sample, split=settings.scheduler.pd.enabled)
    if not capacity:
        models = ", ".join(sorted({each.model for each in sample}))
        raise click.UsageError(f"the fleet has no instance for each of the models {models}")
    return capacity


def workload_of(options: dict[str, Any], *, requests: int | None = None, duration_s: float | None = None) -> Workload:
    """Make the load; ``requests`` and ``duration_s`` are a synthetic trace's defaults.  Raises ValueError."""
    from sage_simulator.traces import read_trace
    from sage_simulator.traces.synthetic.poisson_trace import LONGEST_OUTPUT, LONGEST_PROMPT, lengths
    from sage_simulator.workload import Workload

    if options["requests"] is not None and options["duration"] is not None:
        raise click.UsageError("--requests and --duration exclude one another")
    replayed = read_trace(options["trace_file"]) if options["trace_file"] is not None else ()
    sized = replayed or options["requests"] is not None or options["duration"] is not None
    return Workload(
        replayed=tuple(replayed),
        requests=options["requests"] if sized else requests,
        duration_s=options["duration"] if sized else duration_s,
        prompts=lengths(options["prompt_median"], options["prompt_sigma"], LONGEST_PROMPT),
        outputs=lengths(options["output_median"], options["output_sigma"], LONGEST_OUTPUT),
        classes=options["classes"],
        ttft_target_s=options["ttft_target"],
        tpot_target_s=options["tpot_target"],
        models=dict(map(_weight, options["models"])),
        cancel_share=options["cancel_share"],
        cancel_mean_s=options["cancel_mean_s"],
    )


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1)
    except ValueError:
        raise click.UsageError(f"--model {text}: {weight!r} is no weight") from None


def fleet_of(options: dict[str, Any]) -> tuple[InstanceModel, ...]:
    """Return the fleet.  Raises FleetSpecError."""
    from sage_simulator.fleet_spec import named_fleet, parse_instances

    if options["fleet"] is not None and options["instances"] is not None:
        raise click.UsageError("--fleet and --instances exclude one another")
    if options["instances"] is not None:
        return parse_instances(options["instances"], named_kinds(options))
    described = _described(options)
    return tuple(described.instances) if described is not None else named_fleet(options["fleet"] or "E8")


def _described(options: dict[str, Any]) -> FleetFile | None:
    """Return the fleet of the file that ``--fleet`` names; None if it names none.  Raises ValueError."""
    from sage_simulator.calibration.described_fleet import described_fleet
    from sage_simulator.fleet_spec import NAMED_FLEETS

    name = options["fleet"]
    if name is None or name in NAMED_FLEETS or not Path(name).is_file():
        return None
    return described_fleet(Path(name))


def named_kinds(options: dict[str, Any]) -> dict[str, InstanceModel]:
    """Return the kinds of instances that were named.  Raises FleetSpecError."""
    from sage_simulator.fleet_spec import parse_kind

    return dict(map(parse_kind, options["kinds_named"]))


def settings_of(options: dict[str, Any], instances: Iterable[InstanceModel]) -> SimulationSettings:
    """Return how the world around the scheduler behaves.  ``instances``: of which kinds there may be some.

    Raises SimulationError and FleetSpecError.
    """
    from sage_simulator.fleet_event import parse_event
    from sage_simulator.kv_transfer import KvTransfer
    from sage_simulator.simulation_settings import SimulationSettings, splitting

    kinds = named_kinds(options)
    roles = {each.role.value for each in instances}
    by_default = "always" if {"prefilling", "decoding"} <= roles else "never"
    described = _described(options)
    return replace(
        described.settings() if described is not None else SimulationSettings(),
        scheduler=splitting(options["pd"] or by_default),
        kv_transfer=KvTransfer(latency_s=options["kv_latency"], bytes_per_s=options["kv_bandwidth"] * 1e9),
        noise=_noise(options),
        events=tuple(parse_event(text, kinds) for text in options["events"]),
    )
