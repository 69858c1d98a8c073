"""A scheduler to which the same happens at random for the same seed, and everything that it said."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from scheduler_svc.domain.errors import SchedulerError
from scheduler_svc.domain.scheduler import Scheduler
from tests.unit.domain.random_fleet import Twins, shown


class RecordedFleet(Twins):
    """Asks one of the twins only, and writes down its decisions, their candidates and its other answers."""

    def __init__(self, rng: Random, policy: str) -> None:
        self.said: list[str] = []
        super().__init__(rng, policy)

    def tell(self, what: Callable[[Scheduler], object]) -> object:
        """Tell the scheduler, and write down what it answers."""
        answer: Any
        try:
            answer = what(self.quick)
        except SchedulerError as error:
            answer = f"{type(error).__name__}: {error}"
        if " at 0x" not in repr(answer):
            self.said.append(repr(answer))
        return answer

    def schedule(self) -> None:
        """Place what can be placed, and write it down."""
        decisions = self.quick.schedule(self.now)
        assert self.quick.take_policy_failures() == []
        for decision in decisions:
            self.said.append(f"{shown(decision)} of {list(decision.candidates)}")
            self.took(decision)
