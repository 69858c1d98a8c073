"""What has to be run, the most important first."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.policies.cell import Cell, Group
from tests.bench.policies.figures import Figures
from tests.bench.policies.fixed_loads import fixed_loads
from tests.bench.policies.readings import Readings
from tests.bench.policies.stages import Stage, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Runs one cell.  Can be sent to another process."""

    cell: Cell

    def __call__(self) -> tuple[Cell, Figures]:
        """Return the cell and its figures."""
        return self.cell, self.cell.run()


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What is to be known of a policy in a group by one seed."""

    group: Group
    policy: str
    seed: int
    search: bool  # its goodput; otherwise its figures at the loads that claims read

    @property
    def stage(self) -> Stage:
        """When it is reached, the lowest first."""
        return stage(self.group, self.policy, self.seed, search=self.search)

    def next_cell(self, readings: Readings) -> Cell | None:
        """Return the next cell that it needs; None once it knows everything."""

        def cell(load: float) -> Cell:
            return readings.cell(self.group, self.policy, load, self.seed)

        if self.search:
            load = readings.next_load(self.group, self.policy, self.seed)
            return readings.shortened(cell(load)) if load is not None else None
        needed = map(cell, sorted(readings.at or fixed_loads(self.group, self.policy)))
        return next((each for each in needed if readings.results.find(each) is None), None)


class Plan:
    """Gives out the cells that are left, one at a time of each policy, group and seed: a search uses what was found."""

    def __init__(self, readings: Readings) -> None:
        """List the goals that are not reached: by stage, then by seed, then one group after the other."""
        self._readings = readings
        goals = (
            Goal(group=group, policy=policy, seed=seed, search=search)
            for seed in readings.seeds
            for group in readings.groups
            for policy in readings.policies_in(group)
            for search in ((False,) if readings.at else (False, True))
        )
        self._open = list(goals) if readings.at else sorted(goals, key=lambda each: each.stage)  # a stable sort
        self._running: set[tuple[Group, str, int]] = set()

    def next_job(self) -> Job | None:
        """Return the most important cell that can be run now; None if all that is left waits for what runs."""
        for goal in tuple(self._open):
            if (goal.group, goal.policy, goal.seed) in self._running:
                continue
            cell = goal.next_cell(self._readings)
            if cell is not None:
                self._running.add((goal.group, goal.policy, goal.seed))
                return Job(cell=cell)
            self._open.remove(goal)
        return None

    def done(self, cell: Cell, figures: Figures) -> None:
        """Take what a job gave."""
        self._running.discard((cell.group, cell.policy, cell.seed))
        self._readings.results.add({cell.key: figures})

    def left(self) -> list[Goal]:
        """Return the goals that are not reached, the most important first."""
        return [each for each in self._open if each.next_cell(self._readings) is not None]
