"""How long one engine iteration takes."""

from __future__ import annotations

from math import fsum

from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.prediction.linear_system import solve_symmetric
from scheduler_svc.domain.prediction.pace import Pace

_N = 4  # coefficients
_PULL = 1e-3  # weight of the prior, as a share of a coefficient's weight in the samples; more while they are few
_PULL_SAMPLES = 0.5
_FLOOR = 1e-4  # weight of the prior, in samples, for a coefficient that no sample depends on
_WARM = 32  # samples until a prediction is trusted to weigh the next sample
_SCALE_RANGE = (1e-4, 1e4)  # how far an engine may be off the prior
_SLOWEST_RATIO = 20.0  # a sample this many times slower than predicted counts as this slow

Row = tuple[float, float, float, float]


class IterationModel:
    """Predicts the time of an engine iteration, linear in (1, prefill tokens, running sequences, KV tokens in use).

    The coefficients come from least squares with exponential forgetting (recursive least squares): the normal
    equations are kept, each sample weighing ``forgetting`` times the next, and solved on demand.  The errors are
    relative, so short and long iterations count alike.  A weak pull towards the prior, scaled to the speed seen so far
    (ridge regression), decides between coefficients that the load does not tell apart; it does not fade, so they stay
    sane however long the load stays the same.  No coefficient goes below zero.
    """

    def __init__(self, prior: Pace, *, forgetting: float) -> None:
        self._prior: Row = (prior.base_s, prior.prefill_token_s, prior.running_s, prior.kv_token_s)
        self._forgetting = forgetting
        self._a = [[0.0] * _N for _ in range(_N)]  # sum of w x x'
        self._b = [0.0] * _N  # sum of w x y
        self._weight = 0.0
        self._ratio = 0.0  # weighted sum of measured / prior
        self._theta = self._prior
        self.samples = 0

    def predict(self, sample: IterationSample) -> float:
        """Predict seconds of an iteration with the coefficients of the last ``solve``."""
        base, prefill, running, kv = self._theta
        return base + prefill * sample.prefill_tokens + running * sample.running + kv * sample.kv_used_tokens

    def learn(self, sample: IterationSample) -> None:
        """Take a measured iteration into the normal equations; ``solve`` makes use of it."""
        x: Row = (1.0, float(sample.prefill_tokens), float(sample.running), float(sample.kv_used_tokens))
        by_prior = fsum(p * xi for p, xi in zip(self._prior, x, strict=True))
        # The prediction may be zero for an iteration that runs nothing, such as one where all sequences wait for KV.
        least = self._scale * by_prior / _SLOWEST_RATIO
        y = sample.elapsed_s
        if self.samples >= _WARM:
            predicted = max(self.predict(sample), least)
            y = min(y, _SLOWEST_RATIO * predicted)
            w = 1 / predicted**2
        else:
            w = 1 / max(y, least) ** 2
        forget = self._forgetting
        for row, xi in zip(self._a, x, strict=True):
            wx = w * xi
            for j in range(_N):
                row[j] = forget * row[j] + wx * x[j]
        for i in range(_N):
            self._b[i] = forget * self._b[i] + w * x[i] * y
        self._weight = forget * self._weight + 1
        self._ratio = forget * self._ratio + y / by_prior
        self.samples += 1

    def solve(self) -> Pace:
        """Work out the coefficients from all samples so far."""
        if self.samples:
            scale = self._scale
            self._theta = self._nonnegative([p * scale for p in self._prior])
        base, prefill, running, kv = self._theta
        return Pace(base_s=base, prefill_token_s=prefill, running_s=running, kv_token_s=kv)

    @property
    def _scale(self) -> float:
        """How much slower than the prior recent iterations were."""
        if not self.samples:
            return 1.0
        return min(max(self._ratio / self._weight, _SCALE_RANGE[0]), _SCALE_RANGE[1])

    def _nonnegative(self, prior: list[float]) -> Row:
        """Solve the least squares with the coefficients that would be negative held at zero."""
        pull = _PULL + _PULL_SAMPLES / self.samples
        free = list(range(_N))
        while free:
            a = [[self._a[i][j] for j in free] for i in free]
            b = [self._b[i] for i in free]
            for k, i in enumerate(free):
                ridge = pull * self._a[i][i] + _FLOOR / prior[i] ** 2
                a[k][k] += ridge
                b[k] += ridge * prior[i]
            theta = solve_symmetric(a, b)
            assert theta is not None, "the pull to the prior makes it positive definite"
            keep = [i for i, t in zip(free, theta, strict=True) if t >= 0]
            if len(keep) == len(free):
                found = dict(zip(free, theta, strict=True))
                return (found.get(0, 0.0), found.get(1, 0.0), found.get(2, 0.0), found.get(3, 0.0))
            free = keep
        raise AssertionError("a positive sample has a non-negative fit")
