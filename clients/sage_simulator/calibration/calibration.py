"""Fits a whole fleet to a recording: engines, their way to the scheduler, heartbeats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from sage_simulator.calibration.pace_fit import LEAST_SAMPLES, PaceFit, fit_pace
from sage_simulator.fleet_file import FleetFile
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
_LEAST_GAP_S = 0.01  # between two heartbeats: those that came closer were held up together
_LEAST_IDLE_STARTS = 5  # without so many the delay is not fitted


class CalibrationError(ValueError):
    """The recording does not hold what a calibration needs; the message says what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceFit:
    """One instance of the recording and the model fitted to it."""

    instance: str
    model: InstanceModel
    fit: PaceFit
    pooled: bool  # fitted to the iterations of all instances of its model, because its own were too few


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A fleet as a recording shows it."""

    instances: tuple[InstanceFit, ...]
    delay_s: float  # between scheduler and engine, one way: network, tokenization, the engine's own overhead
    idle_starts: int  # requests that the delay was fitted to
    noise: float  # sigma of the logarithm of a step's random factor; mean over the instances by their samples
    heartbeats: HeartbeatTimes

    @property
    def delay_fitted(self) -> bool:
        """Whether enough requests found their instance idle for the delay to be fitted; else it is a default."""
        return self.idle_starts >= _LEAST_IDLE_STARTS

    @property
    def fleet(self) -> FleetFile:
        """The fleet, as ``run`` and ``sweep`` take it; instances in the order of their names."""
        return FleetFile(
            instances=tuple(each.model for each in self.instances),
            delay_s=self.delay_s,
            noise=self.noise,
            heartbeats=self.heartbeats,
        )


def calibrate(log: RecordedLog, model: str | None = None) -> Calibration:
    """Fit the instances of a model; None: all of them.

    Raises CalibrationError where no instance was ready or too few iterations were recorded.
    """
    recorded = log.latest_instances(model)
    if not recorded:
        asked = f"no instance of model {model!r} was ready" if model is not None else "no instance was ready"
        raise CalibrationError(f"{asked}; the recording has: {', '.join(log.models) or 'no model'}")
    names = {each.instance for each in recorded}
    loads = [each for each in log.loads if each.instance in names]
    fits = tuple(_fits(recorded, loads))
    idle = list(_idle_overheads(log.requests, {each.instance: each.model for each in fits}))
    samples = sum(each.fit.samples for each in fits)
    return Calibration(
        instances=fits,
        delay_s=max(0.0, median(idle) / 2) if len(idle) >= _LEAST_IDLE_STARTS else DEFAULT_DELAY_S,
        idle_starts=len(idle),
        noise=sum(each.fit.noise * each.fit.samples for each in fits) / samples,
        heartbeats=_heartbeats(loads),
    )


def _fits(recorded: Sequence[RecordedInstance], loads: Iterable[RecordedLoad]) -> Iterator[InstanceFit]:
    samples: dict[str, list[IterationSample]] = {each.instance: [] for each in recorded}
    for load in loads:
        samples[load.instance] += load.samples
    models = {each.model for each in recorded}
    pools = {
        model: fit_pace(
            _enough([sample for each in recorded if each.model == model for sample in samples[each.instance]], model)
        )
        for model in models
    }
    for each in recorded:
        own = samples[each.instance]
        pooled = len(own) < LEAST_SAMPLES
        fit = pools[each.model] if pooled else fit_pace(own)
        named = _model(each, fit, name=each.model if len(models) > 1 else "")
        yield InstanceFit(instance=each.instance, model=named, fit=fit, pooled=pooled)


def _enough(samples: list[IterationSample], model: str) -> list[IterationSample]:
    if len(samples) < LEAST_SAMPLES:
        raise CalibrationError(
            f"model {model!r}: {len(samples)} iterations were recorded, {LEAST_SAMPLES} are needed; "
            "record while requests run"
        )
    return samples


def _model(recorded: RecordedInstance, fit: PaceFit, *, name: str) -> InstanceModel:
    return InstanceModel(
        price_per_hour=recorded.price_per_hour,
        kv_capacity_tokens=recorded.kv_capacity_tokens,
        kv_block_size=recorded.kv_block_size,
        max_running=recorded.max_running,
        max_batched_tokens=recorded.max_batched_tokens,
        max_model_len=recorded.max_model_len,
        role=InstanceRole(recorded.role),
        model=name,
        pace=fit.pace,
    )


def _idle_overheads(requests: Iterable[RecordedRequest], models: Mapping[str, InstanceModel]) -> Iterator[float]:
    """Yield the seconds that first tokens took beyond the fitted steps, of requests that had their instance alone."""
    by_instance: dict[str, list[tuple[float, RecordedRequest]]] = {}
    for each in requests:
        if each.instance in models and each.decided_s is not None:
            by_instance.setdefault(each.instance, []).append((each.decided_s, each))
    for instance, placed in by_instance.items():
        placed.sort(key=lambda each: each[0])
        following = [decided_s for decided_s, _ in placed[1:]]
        busy_until = float("-inf")
        for (_, each), next_at in zip(placed, [*following, float("inf")], strict=True):
            first = each.first_token_s
            whole = each.attempts == 1 and not each.prefill_instance
            if first is not None and whole and busy_until < each.arrival_s and first <= next_at:
                yield first - each.arrival_s - _prefill_s(models[instance], each.prompt_tokens)
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
    """Return when heartbeats came: the typical longest time between two, and the shortest but for a tenth of them."""
    longest = [each.longest_gap_s for each in loads if each.longest_gap_s]
    shortest = [each.shortest_gap_s for each in loads if each.shortest_gap_s]
    if not longest or not shortest:
        return HeartbeatTimes()
    interval_s = max(median(longest), _LEAST_GAP_S)
    gap_s = max(sorted(shortest)[len(shortest) // 10], _LEAST_GAP_S)
    return HeartbeatTimes(interval_s=interval_s, gap_s=min(gap_s, interval_s))
