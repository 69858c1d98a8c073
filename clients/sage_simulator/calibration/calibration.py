"""Fits a whole fleet to a recording: engines, their way to the scheduler, heartbeats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from sage_simulator.calibration.pace_fit import LEAST_SAMPLES, PaceFit, fit_pace
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.heartbeats import HeartbeatTimes
from sage_simulator.traces.recording.recorded_lines import (
    RecordedInstance,
    RecordedLoad,
    RecordedLog,
    RecordedRequest,
)
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.load_report import IterationSample

DEFAULT_DELAY_S = 5e-4
_LEAST_IDLE_STARTS = 5  # without so many the delay is not fitted


class CalibrationError(ValueError):
    """The recording does not hold what a calibration needs; the message says what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceFit:
    """One instance of the recording and the model fitted to it."""

    instance: str
    model: InstanceModel
    fit: PaceFit
    pooled: bool  # fitted to the iterations of all instances, because its own were too few


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A fleet as a recording shows it."""

    instances: tuple[InstanceFit, ...]
    delay_s: float  # between scheduler and engine, one way: network, tokenization, the engine's own overhead
    idle_starts: int  # requests that the delay was fitted to; too few: a default
    noise: float  # sigma of the logarithm of a step's random factor, weighted by samples
    heartbeats: HeartbeatTimes

    @property
    def fleet(self) -> tuple[InstanceModel, ...]:
        """The instances, in the order of their names."""
        return tuple(each.model for each in self.instances)


def calibrate(log: RecordedLog, model: str | None = None) -> Calibration:
    """Fit the instances of a model; None: of the only one.

    Raises CalibrationError where the recording names several models or none, or holds no iterations.
    """
    name = _only_model(log) if model is None else model
    recorded = log.latest_instances(name)
    if not recorded:
        raise CalibrationError(f"no instance of model {name!r} was ready; there are: {', '.join(log.models) or 'none'}")
    fits = tuple(_fits(recorded, log.loads))
    idle = sorted(_idle_overheads(log.requests, {each.instance: each for each in fits}))
    enough = len(idle) >= _LEAST_IDLE_STARTS
    return Calibration(
        instances=fits,
        delay_s=max(0.0, median(idle) / 2) if enough else DEFAULT_DELAY_S,
        idle_starts=len(idle),
        noise=sum(each.fit.noise * each.fit.samples for each in fits) / sum(each.fit.samples for each in fits),
        heartbeats=_heartbeats([each for each in log.loads if each.instance in {fit.instance for fit in fits}]),
    )


def _only_model(log: RecordedLog) -> str:
    models = sorted({each.model for each in log.instances})
    if len(models) != 1:
        raise CalibrationError(f"name the model; there are: {', '.join(models) or 'none'}")
    return models[0]


def _fits(recorded: Sequence[RecordedInstance], loads: Iterable[RecordedLoad]) -> Iterator[InstanceFit]:
    samples: dict[str, list[IterationSample]] = {each.instance: [] for each in recorded}
    for load in loads:
        if load.instance in samples:
            samples[load.instance] += load.samples
    everything = [sample for each in samples.values() for sample in each]
    if len(everything) < LEAST_SAMPLES:
        raise CalibrationError(
            f"{len(everything)} iterations were recorded, {LEAST_SAMPLES} are needed: record while requests run"
        )
    pool: PaceFit | None = None
    for each in recorded:
        own = samples[each.instance]
        pooled = len(own) < LEAST_SAMPLES
        if pooled and pool is None:
            pool = fit_pace(everything)
        fit = pool if pooled and pool is not None else fit_pace(own)
        yield InstanceFit(instance=each.instance, model=_model(each, fit), fit=fit, pooled=pooled)


def _model(recorded: RecordedInstance, fit: PaceFit) -> InstanceModel:
    return InstanceModel(
        price_per_hour=recorded.price_per_hour,
        kv_capacity_tokens=recorded.kv_capacity_tokens,
        kv_block_size=recorded.kv_block_size,
        max_running=recorded.max_running,
        max_batched_tokens=recorded.max_batched_tokens,
        max_model_len=recorded.max_model_len,
        role=InstanceRole(recorded.role),
        pace=fit.pace,
    )


def _idle_overheads(requests: Sequence[RecordedRequest], fits: dict[str, InstanceFit]) -> Iterator[float]:
    """Yield what the first token of each request that found its instance idle took beyond the fitted steps, s."""
    by_instance: dict[str, list[RecordedRequest]] = {}
    for each in requests:
        if each.instance in fits and each.decided_s is not None:
            by_instance.setdefault(each.instance, []).append(each)
    for instance, placed in by_instance.items():
        placed.sort(key=lambda each: each.decided_s or 0.0)
        busy_until = 0.0
        for number, each in enumerate(placed):
            decided, first = each.decided_s or 0.0, each.first_token_s
            follows = placed[number + 1].decided_s if number + 1 < len(placed) else None
            alone = first is not None and (follows is None or follows >= first)
            if (
                first is not None
                and alone
                and decided > busy_until
                and each.attempts == 1
                and not each.prefill_instance
            ):
                yield first - decided - _prefill_s(fits[instance].model, each.prompt_tokens)
            busy_until = max(busy_until, each.ended_s)


def _prefill_s(model: InstanceModel, prompt_tokens: int) -> float:
    """Return how long a prompt takes that has the engine to itself, in chunks."""
    took_s, computed = 0.0, 0
    while computed < prompt_tokens:
        chunk = min(model.max_batched_tokens, prompt_tokens - computed)
        computed += chunk
        took_s += model.pace_here.iteration_s(chunk, 1, computed)
    return took_s


def _heartbeats(loads: Sequence[RecordedLoad]) -> HeartbeatTimes:
    """Return when heartbeats came: the typical longest and the typical shortest time between two."""
    longest = [each.longest_gap_s for each in loads if each.longest_gap_s]
    shortest = [each.shortest_gap_s for each in loads if each.shortest_gap_s]
    if not longest or not shortest:
        return HeartbeatTimes()
    interval_s = median(longest)
    return HeartbeatTimes(interval_s=interval_s, gap_s=min(median(shortest), interval_s))
