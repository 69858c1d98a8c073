"""The heartbeats of a modelled executor: what they hold and when they are due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage_simulator.engine_model import EngineModel
from scheduler_svc.domain.load_report import IterationSample, LoadReport

_SAMPLES_SENT = 64  # most iterations in one heartbeat, as in an executor's


@dataclass(frozen=True, kw_only=True, slots=True)
class HeartbeatTimes:
    """When heartbeats are sent: after each interval, and soon after attempts came or went."""

    interval_s: float = 0.5  # longest time between two
    gap_s: float = 0.05  # least time between two

    def __post_init__(self) -> None:
        if not 0 < self.gap_s <= self.interval_s:
            raise ValueError(f"heartbeats: a gap of {self.gap_s} s is not within the interval of {self.interval_s} s")


class HeartbeatMaker:
    """Makes the heartbeats of one modelled executor.  Token rates are means over one to two intervals."""

    def __init__(self, engine: EngineModel, interval_s: float) -> None:
        self._engine = engine
        self._interval_s = interval_s
        self._number = 0
        self._baseline = self._next_baseline = (0.0, 0, 0)  # time, prompt tokens, generated tokens

    def make(self, last_assign: int, now: float) -> LoadReport:
        """Make the next heartbeat.  ``last_assign``: number of the last Assign that the engine has."""
        engine = self._engine
        self._number += 1
        prompt_rate, generation_rate = self._rates(now)
        return LoadReport(
            number=self._number,
            last_assign=last_assign,
            running=engine.running,
            waiting=engine.waiting,
            unfinished=engine.running + engine.waiting,
            kv_used_tokens=engine.kv_used_tokens,
            iterations=engine.steps,
            prefix_queries_tokens=engine.prefix_queries_tokens,
            prefix_hits_tokens=engine.prefix_hits_tokens,
            prompt_tokens_per_s=prompt_rate,
            generation_tokens_per_s=generation_rate,
            samples=tuple(_spread(engine.take_samples(), _SAMPLES_SENT)),
        )

    def _rates(self, now: float) -> tuple[float, float]:
        engine = self._engine
        totals = (now, engine.prompt_tokens, engine.generated_tokens)
        if now - self._next_baseline[0] >= self._interval_s:
            self._baseline, self._next_baseline = self._next_baseline, totals
        elapsed = now - self._baseline[0]
        if elapsed <= 0:
            return 0.0, 0.0
        return (totals[1] - self._baseline[1]) / elapsed, (totals[2] - self._baseline[2]) / elapsed


def _spread(samples: Sequence[IterationSample], limit: int) -> Sequence[IterationSample]:
    """Return at most ``limit`` samples, evenly spread and with the latest one."""
    if len(samples) <= limit:
        return samples
    step = len(samples) / limit
    return [samples[len(samples) - 1 - int(index * step)] for index in range(limit - 1, -1, -1)]
