"""How a simulation went over time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sage_simulator.executor_model import ExecutorModel

_POINTS = 200  # about as many as a plot can show


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelinePoint:
    """The state at one time, and means since the point before."""

    at_s: float  # since the trace began
    waiting: int  # requests in the scheduler's queues
    running: int  # sequences in the engines, those that wait there included
    instances: int  # that run
    utilisation: float  # share of the instances' time in which a step ran, since the point before
    fleet_cost: float  # price x hours of all instances so far


class Timeline:
    """Takes a point at about equal distances, some hundred in all."""

    def __init__(self, expected_s: float) -> None:
        """Take the expected length of the simulation, in seconds."""
        self.points: list[TimelinePoint] = []
        self._every_s = max(0.5, expected_s / _POINTS)
        self._last_at = 0.0
        self._busy_s = 0.0
        self._up_s = 0.0

    def due(self, now: float) -> bool:
        """Whether the next point is due."""
        return now - self._last_at >= self._every_s

    def take(self, now: float, executors: Iterable[ExecutorModel], waiting: int) -> None:
        """Take a point."""
        each_up = [(each, _up_s(each, now)) for each in executors]
        up_s = sum(seconds for _, seconds in each_up)
        busy_s = sum(each.engine.busy_s for each, _ in each_up)
        there = [each for each, _ in each_up if each.up]
        grown_s = up_s - self._up_s
        self.points.append(
            TimelinePoint(
                at_s=now,
                waiting=waiting,
                running=sum(each.engine.running + each.engine.waiting for each in there),
                instances=len(there),
                utilisation=min(1.0, (busy_s - self._busy_s) / grown_s) if grown_s > 0 else 0.0,
                fleet_cost=sum(each.model.price_per_hour * seconds for each, seconds in each_up) / 3600,
            )
        )
        self._last_at, self._busy_s, self._up_s = now, busy_s, up_s


def _up_s(executor: ExecutorModel, now: float) -> float:
    until_s = executor.up_until_s if executor.up_until_s is not None else now
    return max(0.0, until_s - executor.up_from_s)
