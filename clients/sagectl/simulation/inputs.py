"""Makes workloads, fleets and settings of simulations of the values of options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sage_simulator.fleet_file import FleetFile
    from sage_simulator.fleet_spec import InstanceModel
    from sage_simulator.simulation_settings import SimulationSettings
    from sage_simulator.traced_request import TracedRequest
    from sage_simulator.traces.synthetic.lengths import Lengths
    from sage_simulator.traces.synthetic.stretches import Stretch
    from sage_simulator.workload import Workload

DEFAULT_POLICY = "adaptive"


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


@contextmanager
def named(option: str) -> Iterator[None]:
    """Name the option whose value is at fault in an error, which is a sentence."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


def policies_of(options: dict[str, Any]) -> tuple[str, ...]:
    """Return the policies that were named, else the default."""
    from sage_simulator.policy_run import known_policies

    policies = tuple(options["policies"]) or (DEFAULT_POLICY,)
    with named("--policy"):
        known_policies(*policies)
    return policies


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
    from sage_simulator.traces.classes import check_mix
    from sage_simulator.workload import Workload

    if options["requests"] is not None and options["duration"] is not None:
        raise click.UsageError("--requests and --duration exclude one another")
    stretches = tuple(_stretch(each, options) for each in options.get("stretches", ()))
    _check_together(options)
    replayed = _replayed(options)
    with named("--classes"):
        check_mix(options["classes"])
    sized = replayed or stretches or options["requests"] is not None or options["duration"] is not None
    return Workload(
        replayed=tuple(replayed),
        requests=options["requests"] if sized else requests,
        duration_s=options["duration"] if sized else duration_s,
        prompts=_stated_lengths("prompt", options),
        outputs=_stated_lengths("output", options),
        day_s=options["day_s"],
        stretches=stretches,
        classes=options["classes"],
        ttft_target_s=options["ttft_target"],
        tpot_target_s=options["tpot_target"],
        models=dict(map(_weight, options["models"])),
        cancel_share=options["cancel_share"],
        cancel_mean_s=options["cancel_mean_s"],
    )


def _check_together(options: dict[str, Any]) -> None:
    """Refuse options of which one says what another one says too."""
    trace, day = options["trace_file"] is not None, options["day_s"] is not None
    if trace and day:
        raise click.UsageError("--day is for a synthetic trace; --trace has its own times of day")
    others = {"--trace": trace, "--requests": options["requests"], "--duration": options["duration"], "--day": day}
    if options.get("stretches") and any(others.values()):
        named_too = next(name for name, given in others.items() if given)
        raise click.UsageError(f"--stretch and {named_too} exclude one another: stretches say all of their trace")


def _replayed(options: dict[str, Any]) -> Sequence[TracedRequest]:
    """Return the trace of a file, if one is named.  Raises TraceError."""
    from sage_simulator.traces import read_trace, requests_per_s

    if options["trace_file"] is None:
        return ()
    trace = read_trace(options["trace_file"])
    if any(options.get(each) is not None for each in ("rate", "load", "duration")):
        with named(f"--trace {options['trace_file']}"):
            requests_per_s(trace)
    return trace


def _lengths(what: str, median: float, options: dict[str, Any]) -> Lengths:
    """Return the distribution of prompts or outputs with this median.  Raises ValueError."""
    from sage_simulator.traces.synthetic.poisson_trace import LONGEST_OUTPUT, LONGEST_PROMPT, lengths

    return lengths(median, options[f"{what}_sigma"], LONGEST_PROMPT if what == "prompt" else LONGEST_OUTPUT)


def _stated_lengths(what: str, options: dict[str, Any]) -> Lengths:
    """Return the distribution of prompts or outputs that the options state."""
    with named(f"--{what}-median"):
        return _lengths(what, options[f"{what}_median"], options)


def _stretch(text: str, options: dict[str, Any]) -> Stretch:
    """Read SECONDS:RATE:PROMPT:OUTPUT, the last two median tokens."""
    from sage_simulator.traces.synthetic.stretches import Stretch

    try:
        length_s, rate, prompt, output = map(float, text.split(":"))
    except ValueError:
        raise click.UsageError(f"--stretch {text}: it is SECONDS:RATE:PROMPT:OUTPUT, such as 300:7:3000:40") from None
    with named(f"--stretch {text}"):
        return Stretch(
            length_s=length_s,
            rate=rate,
            prompts=_lengths("prompt", prompt, options),
            outputs=_lengths("output", output, options),
        )


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        number = float(weight or 1)
    except ValueError:
        raise click.UsageError(f"--model {text}: {weight!r} is no weight") from None
    if not name or not 0 < number < math.inf:
        raise click.UsageError(f"--model {text}: it is NAME=WEIGHT, the weight a number above 0")
    return name, number


def fleet_of(options: dict[str, Any]) -> tuple[InstanceModel, ...]:
    """Return the fleet.  Raises FleetSpecError."""
    from sage_simulator.fleet_spec import named_fleet, parse_instances

    if options["fleet"] is not None and options["instances"] is not None:
        raise click.UsageError("--fleet and --instances exclude one another")
    if options["instances"] is not None:
        with named("--instances"):
            return parse_instances(options["instances"], named_kinds(options))
    described = _described(options)
    if described is not None:
        return tuple(described.instances)
    try:
        return named_fleet("E8" if options["fleet"] is None else options["fleet"])
    except ValueError as error:
        raise click.UsageError(f"--fleet: {error}; nor is there a file of this name") from None


def _described(options: dict[str, Any]) -> FleetFile | None:
    """Return the fleet of the file that ``--fleet`` names; None if it names none.  Raises ValueError."""
    from sage_simulator.calibration.described_fleet import described_fleet
    from sage_simulator.fleet_spec import NAMED_FLEETS

    name = options["fleet"]
    if name is None or name in NAMED_FLEETS or not Path(name).is_file():
        return None
    with named("--fleet"):
        return described_fleet(Path(name))


def named_kinds(options: dict[str, Any]) -> dict[str, InstanceModel]:
    """Return the kinds of instances that were named.  Raises FleetSpecError."""
    from sage_simulator.fleet_spec import parse_kind

    with named("--kind"):
        return dict(map(parse_kind, options["kinds_named"]))


def _autoscaled(settings: SimulationSettings, options: dict[str, Any]) -> SimulationSettings:
    """Let the number of instances follow the load where ``--autoscale`` says so.  Raises ValueError."""
    text = options.get("autoscale")
    if text is None:
        return settings
    least, _, most = text.partition("-")
    if not (least.isdigit() and most.isdigit()):
        raise click.UsageError(f"--autoscale {text}: it is MIN-MAX, such as 1-4")
    with named(f"--autoscale {text}"):
        return settings.autoscaled(
            int(least), int(most), warm_up_s=options["warm_up_s"], down_delay_s=options["down_delay_s"]
        )


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
    with named("--event"):
        events = tuple(parse_event(text, kinds) for text in options["events"])
    world = replace(
        described.settings() if described is not None else SimulationSettings(),
        scheduler=splitting(options["pd"] or by_default),
        kv_transfer=KvTransfer(latency_s=options["kv_latency"], bytes_per_s=options["kv_bandwidth"] * 1e9),
        noise=_noise(options),
        events=events,
    )
    if options.get("automatic_roles"):
        world = world.with_automatic_roles()
    return _autoscaled(world, options)
