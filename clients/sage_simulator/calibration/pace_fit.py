"""Fits the time of an engine's steps to iterations that it reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sage_simulator.calibration.nonnegative import solve_nonnegative
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.prediction.pace import Pace

LEAST_SAMPLES = 32
"""Iterations without which an engine is not fitted by itself."""

_MOST_SAMPLES = 20_000
_ROUNDS = 6  # of weighing the samples by the fit before
_MOST_RATIO = 20.0  # an iteration this many times slower than fitted counts as this slow
_MOST_NOISE = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PaceFit:
    """A fitted pace, and how far the iterations were off it.  Errors are shares of the fitted time."""

    pace: Pace
    samples: int
    mean_error: float  # mean of |measured - fitted| / fitted
    p90_error: float
    noise: float  # sigma of the logarithm of measured / fitted

    @property
    def untold(self) -> tuple[str, ...]:
        """The coefficients that are 0: the iterations do not tell what they cost."""
        names = {
            "base": self.pace.base_s,
            "prefill token": self.pace.prefill_token_s,
            "running sequence": self.pace.running_s,
            "context token": self.pace.kv_token_s,
        }
        return tuple(name for name, value in names.items() if value == 0)


def fit_pace(samples: Sequence[IterationSample]) -> PaceFit:
    """Fit the four coefficients by least squares of relative errors; none is negative.

    The weights are those of the fitted times, not of the measured ones: the mean of measured / fitted is then 1, and
    the slow iterations count with all their time.  Of many samples at most 20,000 are used, evenly spread.  Raises
    ValueError without samples.
    """
    if not samples:
        raise ValueError("no iterations to fit")
    samples = samples[:: -(-len(samples) // _MOST_SAMPLES)]
    typical = fmean(each.elapsed_s for each in samples)
    fitted = [typical] * len(samples)
    pace = Pace(base_s=typical, prefill_token_s=0.0, running_s=0.0, kv_token_s=0.0)
    for _ in range(_ROUNDS):
        rows = [
            (_variables(each), min(each.elapsed_s, _MOST_RATIO * expected), expected**-2)
            for each, expected in zip(samples, fitted, strict=True)
        ]
        base, prefill, running, kv = solve_nonnegative(rows, 4)
        pace = Pace(base_s=base, prefill_token_s=prefill, running_s=running, kv_token_s=kv)
        fitted = [max(_expected(pace, each), typical / 1e3) for each in samples]
    errors = sorted(abs(s.elapsed_s - f) / f for s, f in zip(samples, fitted, strict=True))
    logs = [math.log(max(s.elapsed_s, 1e-9) / f) for s, f in zip(samples, fitted, strict=True)]
    mean = fmean(logs)
    return PaceFit(
        pace=pace,
        samples=len(samples),
        mean_error=fmean(errors),
        p90_error=errors[-(-9 * len(errors) // 10) - 1],
        noise=min(math.sqrt(fmean((each - mean) ** 2 for each in logs)), _MOST_NOISE),
    )


def _variables(sample: IterationSample) -> tuple[float, float, float, float]:
    return 1.0, float(sample.prefill_tokens), float(sample.running), float(sample.kv_used_tokens)


def _expected(pace: Pace, sample: IterationSample) -> float:
    return pace.iteration_s(sample.prefill_tokens, sample.running, sample.kv_used_tokens)
