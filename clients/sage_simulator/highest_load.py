"""The highest load at which a policy keeps enough requests in target on a fleet."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sage_simulator.policy_run import PolicyRun
from sage_simulator.report import Summary

_FIRST = 0.8  # load that is tried first
_GROWTH = 1.25  # from one load to the next as long as none was too high, and back as long as none was low enough
_LEAST, _MOST = 0.02, 16.0  # loads beyond which nothing is tried


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPoint:
    """One load that was tried."""

    load: float  # share of the fleet's computed capacity
    summary: Summary


@dataclass(frozen=True, kw_only=True, slots=True)
class HighestLoad:
    """What a search found."""

    policy: str
    seed: int
    best: LoadPoint | None  # None: not even the least load that was tried
    points: tuple[LoadPoint, ...]  # every load that was tried, ascending

    @property
    def load(self) -> float:
        """The highest load with enough requests in target; 0 if there is none."""
        return self.best.load if self.best is not None else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadSearch:
    """A search by bisection.  Can be sent to another process.

    It assumes that a higher load never has more requests in target.
    """

    run: PolicyRun  # at any rate
    capacity_per_s: float  # of the fleet, in requests of this workload
    share: float = 0.9  # of requests in target that is enough
    resolution: float = 0.02  # of the load

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share: {self.share} is not above 0 and at most 1")
        if not 0.001 <= self.resolution <= 1:
            raise ValueError(f"resolution: {self.resolution} is not from 0.001 to 1")

    def __call__(self) -> HighestLoad:
        """Search.  Raises what ``PolicyRun`` raises."""
        enough: LoadPoint | None = None
        too_high: float | None = None
        points: list[LoadPoint] = []
        while (load := self._next(enough.load if enough is not None else None, too_high)) is not None:
            points.append(LoadPoint(load=load, summary=replace(self.run, rate=load * self.capacity_per_s)()))
            if points[-1].summary.in_target_share >= self.share:
                enough = points[-1]
            else:
                too_high = load
        points.sort(key=lambda each: each.load)
        return HighestLoad(policy=self.run.policy, seed=self.run.seed, best=enough, points=tuple(points))

    def _next(self, enough: float | None, too_high: float | None) -> float | None:
        if enough is None and too_high is None:
            return _FIRST
        if too_high is None:
            assert enough is not None, "a load was tried"
            return enough * _GROWTH if enough < _MOST else None
        if enough is None:
            return too_high / _GROWTH if too_high > _LEAST else None
        return (enough + too_high) / 2 if too_high - enough > self.resolution else None
